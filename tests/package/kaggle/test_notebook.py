"""The notebook holds submit.py, all of it and nothing else."""

import json
from pathlib import Path

import nbformat  # comes with the kaggle client

from surface_package.build import manifest
from surface_package.kaggle import notebook


def test_the_one_cell_is_submit_py(tmp_path: Path) -> None:
    script = manifest.submit_script()
    path = notebook.write(script, tmp_path / "bundle.ipynb")
    content = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(content)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    (cell,) = content["cells"]
    source = "".join(cell["source"])
    assert source == script.read_text(encoding="utf-8")
    compile(source, "cell", "exec")
    first = path.read_bytes()
    assert notebook.write(script, path).read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle.ipynb"]


def test_any_text_survives(tmp_path: Path) -> None:
    text = "a = '\u2028 ß'\n\n\f\n# no newline at the end"
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    content = json.loads(notebook.write(tmp_path / "a.py", tmp_path / "a.ipynb").read_bytes())
    assert "".join(content["cells"][0]["source"]) == text
