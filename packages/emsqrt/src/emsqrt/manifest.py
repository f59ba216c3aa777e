"""What a run did: its plan, its output, and memory as planned and as measured."""

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
class Manifest(Record):
    """The record of one run. All but the times and the measured peak depend on plan and data alone.

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
        reserved_by_tag: the most that each of them reserved.
        peak_bytes: the most that the kernel charged the process (RssAnon + RssShmem).
        started_at: Unix seconds.
        finished_at: Unix seconds.
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
    reserved_by_tag: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.finished_at - self.started_at
