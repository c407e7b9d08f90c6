"""Waiting for Kaggle, with a line whenever something changes."""

import time
from collections.abc import Callable

from surface_package.kaggle import client
from surface_package.kaggle.delivery import DeliveryError, Polling

FAILURES = 3  # consecutive ones that are an error
SHOWN_EVERY_S = 60.0


def say(text: str) -> None:
    """Print a line now, also into a pipe."""
    print(text, flush=True)


def wait(polling: Polling, what: str, look: Callable[[], tuple[str, bool]]) -> None:
    """Call `look`, which returns a state and whether to stop, every `poll_s` seconds until it says so.

    A changed state is printed, and any after a minute. Kaggle may refuse to answer now and then: only the third
    failure in a row is raised. Raises DeliveryError when `timeout_s` is over.
    """
    start = printed = time.monotonic()
    shown, failures = "", 0
    while True:
        try:
            (state, stop), failures = look(), 0
        except client.ClientError as error:
            state, stop, failures = "no answer", False, failures + 1
            if failures == FAILURES:
                raise error
        now = time.monotonic()
        if state != shown or now - printed >= SHOWN_EVERY_S:
            say(f"  {what}: {state} ({now - start:.0f} s)")
            shown, printed = state, now
        if stop:
            return
        if now - start + polling.poll_s > polling.timeout_s:
            advice = "Run publish again to wait longer, with a larger --timeout-s if need be."
            raise DeliveryError(f"{what} is still {state!r} after {polling.timeout_s:.0f} s. {advice}")
        time.sleep(polling.poll_s)


def wait_for_run(polling: Polling, what: str, ask: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Wait until a kernel's run is over; return its status and failure message. ask: for both."""
    answer = ("", "")

    def look() -> tuple[str, bool]:
        nonlocal answer
        answer = ask()
        return answer[0], answer[0] in ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")

    wait(polling, what, look)
    return answer
