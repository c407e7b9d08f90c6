"""A kernel version on the competition's board: the submissions left today, the submission, its score."""

from dataclasses import replace

from surface_package.kaggle import client
from surface_package.kaggle.client import Submission
from surface_package.kaggle.delivery import Delivery, DeliveryError, message
from surface_package.kaggle.record import Record
from surface_package.kaggle.waiting import say, wait
from surface_package.target import Target


def words(delivery: Delivery, target: Target, version: int | str) -> str:
    """What a submission is called. The board tells no kernel version: by these words it is found again."""
    return f"{target.kernel} version {version} {message(delivery)}"


def submit(delivery: Delivery, target: Target, record: Record) -> Record:
    """See that the record's kernel version is submitted, once, and show its score.

    The board is asked before a submission is spent: the answer to an earlier one may have been lost.
    """
    version = record.kernel_version or 0
    if not record.public_score:
        if record.submitted or find(delivery, target, version):
            say(f"submission: version {version} was submitted already")
        else:
            spend(delivery, target, version)
        record = wait_for_score(delivery, target, replace(record, submitted=True).write(delivery))
    private = f", private {record.private_score}" if record.private_score else ""
    say(f"score of version {version}: public {record.public_score}{private}")
    return record


def find(delivery: Delivery, target: Target, version: int) -> Submission | None:
    """The submission of that kernel version, None where the board holds none."""
    wanted = words(delivery, target, version)
    listed = client.submissions(client.ask(target.list_submissions(), delivery.timeout_s))
    return next((submission for submission in listed if wanted in submission.description), None)


def spend(delivery: Delivery, target: Target, version: int) -> None:
    """Show what is left today and submit; the board decides where the client does not tell of a success."""
    show_left(delivery, target)
    answer = client.ask(target.submit(version, words(delivery, target, version)), delivery.timeout_s)
    if not client.took_submission(answer) and not find(delivery, target, version):
        raise answer.error("Kaggle did not take the submission")
    say(f"submission: version {version} was submitted to {target.competition}")


def show_left(delivery: Delivery, target: Target) -> None:
    """Print how many submissions are left today; raises DeliveryError where none is.

    All counts are 0 too where Kaggle knows no team of the user's yet; then the submission itself tells.
    """
    limits = client.submission_limits(client.ask(target.ask_limits(), delivery.timeout_s))
    say(f"submissions: {limits.left} left today, {limits.today} made today, {limits.total} in all")
    if limits.left == 0 and limits.capped:
        raise DeliveryError("no submission is left, today or later: the competition's limit for all days is reached.")
    if limits.left == 0 and limits.total:
        raise DeliveryError("no submission is left today. Run publish --submit again after midnight UTC.")


def wait_for_score(delivery: Delivery, target: Target, record: Record) -> Record:
    """Wait until the scored run is over; raises DeliveryError, and forgets the push, where it failed."""
    version, found = record.kernel_version or 0, None

    def look() -> tuple[str, bool]:
        nonlocal found
        found = find(delivery, target, version)
        if found is None:
            return "not on the board yet", False
        if found.status == "COMPLETE" and not found.public_score:
            return "COMPLETE, no score yet", False
        return found.status, found.status in ("COMPLETE", "ERROR")

    wait(delivery, "score", look)
    if found is None or found.status == "ERROR":
        replace(record, kernel_version=None).write(delivery)
        raise DeliveryError(
            f"the scored run of {target.kernel} version {version} failed. Kaggle shows no log of it; a "
            f"word of why stands at https://www.kaggle.com/competitions/{target.competition}/submissions.\n"
            "  Running publish --submit again pushes a new version and spends another submission on it."
        )
    return replace(record, public_score=found.public_score, private_score=found.private_score).write(delivery)
