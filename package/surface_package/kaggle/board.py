"""A kernel version on the competition's board: the submissions left today, the submission, its score."""

from dataclasses import replace

from surface_package.kaggle import answers, client
from surface_package.kaggle.answers import BoardEntry
from surface_package.kaggle.delivery import Delivery, DeliveryError, message
from surface_package.kaggle.publish_record import PublishRecord
from surface_package.kaggle.waiting import say, wait
from surface_package.target import Target


def words(delivery: Delivery, target: Target, version: int | str) -> str:
    """Return what a submission is called: the board shows no kernel version, so it is recognised by these words."""
    return f"{target.kernel} version {version} {message(delivery)}"


def submit(delivery: Delivery, target: Target, record: PublishRecord) -> PublishRecord:
    """Submit the record's kernel version, once, and show its score.

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


def find(delivery: Delivery, target: Target, version: int) -> BoardEntry | None:
    """Return the submission of that kernel version, None where the board holds none."""
    name = words(delivery, target, version)
    listed = answers.submissions(client.ask(target.list_submissions(), delivery.timeout_s))
    return next((entry for entry in listed if name in entry.description), None)


def spend(delivery: Delivery, target: Target, version: int) -> None:
    """Show what is left today and submit; the board decides where the client reports no success."""
    show_left(delivery, target)
    answer = client.ask(target.submit(version, words(delivery, target, version)), delivery.timeout_s)
    if not answers.took_submission(answer) and not find(delivery, target, version):
        raise answer.error("Kaggle did not take the submission")
    say(f"submission: version {version} was submitted to {target.competition}")


def show_left(delivery: Delivery, target: Target) -> None:
    """Print how many submissions are left today; raises DeliveryError where none is.

    All counts are 0 too where Kaggle knows no team of the user's yet; then the submission itself shows.
    """
    limits = answers.submission_limits(client.ask(target.ask_limits(), delivery.timeout_s))
    say(f"submissions: {limits.left} left today, {limits.today} made today, {limits.total} in all")
    if limits.left == 0 and limits.capped:
        raise DeliveryError("no submission is left, today or later: the competition's limit for all days is reached.")
    if limits.left == 0 and limits.total:
        raise DeliveryError("no submission is left today. Run publish --submit again after midnight UTC.")


def wait_for_score(delivery: Delivery, target: Target, record: PublishRecord) -> PublishRecord:
    """Wait until the scored run is over; raises DeliveryError, and forgets the push, where it failed."""
    version, entry = record.kernel_version or 0, None

    def look() -> tuple[str, bool]:
        nonlocal entry
        entry = find(delivery, target, version)
        if entry is None:
            return "not on the board yet", False
        if entry.status == "COMPLETE" and not entry.public_score:
            return "COMPLETE, no score yet", False
        return entry.status, entry.status in ("COMPLETE", "ERROR")

    wait(delivery, "score", look)
    if entry is None or entry.status == "ERROR":
        replace(record, kernel_version=None).write(delivery)
        raise DeliveryError(
            f"the scored run of {target.kernel} version {version} failed. Kaggle shows no log of it; a "
            f"word of why is at https://www.kaggle.com/competitions/{target.competition}/submissions.\n"
            "  Running publish --submit again pushes a new version and spends another submission on it."
        )
    return replace(record, public_score=entry.public_score, private_score=entry.private_score).write(delivery)
