"""The packages of the repository: `[tool.sennit]` in the root's pyproject.toml is the one list.

    python tools/workspace.py     # after a change of the list: update what other tools read

Set-up, sessions, locks, releases and tests import this module. mypy, import-linter and uv accept
only lists in pyproject.toml, so running this file writes theirs; `nox -s tidy` compares them.
Uses the standard library alone: `./platform` imports it before anything is installed.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Package:
    """One package: a folder of `packages/` or `apps/` that has a pyproject.toml.

    Args:
        name: its folder's name, which nox sessions and changelog fragments use.
        folder: relative to the root.
    """

    name: str
    folder: Path

    @cached_property
    def project(self) -> dict[str, Any]:
        """The package's pyproject.toml."""
        return tomllib.loads((ROOT / self.folder / "pyproject.toml").read_text(encoding="utf-8"))

    @property
    def distribution(self) -> str:
        """The name that pip knows."""
        return str(self.project["project"]["name"])

    @property
    def module(self) -> str:
        """The name that `import` knows: the only folder below `src`."""
        (package,) = (ROOT / self.folder / "src").glob("*/__init__.py")
        return package.parent.name

    @property
    def extras(self) -> tuple[str, ...]:
        """The names of its optional dependencies."""
        return tuple(self.project["project"].get("optional-dependencies", {}))

    @property
    def test_requirements(self) -> tuple[str, ...]:
        """What its tests need in addition: the dependency group `test`."""
        return tuple(self.project.get("dependency-groups", {}).get("test", ()))

    @property
    def native(self) -> Path | None:
        """The folder of its C sources relative to the root, or None."""
        targets = self.project["tool"]["hatch"]["build"]["targets"]
        sources = targets["wheel"].get("hooks", {}).get("custom", {}).get("sources")
        return self.folder / sources if sources else None


def layers() -> list[tuple[Package, ...]]:
    """Return the packages by layer, lowest first; packages of a layer do not import each other."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = tomllib.loads(text)["tool"]["sennit"]["packages"]
    return [tuple(map(_package, layer.split(" | "))) for layer in names]


def packages() -> list[Package]:
    """Return all packages, in an order in which each comes after those that it imports."""
    return [package for layer in layers() for package in layer]


def _package(name: str) -> Package:
    for parent in ("packages", "apps"):
        if (ROOT / parent / name / "pyproject.toml").is_file():
            return Package(name, Path(parent, name))
    raise SystemExit(f"pyproject.toml: [tool.sennit] names {name}, which has no folder")


def with_lists(text: str) -> str:
    """Return pyproject.toml's text with the lists of mypy, import-linter and uv up to date."""
    members = packages()
    sources = ":".join(f"{package.folder}/src" for package in members)
    modules = ", ".join(f'"{package.module}"' for package in members)
    levels = ", ".join(
        f'"{" | ".join(package.module for package in layer)}"' for layer in reversed(layers())
    )
    siblings = "".join(f"{package.distribution} = {{ workspace = true }}\n" for package in members)
    for pattern, value in (
        (rf'^(mypy_path = "[^"]*?){members[0].folder}/src[^"]*"$', rf'\g<1>{sources}"'),
        (r"^root_packages = \[.*\]$", f"root_packages = [{modules}]"),
        (r"^layers = \[.*\]$", f"layers = [{levels}]"),
        (r"^\[tool\.uv\.sources\]\n(?:.+\n)*", f"[tool.uv.sources]\n{siblings}"),
    ):
        text, found = re.subn(pattern, value, text, flags=re.MULTILINE)
        assert found == 1, pattern
    return text


if __name__ == "__main__":
    _file = ROOT / "pyproject.toml"
    _file.write_text(with_lists(_file.read_text(encoding="utf-8")), encoding="utf-8")
