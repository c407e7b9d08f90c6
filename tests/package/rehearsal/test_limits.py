"""Times worked out by hand; the hidden test is 120 × 320³ voxels."""

import pytest

from surface_package.rehearsal import limits

WHOLE = 120 * 320**3
HOURS = 3600.0


@pytest.mark.parametrize(
    ("wall_s", "voxels", "seconds", "workers", "scaled_s"),
    [
        (30 + 100, WHOLE // 120, [100.0], 1, 30 + 12_000),  # one volume of 320³: start-up once, the rest 120 times
        (30 + 100, WHOLE // 60, [40.0, 60.0], 1, 30 + 6_000),
        (30 + 60, WHOLE // 60, [60.0, 60.0], 2, 30 + 3_600),  # side by side
        (30 + 60, WHOLE // 120, [60.0], 2, 30 + 3_600),  # the second device had nothing to do, and will
        (130, WHOLE // 120, [], 1, 130 * 120),  # nothing reported: all may be work
        (130, WHOLE // 120, [0.0], 1, 130 * 120),
        (100, WHOLE // 120, [150.0], 1, 150 * 120),  # more work than wall time: no start-up is left, none is negative
        (30 + 100, WHOLE, [100.0], 1, 130),
    ],
)
def test_work_grows_with_voxels_and_start_up_does_not(
    wall_s: float, voxels: int, seconds: list[float], workers: int, scaled_s: float
) -> None:
    scaled = limits.scaled_s(wall_s=wall_s, voxels=voxels, seconds=seconds, workers=workers)
    assert scaled == pytest.approx(scaled_s)


def test_more_memory_than_kaggle_has_is_a_finding() -> None:
    assert limits.memory_findings(29_000_000_000) == []
    (finding,) = limits.memory_findings(29_100_000_000)
    assert finding.startswith("memory: expected at most 29 GB in all processes, as on Kaggle, got 29.1 GB")


def test_too_slow_is_a_finding_on_a_gpu_alone() -> None:
    assert limits.budget_s() == 8.5 * HOURS
    line, findings = limits.judge_time(9 * HOURS, "cpu")
    assert line.startswith(
        "120 volumes of 320³ would take 9.00 h at this run's speed, of 8.5 h, on cpu: no CUDA device"
    )
    assert findings == []
    line, findings = limits.judge_time(9 * HOURS, "cuda")
    assert line.endswith("9.00 h at this run's speed, of 8.5 h, on cuda")
    (finding,) = findings
    assert finding.startswith(
        "time: expected at most 8.5 h, got: 120 volumes of 320³ would take 9.00 h at this run's speed on cuda; take"
    )
    assert limits.judge_time(8 * HOURS, "cuda:1")[1] == []


def test_a_run_on_a_cpu_or_a_named_gpu_had_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [limits.workers(device) for device in ("cpu", "unknown", "cuda:1", "cuda")] == [1, 1, 1, 2]
