"""The manifest of a run: its plan, its output, and memory as planned and as measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sennit_core._codec import Record


@dataclass(frozen=True, slots=True)
class SinkInfo(Record):
    """One output.

    Args:
        target: the file's path, or the stream's format.
        format: "parquet", "csv", "arrow" or "json".
        rows: rows written.
        bytes: bytes written.
    """

    target: str
    format: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class InputInfo(Record):
    """One input file, in its state when the run began.

    Args:
        path: as the plan names it.
        bytes: its stored length.
        modified_ms: when it was last changed, Unix milliseconds; 0 where the store does not say.
        fingerprint: hex XXH3 of its length and of samples of its content, or a store's ETag.
    """

    path: str
    bytes: int
    modified_ms: int = 0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class BlockInfo(Record):
    """What one operator did, next to what was planned for it.

    Args:
        node: its id in the physical plan (`emsqrt.plan.walk` of the optimised plan).
        operator: such as "sort".
        rows_in: rows received from all inputs.
        rows_out: rows produced.
        bytes_in: received as packed rows or text.
        seconds: from its first input row to its last output row.
        granted_bytes: memory it was granted.
        peak_bytes: most of it in use at once.
        runs: R, sorted runs or partial tables written.
        fan_in: K, the most runs in one merge.
        passes: P, the most often any row was read back.
        block_bytes: b.
        partitions: F of a join.
        spilled_bytes: written, before compression.
        planned: the schedule's values of the same figures.
    """

    node: int
    operator: str
    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    seconds: float = 0.0
    granted_bytes: int = 0
    peak_bytes: int = 0
    runs: int = 0
    fan_in: int = 0
    passes: int = 0
    block_bytes: int = 0
    partitions: int = 1
    spilled_bytes: int = 0
    planned: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest(Record):
    """The record of one run; only times and measured peak depend on more than plan and data.

    Args:
        plan_hash: SHA-256 of the plan's canonical JSON, as it was submitted.
        rows_in: rows read.
        bytes_in: bytes of the files read.
        rows_out: rows written.
        bytes_out: bytes written.
        sinks: the outputs.
        cap_bytes: the cap that was in force.
        budget_bytes: what was left of it for buffers.
        reserved_bytes: the most that operators, reader and sink reserved at once.
        peak_bytes: the most that the kernel charged the process (RssAnon + RssShmem).
        started_at: Unix seconds.
        finished_at: Unix seconds.
        started_ms: the same in whole milliseconds.
        finished_ms: the same in whole milliseconds.
        reserved_by_tag: the most that each of operators, reader and sink reserved.
        inputs: the files read, so that a replay can detect changes.
        blocks: what each operator did.
        te: the schedule's figures: W, C_min, frontier, expected spill, and each operator's R, K, P,
            b, F.
        tier: "text" or "arrow".
        seed: for sampling.
        spilled_bytes: bytes written to spill, compressed.
        plan: the plan's JSON, as it was submitted; a replay needs nothing else.
        folder: the folder that its relative paths refer to.
        held_by: "process" when the cap bounded the whole process, "arena" when it bounded only
            reservations, in the caller's own process.
    """

    plan_hash: str
    rows_in: int
    bytes_in: int
    rows_out: int
    bytes_out: int
    sinks: tuple[SinkInfo, ...]
    cap_bytes: int
    budget_bytes: int
    reserved_bytes: int
    peak_bytes: int
    started_at: float
    finished_at: float
    started_ms: int = 0
    finished_ms: int = 0
    reserved_by_tag: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[InputInfo, ...] = ()
    blocks: tuple[BlockInfo, ...] = ()
    te: Mapping[str, Any] = field(default_factory=dict)
    tier: str = ""
    seed: int = 0
    spilled_bytes: int = 0
    plan: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    held_by: str = "process"

    def __post_init__(self) -> None:
        for name, seconds in (("started_ms", self.started_at), ("finished_ms", self.finished_at)):
            if not getattr(self, name):
                object.__setattr__(self, name, round(seconds * 1000))

    @property
    def seconds(self) -> float:
        """Duration of the run."""
        return self.finished_at - self.started_at
