"""The `config:` block of a document: settings of the engine that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emsqrt.documents.tree import Node
from sennit_core.errors import UsageError
from sennit_core.units import parse_bytes

ALIASES = {
    "mem_cap": "mem_cap_bytes",
    "threads": "max_parallel_tasks",
    "block_size": "block_size_hint",
}
_BYTES = ("mem_cap_bytes", "block_size_hint", "spill_quota_bytes")
_COUNTS = ("max_parallel_tasks", "max_spill_concurrency", "seed", "spill_retry_max_ms")
_TEXTS = ("spill_dir", "spill_uri", "spill_aws_region", "spill_codec")
_FLAGS = ("spill_to_memory",)
SETTINGS = (*ALIASES, *_BYTES, *_COUNTS, *_TEXTS, *_FLAGS)


def read_config(node: Node | None) -> dict[str, Any]:
    """Return the settings by their full names; sizes in bytes.

    Raises:
        BadDocument: an unknown setting, or an invalid value.
    """
    if node is None:
        return {}
    found: dict[str, Any] = {}
    for key, each in node.only(SETTINGS, "config").items():
        name = ALIASES.get(key, key)
        if name in found:
            each.fail(f"{key!r} is set twice: it is another name for {name!r}")
        found[name] = _reader(name)(each)
    return found


def _reader(name: str) -> Callable[[Node], Any]:
    if name in _BYTES:
        return _bytes
    if name in _FLAGS:
        return Node.flag
    return Node.count if name in _COUNTS else Node.text


def _bytes(node: Node) -> int | str:
    if node.value == "auto":
        return "auto"
    try:
        return parse_bytes(node.text())
    except UsageError as error:
        node.fail(str(error), error.hint)
