"""PEP 517 backend of every package in a checkout: hatchling, and siblings that pip finds by folder.

Sennit's packages require each other by version ranges, and none of them is in a package index.
While pip resolves `pip install ./packages/<name>`, the metadata of
`prepare_metadata_for_build_wheel` refers to each sibling by its folder. The wheel that is built
afterwards keeps the ranges, so no distribution refers to a folder. PEP 517 asks that both have the
same metadata; pip compares name and version only, and `integration/test_install.py` checks that.

An editable install keeps hatchling's own metadata: pip refuses a distribution that is requested
both as editable and as a path.

`backend-path` may not leave a package, so each package has a short `_build_backend.py` that loads
this file, and hatchling alone where this file is missing: in an unpacked sdist.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.build import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_wheel",
]

_PACKAGES = Path(__file__).resolve().parents[1] / "packages"
_SIBLING = re.compile(r"Requires-Dist: (sennit-(\w+)(?:\[[^\]]*\])?)[^;]*(;.*)?")


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Write the wheel's metadata, with siblings by folder; return the name of its folder."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(scratch) / build_wheel(scratch, config_settings)
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if ".dist-info/" in name]
            archive.extractall(metadata_directory, members)
    dist_info = members[0].split("/", 1)[0]
    metadata = Path(metadata_directory) / dist_info / "METADATA"
    lines = metadata.read_text(encoding="utf-8").split("\n")
    metadata.write_text("\n".join(map(_with_sibling_folder, lines)), encoding="utf-8")
    return dist_info


def _with_sibling_folder(line: str) -> str:
    """Turn `Requires-Dist: sennit-core<0.2,>=0.1; marker` into a reference to its folder."""
    found = _SIBLING.fullmatch(line)
    if not found or not (_PACKAGES / found[2] / "pyproject.toml").is_file():
        return line
    marker = f" {found[3]}" if found[3] else ""
    return f"Requires-Dist: {found[1]} @ {(_PACKAGES / found[2]).as_uri()}{marker}"
