"""A submission through the real client: spent once, told, and waited for until its score is there."""

from dataclasses import replace

import pytest
from package.deliveries import DATASET, OWNER

from surface_package.kaggle import board
from surface_package.kaggle.client import ClientError
from surface_package.kaggle.delivery import Delivery, DeliveryError, message
from surface_package.kaggle.publish_record import PublishRecord
from surface_package.kaggle.upload import SentDataset

SUBMIT = "CreateCodeSubmission"
ANOTHER = {"ref": 1, "description": "another", "status": "COMPLETE", "publicScore": "0.5"}


@pytest.fixture
def record(delivery: Delivery) -> PublishRecord:
    """As a publish leaves it once the output of kernel version 3 was checked."""
    sent = SentDataset(dataset=DATASET, digest="2" * 64, version_before=0, version=1)
    pushed = PublishRecord(manifest_sha256=delivery.digest(), sent=sent).pushed("0" * 64, 3)
    return replace(pushed, output_sha256="1" * 64).write(delivery)


def test_submitted_once_and_told_until_the_score_is_there(delivery, target, record, kaggle, capsys) -> None:
    kaggle.board.append(dict(ANOTHER))
    kaggle.results.extend([dict(ANOTHER), {"status": "PENDING"}, {"status": "COMPLETE"}])
    scored = board.submit(delivery, target, record)
    assert kaggle.bodies(SUBMIT) == [
        {
            "competitionName": "vesuvius-challenge-surface-detection",
            "fileName": "submission.zip",
            "kernelOwner": OWNER,
            "kernelSlug": "vesuvius-surface-kernel",
            "kernelVersion": 3,
            "submissionDescription": f"{OWNER}/vesuvius-surface-kernel version 3 {message(delivery)}",
        }
    ]
    assert [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "submissions: 5 left today, 1 made today, 1 in all",
        "submission: version 3 was submitted to vesuvius-challenge-surface-detection",
        "  score: PENDING",
        "  score: COMPLETE, no score yet",
        "  score: COMPLETE",
        "score of version 3: public 0.561, private 0.553",
    ]
    assert PublishRecord.read(delivery, target) == scored
    assert scored == replace(record, submitted=True, public_score="0.561", private_score="0.553")

    kaggle.requests.clear()
    assert board.submit(delivery, target, replace(scored, private_score="")) == replace(scored, private_score="")
    assert kaggle.requests == []
    assert capsys.readouterr().out == "score of version 3: public 0.561\n"
    assert scored.pushed("2" * 64, 4).submitted is False


def test_none_left(delivery, target, record, kaggle) -> None:
    kaggle.allowed = 0
    kaggle.board.append(dict(ANOTHER))
    with pytest.raises(DeliveryError, match=r"no submission is left today. Run publish --submit again after midnight"):
        board.submit(delivery, target, record)
    kaggle.fail("GetSubmissionLimits", 200, numTotal=9, limitedByTotal=True)
    with pytest.raises(DeliveryError, match="no submission is left, today or later"):
        board.submit(delivery, target, record)
    assert SUBMIT not in kaggle.calls()
    assert PublishRecord.read(delivery, target) == record


def test_a_refused_submission_is_told_and_the_next_run_submits(delivery, target, record, kaggle) -> None:
    # Before the rules are accepted Kaggle counts 0 of everything, which is no reason to keep quiet about the rules.
    kaggle.allowed = 0
    kaggle.fail(SUBMIT, 403, code=403, message="You must accept this competition's rules before you can submit.")
    with pytest.raises(ClientError, match=r"did not take the submission(.|\n)*Accept the competition's rules on its"):
        board.submit(delivery, target, record)

    kaggle.allowed = 5
    kaggle.fail(SUBMIT, 200, message="Submission not allowed: the notebook left no submission.zip", ref=0)
    with pytest.raises(ClientError, match=r"exit code 0(.|\n)*not allowed(.|\n)*then run publish again"):
        board.submit(delivery, target, record)
    assert PublishRecord.read(delivery, target) == record

    assert board.submit(delivery, target, record).public_score == "0.561"
    assert len(kaggle.board) == 1


def test_a_submission_whose_answer_was_lost_is_not_spent_twice(delivery, target, record, kaggle, capsys) -> None:
    take = kaggle.do_CreateCodeSubmission

    def take_and_fail(body: dict) -> tuple[int, dict]:
        take(body)
        return 504, {"code": 504, "message": "gateway timeout"}

    kaggle.do_CreateCodeSubmission = take_and_fail
    kaggle.results.extend([{"status": "PENDING"}] * 2)
    with pytest.raises(DeliveryError, match=r"score is still 'PENDING' after 60 s. Run publish again"):
        board.submit(replace(delivery, poll_s=61), target, record)
    assert "submission: version 3 was submitted to" in capsys.readouterr().out
    kept = PublishRecord.read(delivery, target)
    assert kept.submitted
    for known in (kept, record):
        assert board.submit(delivery, target, known).public_score == "0.561"
        assert "submission: version 3 was submitted already\n" in capsys.readouterr().out
    assert kaggle.calls().count(SUBMIT) == 1


def test_a_recorded_submission_that_the_board_does_not_show_is_not_spent_twice(
    delivery, target, record, kaggle
) -> None:
    sent = replace(record, submitted=True).write(delivery)
    with pytest.raises(DeliveryError, match="score is still 'not on the board yet' after 60 s"):
        board.submit(replace(delivery, poll_s=61), target, sent)
    assert kaggle.calls() == ["ListSubmissions"]
    assert PublishRecord.read(delivery, target) == sent


def test_a_scored_run_that_failed_is_told_and_the_next_run_pushes_anew(delivery, target, record, kaggle) -> None:
    words = board.words(delivery, target, 3)
    kaggle.board.append({"ref": 1, "description": words})
    kaggle.results.extend([{"status": "ERROR"}] * 2)
    told = r"the scored run of tester/vesuvius-surface-kernel version 3 failed(.|\n)*pushes a new version and spends"
    with pytest.raises(DeliveryError, match=told):
        board.submit(delivery, target, record)
    assert PublishRecord.read(delivery, target).kernel_version is None
    assert SUBMIT not in kaggle.calls()


def test_another_version_on_the_board_is_not_this_one(delivery, target, kaggle) -> None:
    for version in (2, 31, 13):
        kaggle.board.append({"ref": version, "description": board.words(delivery, target, version)})
    assert board.find(delivery, target, 3) is None
    entry = board.find(delivery, target, 2)
    assert entry is not None
    assert entry.status == "COMPLETE"
