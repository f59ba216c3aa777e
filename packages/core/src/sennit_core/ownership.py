"""Refuse to run from a folder that two distributions share.

Sennit's import names are short, and some of those names are used by unrelated distributions on
PyPI. When both are installed into one environment, their files are mixed in one folder and the
result is undefined, so the package raises at import and the message explains how to separate them.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

__all__ = ["check_distribution"]

_TOP_FOLDER = re.compile(rb"^([^/,\n]+)/", re.MULTILINE)


def check_distribution(package_file: str, distribution: str) -> None:
    """Raise ImportError when another distribution owns files in this package's folder.

    Costs one folder listing in an editable checkout, where no distribution is installed next to the
    package; in an installed environment each RECORD is read once.

    Args:
        package_file: the package's `__file__`.
        distribution: the distribution that should own it, such as `sennit-lake`.
    """
    folder = os.path.dirname(os.path.abspath(package_file))  # noqa: PTH100, PTH120 - no pathlib yet
    site, package = os.path.split(folder)
    own = _normal(distribution)
    owners = (name for name, folders in _installed(site) if package.encode() in folders)
    others = [name for name in owners if _normal(name) != own]
    if others:
        other = others[0]
        raise ImportError(
            f"the folder {folder} belongs to {distribution}, but the distribution {other!r} has "
            f"files in it too, so neither works reliably. Separate them with:\n"
            f"    python -m pip uninstall {other} {distribution}\n"
            f"    python -m pip install ./{_folder_of(own)}    (in a checkout of Sennit)",
            name=package,
            path=package_file,
        )


def _folder_of(distribution: str) -> str:
    short = distribution.removeprefix("sennit-")
    return "apps/gateway" if short == "sennit" else f"packages/{short}"


@lru_cache(maxsize=8)
def _installed(site: str) -> tuple[tuple[str, frozenset[bytes]], ...]:
    """Return each distribution installed into `site` and the folders it has files in."""
    found = []
    try:
        entries = sorted(entry.name for entry in os.scandir(site))
    except OSError:  # inside a zip file: nothing else can write there
        return ()
    for entry in entries:
        if not entry.endswith(".dist-info"):
            continue
        try:
            with open(os.path.join(site, entry, "RECORD"), "rb") as file:  # noqa: PTH118, PTH123
                folders = frozenset(_TOP_FOLDER.findall(file.read()))
            found.append((entry.removesuffix(".dist-info").rpartition("-")[0], folders))
        except OSError:  # system packages come without a RECORD
            continue
    return tuple(found)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
