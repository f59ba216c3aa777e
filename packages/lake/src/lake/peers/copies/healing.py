"""Repairs the copies of shared datasets now, instead of when the network would do it by itself.

The copies here are read and compared with their hashes, so that damaged ones are replaced, and all nodes
are asked to look at theirs (`lake.peers.copies.repairs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING

from lake.maintenance.scrub import ScrubReport
from lake.peers.members.health import Finding, SharedCopies, examine_copies
from sennit_core.errors import NotFound
from sennit_core.records import Record

if TYPE_CHECKING:
    from lake.peers.service import PeerService

__all__ = ["HealReport", "heal"]

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""After so long without any progress the rest counts as not repairable now."""
_HOPELESS_SECONDS = 12.0
"""After so long nothing is expected of what no node can provide: all answers have arrived, and nodes that
have just joined are settled (`MembershipOptions.settled_seconds`)."""


@dataclass(frozen=True, slots=True)
class HealReport(Record):
    """How far a repair is.

    Args:
        datasets: Datasets that are repaired.
        verified: Objects of them that this node has read.
        damaged: Damaged ones among these.
        objects: Their shards.
        under_replicated: Shards with too few copies.
        unavailable: Shards without any.
        missing: Copies that nodes are to hold and lack.
        problems: What cannot be repaired, with what to do; once `done`.
        waits_for: The names of nodes that do not answer: their copies are made elsewhere as soon as they
            count as dead.
        waits_seconds: In how many seconds the last of them does, unless it answers.
        done: Whether this is the last report.
    """

    datasets: int = 0
    verified: int = 0
    damaged: int = 0
    objects: int = 0
    under_replicated: int = 0
    unavailable: int = 0
    missing: int = 0
    problems: tuple[Finding, ...] = ()
    waits_for: tuple[str, ...] = ()
    waits_seconds: float = 0.0
    done: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every shard has its copies."""
        return not (self.under_replicated or self.unavailable or self.missing)


@dataclass(slots=True, eq=False)
class _Progress:
    """What was seen so far; `changed_at` is when something changed last."""

    changed_at: float
    seen: tuple[int, ...] = ()

    def note(self, seen: tuple[int, ...], now: float) -> None:
        if seen != self.seen:
            self.seen, self.changed_at = seen, now


@dataclass(slots=True, eq=False)
class _Verified:
    objects: int = 0
    damaged: int = 0
    # Of the datasets before the one that is being read.
    before: tuple[int, int] = field(default=(0, 0))

    def note(self, report: ScrubReport) -> None:
        self.objects = self.before[0] + report.objects
        self.damaged = self.before[1] + report.quarantined
        if report.done:
            self.before = (self.objects, self.damaged)


def heal(
    peers: PeerService,
    scrub: Callable[[str, Callable[[], bool]], Iterator[ScrubReport]],
    dataset: str | None,
    stop: Event,
) -> Iterator[HealReport]:
    """Repair a shared dataset, or all; yield reports until nothing more can be repaired.

    Args:
        peers: The node's part in the network.
        scrub: Verifies what this node has of a dataset; `Lake.scrub`.
        dataset: Id or name; None for all shared datasets.
        stop: Set to end it.

    Raises:
        NotFound: The dataset is not shared.
        Conflict: This node is in no network.
        Cancelled: It was stopped.
    """
    chosen = _chosen(peers.shared.copies(), dataset)
    verified = _Verified()
    for dataset_id in chosen:
        for scrubbed in scrub(dataset_id, stop.is_set):
            verified.note(scrubbed)
            yield HealReport(len(chosen), verified.objects, verified.damaged)
    asked_at = time.monotonic()
    peers.repairs.repair()
    progress = _Progress(asked_at)
    while not stop.is_set():
        now = time.monotonic()
        # Withdrawn ones are gone.
        copies = {d: c for d, c in peers.shared.copies().items() if d in chosen}
        report = _report(len(chosen), verified, copies)
        suspected = peers.repairs.suspected()
        chunks = peers.repairs.missing_chunks()
        progress.note(
            (report.under_replicated, report.unavailable, report.missing, chunks, len(suspected)),
            now,
        )
        is_hopeless = not any(_can_improve(each) for each in copies.values())
        waited = now - max(asked_at, progress.changed_at)
        if suspected and not report.is_whole:
            # Soon it is known whether their copies are lost.
            yield replace(
                report,
                waits_for=tuple(each.node for each in suspected),
                waits_seconds=max(each.seconds for each in suspected),
            )
        elif report.is_whole or waited > (_HOPELESS_SECONDS if is_hopeless else _PATIENCE_SECONDS):
            yield _last(report, list(copies.values()), peers)
            return
        else:
            yield report
        stop.wait(_POLL_SECONDS)
        peers.repairs.ask_for_copies()


def _chosen(copies: Mapping[str, SharedCopies], dataset: str | None) -> list[str]:
    if dataset is None:
        return list(copies)
    found = [d for d, each in copies.items() if dataset in (d, each.name)]
    if not found:
        raise NotFound(
            "shared dataset", dataset, suggestion=None,
            hint="`platform share NAME --with NODE` shares one",
        )  # fmt: skip
    return found


def _report(count: int, verified: _Verified, copies: Mapping[str, SharedCopies]) -> HealReport:
    states = [each.state for each in copies.values()]
    return HealReport(
        count, verified.objects, verified.damaged,
        objects=sum(state.objects for state in states),
        under_replicated=sum(state.under_replicated for state in states),
        unavailable=sum(state.unavailable for state in states),
        missing=sum(state.missing_here + sum(state.lacking.values()) for state in states),
    )  # fmt: skip


def _can_improve(copies: SharedCopies) -> bool:
    """Whether a copy can be made: a node is to hold a shard that another one has."""
    state = copies.state
    to_make = state.missing_here + sum(state.lacking.values())
    return to_make > 0 and state.unavailable < state.objects


def _last(report: HealReport, copies: Sequence[SharedCopies], peers: PeerService) -> HealReport:
    names = {node.member.id: node.member.name for node in peers.nodes()}
    found = examine_copies(copies, lambda node: names.get(node, node[:16]))
    problems = tuple(each for each in found if not each.ok)
    return HealReport(
        report.datasets, report.verified, report.damaged, report.objects,
        report.under_replicated, report.unavailable, report.missing, problems, done=True,
    )  # fmt: skip
