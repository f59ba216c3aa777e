"""PEP 517 backend: hatchling, plus `pip install ./packages/<name>` that finds its siblings.

Sennit's packages require each other by ordinary version ranges, and none of them need be in a
package index for a checkout to be usable. While pip resolves a path inside the tree, the metadata
answered here names each sibling by its folder; the wheel that is built afterwards keeps the
ordinary range, so nothing that leaves the tree carries a `file:` address. PEP 517 asks that both
agree; pip compares name and version only, and `integration/test_install.py` holds it to that.

An unpacked sdist has no siblings beside it and falls through to hatchling. Editable installs are
left alone: pip refuses one distribution asked for both as editable and as a path.

Each package carries the same copy of this file, because `backend-path` may not leave the package.
"""

from __future__ import annotations

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

_SIBLINGS = ("core", "strand", "emsqrt", "elkyn", "lake", "elytra")


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Write the wheel's metadata, siblings named by folder where the tree has them."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(scratch) / build_wheel(scratch, config_settings)
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if ".dist-info/" in name]
            archive.extractall(metadata_directory, members)
    dist_info = members[0].split("/", 1)[0]
    metadata = Path(metadata_directory) / dist_info / "METADATA"
    lines = metadata.read_text(encoding="utf-8").split("\n")
    metadata.write_text("\n".join(map(_with_sibling_path, lines)), encoding="utf-8")
    return dist_info


def _with_sibling_path(line: str) -> str:
    """Turn `Requires-Dist: sennit-core<0.2,>=0.1; marker` into a reference to its folder."""
    prefix = "Requires-Dist: sennit-"
    if not line.startswith(prefix) or not _packages_folder():
        return line
    requirement, _, marker = line.removeprefix("Requires-Dist: ").partition(";")
    name = requirement.removeprefix("sennit-")
    name = name[: next((i for i, c in enumerate(name) if not c.isalnum()), len(name))]
    if name not in _SIBLINGS:
        return line
    folder = (_packages_folder() or Path()) / name
    extras = requirement[requirement.find("[") : requirement.find("]") + 1]
    suffix = f" ;{marker}" if marker else ""
    return f"Requires-Dist: sennit-{name}{extras} @ {folder.as_uri()}{suffix}"


def _packages_folder() -> Path | None:
    """The tree's `packages` folder, or None outside a checkout (pip builds with cwd = package)."""
    here = Path.cwd().resolve()
    for root in here.parents[:2]:
        if (root / "packages" / "core" / "pyproject.toml").is_file():
            return root / "packages"
    return None
