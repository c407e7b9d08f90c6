"""Waiting for Kaggle, which is told as it goes."""

import time
from collections.abc import Callable

from surface_package.kaggle import client
from surface_package.kaggle.delivery import DeliveryError, Patience


def say(text: str) -> None:
    """Print a line now, also into a pipe."""
    print(text, flush=True)


def wait(patience: Patience, what: str, look: Callable[[], tuple[str, bool]]) -> None:
    """Call `look` -> (state, whether to stop) every `poll_s` seconds; a changed state, or a minute gone, is printed.

    Kaggle may refuse to answer now and then: only the third failure in a row is raised. Raises DeliveryError when
    `timeout_s` is over.
    """
    start = told = time.monotonic()
    shown, failures = "", 0
    while True:
        try:
            (state, stop), failures = look(), 0
        except client.ClientError as error:
            state, stop, failures = "no answer", False, failures + 1
            if failures == 3:
                raise error
        now = time.monotonic()
        if state != shown or now - told >= 60:
            say(f"  {what}: {state} ({now - start:.0f} s)")
            shown, told = state, now
        if stop:
            return
        if now - start + patience.poll_s > patience.timeout_s:
            advice = "Run publish again to go on waiting, with a larger --timeout-s if need be."
            raise DeliveryError(f"{what} still stands at {state!r} after {patience.timeout_s:.0f} s. {advice}")
        time.sleep(patience.poll_s)
