"""What each step of a hand-over makes of a node's row: decisions without I/O.

`handing_over` and `accepting_hand_overs` write the rows with the catalog; the simulated networks of the tests write
the same rows to their simulated disks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from enum import Enum

from lake.peers.handovers.rows import (
    ACCEPTING,
    OFFERED,
    REFUSED,
    SETTLED,
    SIGNED,
    STOPPED,
    HandOverRow,
)

__all__ = [
    "Answer",
    "accepted",
    "answer",
    "commits",
    "ended",
    "is_asked_by",
    "offered",
    "refused",
    "resumed",
]

_REASON_CHARACTERS = 400


class Answer(Enum):
    """What the writer does when the taker asks for the dataset."""

    WAIT = "the taker lacks a version that is published"
    STOP = "the taker lacks the last versions: no more may come"
    SIGN = "the taker has everything"
    REPEAT = "it is signed already"


def offered(row: HandOverRow, taker: str) -> HandOverRow:
    """Return the writer's row once it has offered a dataset to a node."""
    return replace(row, state=OFFERED, peer=taker, refusal="")


def is_asked_by(row: HandOverRow, peer: str) -> bool:
    """Return whether a node is the one to which the writer hands a dataset over."""
    return row.state in (OFFERED, STOPPED, SIGNED) and row.peer == peer


def answer(row: HandOverRow, manifest: str, head: str, newest: Collection[str]) -> Answer:
    """Return what the writer does when the taker asks.

    Args:
        row: The writer's row, `is_asked_by` the taker.
        manifest: The newest manifest of which the taker has every object; "" if it only asks.
        head: The writer's newest manifest.
        newest: Its last few.
    """
    if row.state == SIGNED:
        return Answer.REPEAT
    if manifest == head:
        return Answer.SIGN
    is_close = row.state == OFFERED and manifest in newest
    return Answer.STOP if is_close else Answer.WAIT


def commits(row: HandOverRow) -> bool:
    """Return whether the writer may commit, as far as hand-overs are concerned."""
    return row.state not in (STOPPED, SIGNED)


def resumed(row: HandOverRow) -> HandOverRow:
    """Return the row of a writer that has stopped, and commits again; the offer stays open.

    Only of `STOPPED`: after a signature the taker may write already.
    """
    assert row.state == STOPPED, f"a hand-over that is {row.state} is not resumed"
    return replace(row, state=OFFERED)


def ended(row: HandOverRow, refusal: str = "") -> HandOverRow:
    """Return the row without a hand-over that is not signed.

    Args:
        row: Of either node.
        refusal: Why the taker refused, as another node says it; "" if it was undone.
    """
    assert row.state != SIGNED, "a signed hand-over is only completed"
    return HandOverRow(SETTLED, row.chain, audiences=row.audiences, refusal=_shown(refusal))


def accepted(row: HandOverRow, writer: str, owner: str) -> HandOverRow:
    """Return the taker's row when it begins to fetch a dataset."""
    return replace(row, state=ACCEPTING, peer=writer, owner=owner, refusal="")


def refused(row: HandOverRow, reason: str) -> HandOverRow:
    """Return the taker's row when it no longer wants a dataset, which its writer does not know yet."""
    return replace(row, state=REFUSED, refusal=_shown(reason))


def _shown(reason: str) -> str:
    """Return text of another node as one short line, which a terminal shows as it is."""
    return "".join(each if each.isprintable() else " " for each in reason[:_REASON_CHARACTERS])
