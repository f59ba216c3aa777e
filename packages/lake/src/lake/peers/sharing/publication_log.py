"""One log of publications: consecutive entries, and what they say of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lake.peers.transport.signed import Statement
from sennit_core.errors import BadInput
from sennit_core.units import KIB, MIB

__all__ = [
    "EVERYONE",
    "LOG_BYTES_MAX",
    "LogKey",
    "StoredLog",
    "bytes_of",
    "parts_of",
    "with_change",
]

EVERYONE = "*"
LOG_BYTES_MAX = 32 * MIB
"""Of a log that another node writes: all that it shares, and what has changed since its checkpoint."""
_PART_BYTES_MAX = 32 * KIB


@dataclass(frozen=True, slots=True, order=True)
class LogKey:
    """One log.

    Args:
        publisher: The node that writes it.
        audience: The node that it is for, or `EVERYONE`.
    """

    publisher: str
    audience: str = EVERYONE

    @property
    def text(self) -> str:
        """Its form in messages."""
        return f"{self.publisher}/{self.audience}"

    @classmethod
    def parse(cls, text: str) -> LogKey:
        """Read the form of `text`."""
        publisher, _, audience = text.partition("/")
        return cls(publisher, audience)


@dataclass(slots=True, eq=False)
class StoredLog:
    """A log as a node has it: consecutive entries, the first of which may be a checkpoint."""

    entries: list[Statement] = field(default_factory=list)
    # What the entries say of each dataset that is not withdrawn.
    items: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    forked: bool = False
    # Items of the parts of a checkpoint whose last part is missing.
    parts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    # About how many bytes the entries have.
    size: int = 0
    # The number of entries of the newest checkpoint, which count towards no new one.
    checkpoint_parts: int = 0
    # The greatest number that this node's own log has at another node, if it is not one of these.
    lost_number: int = 0

    @property
    def number(self) -> int:
        """The number of the newest entry; 0 if there is none."""
        return int(self.entries[-1].body["number"]) if self.entries else 0

    @property
    def digest(self) -> str:
        """The digest of the newest entry."""
        return self.entries[-1].digest if self.entries else ""

    @property
    def first(self) -> int:
        """The number of the oldest entry that is kept."""
        return int(self.entries[0].body["number"]) if self.entries else 1

    def after(self, number: int) -> list[Statement]:
        """Return the entries after a number, or from the checkpoint on that replaces them."""
        return self.entries[max(number + 1 - self.first, 0) :]

    def at(self, number: int) -> Statement | None:
        """Return the entry of a number, if it is kept."""
        place = number - self.first
        return self.entries[place] if 0 <= place < len(self.entries) else None

    def add(self, body: Mapping[str, Any], entry: Statement) -> None:
        """Add an entry that was checked to be the next one, or the first part of a checkpoint.

        Raises:
            BadInput: Its content is none of an entry; the log is as before.
        """
        items = body.get("items")
        if isinstance(items, Mapping):
            self._add_part(body, items)
        else:
            dataset, item = str(body["dataset"]), _item(body.get("item"))
            self.items = with_change(self.items, dataset, item)
        self.entries.append(entry)
        self.size += bytes_of(entry)

    def _add_part(self, body: Mapping[str, Any], items: Mapping[str, Any]) -> None:
        """Add a part of a checkpoint."""
        part, parts = body.get("part"), body.get("parts")
        if not isinstance(part, int) or not isinstance(parts, int) or not 0 <= part < parts:
            raise BadInput("a publication", reason="it is a part of no checkpoint")
        found = {str(dataset): _item(item) for dataset, item in items.items()}
        if part == 0:
            # It replaces all entries before it, whichever of them this node has.
            self.entries.clear()
            self.parts.clear()
            self.size = 0
            self.forked = False
        self.parts.update({dataset: item for dataset, item in found.items() if item is not None})
        if part == parts - 1:
            # What a checkpoint leaves out is withdrawn.
            self.items, self.parts = self.parts, {}
            self.checkpoint_parts = parts


def with_change(
    items: Mapping[str, Mapping[str, Any]], dataset: str, item: Mapping[str, Any] | None
) -> dict[str, Mapping[str, Any]]:
    """Return what is published after a change of one dataset."""
    rest = {each: known for each, known in items.items() if each != dataset}
    return rest if item is None else {**rest, dataset: item}


def parts_of(
    items: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Mapping[str, Any]]]:
    """Divide what is published over the parts of a checkpoint, of which there is at least one."""
    parts: list[dict[str, Mapping[str, Any]]] = [{}]
    size = 0
    for dataset, item in items.items():
        size += len(repr(item)) + len(dataset)
        if parts[-1] and size > _PART_BYTES_MAX:
            parts.append({})
            size = 0
        parts[-1][dataset] = item
    return parts


def _item(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise BadInput("a publication", reason="it describes no dataset")
    return value


def bytes_of(entry: Statement) -> int:
    """Return about how many bytes an entry has, with its signature."""
    return len(repr(entry.body)) + 512
