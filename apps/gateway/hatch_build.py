"""Put the exported playground into the wheel when the checkout has built it.

Nothing is built here: that needs Node and its package registry, which `pip install` must not. An
export that is older than its sources is left out, because it may not fit the API of this node.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCES = (
    "app", "components", "lib", "workers", "next.config.ts", "package.json",
    "../../packages/elkyn/js/src", "../../packages/elytra/js/src",
)  # fmt: skip


class PlaygroundBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds `apps/playground/out` to a wheel as `sennit/_playground`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include the site, unless this is an editable install, which serves it from its place."""
        if version == "editable" or Path(self.root, "src/sennit/_playground").is_dir():
            return
        app = Path(self.root).parent / "playground"
        if is_current(app):
            build_data["force_include"][str(app / "out")] = "sennit/_playground"


def is_current(app: Path) -> bool:
    """Whether the playground in `app` was exported after its sources were last changed."""
    index = app / "out" / "index.html"
    if not index.is_file():
        return False
    built = index.stat().st_mtime
    return all(path.stat().st_mtime <= built for path in _files(app))


def _files(app: Path) -> Iterator[Path]:
    for name in _SOURCES:
        root = app / name
        if root.is_dir():
            yield from root.rglob("*")
        elif root.is_file():
            yield root
