"""Install instructions for the optional dependencies of a package."""

from __future__ import annotations

import re

__all__ = ["install_hint"]


def install_hint(distribution: str, *names: str) -> str:
    """Return the pip command that installs libraries in the versions `distribution` works with.

    Sennit's packages are installed from a checkout, so `pip install 'sennit-elkyn[server]'` finds
    nothing; the libraries themselves are in every package index.

    Args:
        distribution: the package whose extras name the libraries, such as `sennit-elkyn`.
        names: the libraries.
    """
    versions = _requirements(distribution)
    return " ".join(["pip install", *(f"'{versions.get(_normal(name), name)}'" for name in names)])


def _requirements(distribution: str) -> dict[str, str]:
    """Return a distribution's requirements by name, extras included, without markers."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:  # run from sources: the names alone are still right
        return {}
    texts = [line.partition(";")[0].strip() for line in lines]
    return {_normal(re.split(r"[\[<>=!~ ]", text, maxsplit=1)[0]): text for text in texts}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
