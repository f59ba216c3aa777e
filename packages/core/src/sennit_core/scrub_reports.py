"""Reports of a scrub, which the lake makes and clients receive."""

from __future__ import annotations

from dataclasses import dataclass

from sennit_core.records import Record

__all__ = ["Finding", "ScrubReport"]


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """One finding of damage.

    Args:
        dataset: Name of the affected dataset; empty for the catalog itself.
        dataset_id: The dataset's id.
        problem: What is damaged, what was expected, and what was found.
    """

    dataset: str
    dataset_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class ScrubReport(Record):
    """The progress of a scrub or, when `done`, its result.

    Args:
        datasets: Datasets examined.
        objects: Objects read: manifests, shards and kept sources.
        bytes_done: Bytes read.
        bytes_total: Bytes to read in total.
        findings: All damage found so far.
        done: Whether the scrub has ended.
        quarantined: Damaged objects that were moved aside, now or earlier, of all datasets.
    """

    datasets: int
    objects: int
    bytes_done: int
    bytes_total: int
    findings: tuple[Finding, ...]
    done: bool = False
    quarantined: int = 0
