"""How a wait is told, what it survives, and how it ends."""

import pytest

from surface_package.kaggle.client import Answer, ClientError
from surface_package.kaggle.delivery import Delivery, DeliveryError
from surface_package.kaggle.waiting import wait

FAILURE = Answer(("kernels", "status"), 1, "429").error("no answer")


def looks(*states: tuple[str, bool] | ClientError):
    """What to call for these states, one a call; a ClientError is raised."""
    left = iter(states)

    def look() -> tuple[str, bool]:
        state = next(left)
        if isinstance(state, ClientError):
            raise state
        return state

    return look


def test_each_new_state_is_told_once(delivery, capsys) -> None:
    wait(delivery, "kernel", looks(("QUEUED", False), ("RUNNING", False), ("RUNNING", False), ("COMPLETE", True)))
    told = [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["  kernel: QUEUED", "  kernel: RUNNING", "  kernel: COMPLETE"]


def test_the_third_failure_in_a_row_is_raised(delivery, capsys) -> None:
    wait(delivery, "kernel", looks(FAILURE, FAILURE, ("RUNNING", False), FAILURE, FAILURE, ("COMPLETE", True)))
    assert capsys.readouterr().out.count("kernel: no answer") == 2
    with pytest.raises(ClientError, match="no answer"):
        wait(delivery, "kernel", looks(("RUNNING", False), FAILURE, FAILURE, FAILURE))


def test_the_end_of_the_time_says_how_to_go_on(delivery) -> None:
    endless = Delivery(bundle=delivery.bundle, root=delivery.root, timeout_s=1, poll_s=2)
    with pytest.raises(DeliveryError, match=r"score is still 'PENDING' after 1 s. Run publish again to wait"):
        wait(endless, "score", looks(("PENDING", False)))
