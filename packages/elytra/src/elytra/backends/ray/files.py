"""The inputs of a task, as they are described to its worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elytra.backends import NodeFiles
from lake.distributed.fragment_cluster import ClusterInput
from lake.objects.verification import ShardFile

__all__ = ["InputFile", "input_files", "with_sizes"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input of a task.

    Args:
        name: As the task's plan names it.
        path: The file on the node's machine.
        size: Its bytes; None if the node could not read it.
        shard: The shard that it is, in the form of `ShardFile.to_json`; None for other inputs.
    """

    name: str
    path: str
    size: int | None
    shard: tuple[Any, ...] | None

    @classmethod
    def of(cls, found: ClusterInput) -> InputFile:
        """Return the input of a query's fragment, whose size is not known yet."""
        return cls(found.name, found.path, None, _json_of(found.shard))

    def to_json(self) -> list[Any]:
        """Return the input for a worker."""
        return [self.name, self.path, self.size, self.shard]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> InputFile:
        """Read the form of `to_json`."""
        name, path, size, shard = data
        return cls(name, path, size, None if shard is None else tuple(shard))

    def shard_at(self, path: str) -> ShardFile | None:
        """Return the shard, read from another path; None if it is no shard."""
        if self.shard is None:
            return None
        dataset, index, _, always = self.shard
        return ShardFile(dataset, index, path, always)


def input_files(files: NodeFiles) -> list[InputFile]:
    """Return a task's inputs, whose sizes are not known yet."""
    shards: Mapping[str, ShardFile] = {shard.path: shard for shard in files.shards}
    return [
        InputFile(name, path, None, _json_of(shards.get(path)))
        for name, path in files.paths.items()
    ]


def with_sizes(inputs: Sequence[InputFile]) -> list[InputFile]:
    """Return the inputs with the sizes of their files; called on the node's machine."""
    return [InputFile(each.name, each.path, _size(each.path), each.shard) for each in inputs]


def _json_of(shard: ShardFile | None) -> tuple[Any, ...] | None:
    return None if shard is None else tuple(shard.to_json())


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None  # the worker's read of it has the error that the user needs
