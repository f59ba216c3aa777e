"""Leaves a network without loss: a node goes when others have confirmed that they hold what it has.

From its announcement on it is no target of placement, so the other nodes fetch what they are to hold now,
from it too. What it waits for are answers to questions that were asked after the announcement.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from lake.peers.copies.copy_states import Handover
from sennit_core.errors import SennitError
from sennit_core.records import Record

if TYPE_CHECKING:
    from lake.peers.service import PeerService

__all__ = ["LeaveReport", "leave"]

_POLL_SECONDS = 0.5
_HOPELESS_SECONDS = 15.0
"""After so long without any progress, what no other node is to hold is not handed over."""


@dataclass(frozen=True, slots=True)
class LeaveReport(Record):
    """How far a node is with leaving.

    Args:
        objects: Objects of shared datasets that it has.
        waiting: Those of them that it is still needed for.
        datasets: The names of their datasets.
        left: Whether it has left.
        done: Whether this is the last report.
    """

    objects: int = 0
    waiting: int = 0
    datasets: tuple[str, ...] = ()
    left: bool = False
    done: bool = False


def leave(peers: PeerService, wait_seconds: float, stop: Event) -> Iterator[LeaveReport]:
    """Hand over what this node holds, and leave; yield reports.

    If it is not done in time, or is stopped, the node stays. A restart ends it too.

    Args:
        peers: The node's part in the network.
        wait_seconds: The longest time to wait for other nodes; 0 leaves at once.
        stop: Set to end it.

    Raises:
        Conflict: This node is in no network.
    """
    report = LeaveReport()
    if wait_seconds > 0 and not peers.is_revoked:
        has_left = False
        try:
            for report in _drain(peers, wait_seconds, stop):
                yield report
            if report.waiting or stop.is_set():
                yield LeaveReport(report.objects, report.waiting, report.datasets, done=True)
                return
            peers.leave()
            has_left = True
        finally:
            if not has_left:
                with suppress(SennitError):  # the node stops, or was removed from the network
                    peers.stay()
    else:
        peers.leave()
    yield LeaveReport(report.objects, left=True, done=True)


def _drain(peers: PeerService, wait_seconds: float, stop: Event) -> Iterator[LeaveReport]:
    """Yield reports until nothing waits, or nothing more can be handed over."""
    since = peers.start_leaving()
    peers.repairs.repair()  # what dead nodes were to hold is to be elsewhere, too
    started_at = changed_at = time.monotonic()
    before: Handover | None = None
    while not stop.is_set():
        found = peers.handover(since)
        total = sum(found.values(), Handover())
        now = time.monotonic()
        if total != before:
            before, changed_at = total, now
        yield LeaveReport(total.objects, total.waiting, _names(peers, found))
        is_hopeless = total.waiting == total.homeless and now - changed_at > _HOPELESS_SECONDS
        if not total.waiting or is_hopeless or now - started_at > wait_seconds:
            return
        stop.wait(_POLL_SECONDS)


def _names(peers: PeerService, found: Mapping[str, Handover]) -> tuple[str, ...]:
    copies = peers.shared.copies()
    return tuple(
        copies[dataset].name if dataset in copies else dataset
        for dataset, each in found.items()
        if each.waiting
    )
