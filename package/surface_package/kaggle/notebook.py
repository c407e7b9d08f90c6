"""submit.py as a notebook, for those who would rather push one: the same text, in one cell."""

import json
from pathlib import Path

from surface_kernel import disk


def write(script: Path, path: Path) -> Path:
    """Write a script as a notebook of one cell (nbformat 4.5), complete or not at all; the same text, the same bytes.

    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    cell: dict[str, object] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "submit",
        "metadata": {},
        "outputs": [],
        "source": script.read_text(encoding="utf-8").splitlines(keepends=True),
    }
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [cell],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    disk.put(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
    return path
