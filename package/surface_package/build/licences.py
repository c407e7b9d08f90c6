"""Under which licence each file of a bundle is passed on."""

import zipfile
from email.parser import BytesParser
from pathlib import Path

from surface_package.target import LICENCE

CODE = "MIT"  # the project's own
WEIGHTS = LICENCE  # trained on the competition's data
# Titles of licence texts and names in classifiers, by what SPDX calls them (https://spdx.org/licenses/).
_SPDX = {
    "MIT License": "MIT",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
}


def of_wheel(path: Path) -> str:
    """Return a wheel's licence, as an SPDX identifier where it is known; "unknown" where the wheel names none.

    Read in this order: METADATA's License-Expression, its License, its classifiers, and the licence files beside it.
    A full text is recognised by its first line.
    """
    with zipfile.ZipFile(path) as wheel:
        beside = [name for name in wheel.namelist() if name.split("/")[0].endswith(".dist-info")]
        metadata = BytesParser().parsebytes(
            b"".join(wheel.read(name) for name in beside if name.endswith("/METADATA")), headersonly=True
        )
        texts = [str(metadata.get(key, "")) for key in ("License-Expression", "License")]
        classifiers = map(str, metadata.get_all("Classifier", []))
        texts += [words.rpartition(" :: ")[2] for words in classifiers if words.startswith("License ::")]
        files = [name for name in beside if Path(name).name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))]
        texts += [wheel.read(name).decode(errors="replace") for name in sorted(files)]
    titles = [text.strip().partition("\n")[0].strip() for text in texts]
    title = next((title for title in titles if title not in ("", "UNKNOWN")), "unknown")
    return _SPDX.get(title, title)
