import pytest
from scenes import noise, run_python, write_competition

from surface_kernel.__main__ import main


def test_a_report_without_a_device_is_one_line(submit, tmp_path):
    (tmp_path / "other.json").write_text('{"how": {}}')
    done = submit(
        write_competition(tmp_path / "competition", {"3": noise((2, 3, 4))}), "--device", tmp_path / "other.json"
    )
    assert done.code == 1
    assert "other.json: expected a run_report.json that names a device, got" in done.lines[-1]


def test_an_unforeseen_error_has_another_exit_code_than_failure(tmp_path):
    code = """
import runpy, sys
import surface_kernel.runs.mounts
surface_kernel.runs.mounts.read_bundle = lambda folder: {}["unforeseen"]
sys.argv = ["surface_kernel", "--bundle", "b", "--competition", "c", "--out", "o"]
runpy.run_module("surface_kernel.__main__", run_name="__main__")
"""
    done = run_python("import warnings; warnings.simplefilter('ignore')" + code)
    assert done.returncode == 70
    assert "KeyError: 'unforeseen'" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"]])
def test_help_names_every_option(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--device" in text
    assert "--out" in text


@pytest.mark.parametrize("words", [[], ["predict"], ["--out", "o"], ["predict", "--save", "nothing"]])
def test_wrong_usage_has_exit_code_2(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: surface_kernel" in capsys.readouterr().err


def test_an_interruption_has_its_exit_code(kernel, monkeypatch):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("surface_kernel.runs.competition.submit", interrupt)
    done = kernel("--bundle", "b", "--competition", "c", "--out", "o")
    assert (done.code, done.lines) == (130, ["interrupted"])
