"""The JSON of a large write's result, encoded from one run of children after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from elkyn.server.bodies.codec import dump
from elkyn.tree.large_map import LargeMap, Run
from elkyn.tree.paths import PRIORITY, as_integer
from elkyn.tree.values import Stored, present

__all__ = ["dump_large"]

_HOLES_PER_PIECE = 10_000


def dump_large(value: Stored) -> bytes:
    """Return `dump(present(value))` for a `LargeMap` or any other stored form."""
    return b"".join(_pieces(value))


def _pieces(value: Stored) -> Iterator[bytes]:
    if type(value) is not LargeMap:
        yield dump(present(value))
    elif value.child(PRIORITY) is not None:  # not in the answer, and rare on so large a map
        yield dump(present(value.whole()))
    elif _is_list(value):
        yield from _list(value)
    else:
        yield from _map(value)


def _is_list(value: LargeMap) -> bool:
    """Whether `present` shows a map as a list."""
    # Firebase's rule: a map is shown as a list when all keys are integers from 0 on and more than
    # half of the indexes up to the greatest have a value. The first and last key decide most maps
    # without a walk.
    greatest = as_integer(value.runs[-1].last)
    if (
        value.runs[0].first.startswith("-")
        or greatest is None
        or not 0 <= greatest < 2 * len(value)
    ):
        return False
    return all(key == str(as_integer(key)) for key, _child in value.items())


def _list(value: LargeMap) -> Iterator[bytes]:
    following = 0
    before = b"["
    for run in value.runs:
        first = int(run.first)
        while following < first:
            # A gap between two runs may be long: it is filled in parts, as everything else.
            holes = min(first - following, _HOLES_PER_PIECE)
            yield before + b",".join([b"null"] * holes)
            before, following = b",", following + holes
        if type(run.packed) is LargeMap:
            yield before
            yield from _pieces(run.packed)
        else:
            yield before + _elements(run)
        before, following = b",", int(run.last) + 1
    yield b"]"


def _elements(run: Run) -> bytes:
    """Return the elements of a list that a run holds, without brackets, holes between them null."""
    children = dict(run.items())
    shown = [present(children.get(str(i))) for i in range(int(run.first), int(run.last) + 1)]
    return dump(shown)[1:-1]


def _map(value: LargeMap) -> Iterator[bytes]:
    before = b"{"
    for run in value.runs:
        if type(run.packed) is LargeMap:
            yield before + dump(run.first) + b":"
            yield from _pieces(run.packed)
        else:
            shown: dict[str, Any] = {key: present(child) for key, child in run.items()}
            yield before + dump(shown)[1:-1]
        before = b","
    yield b"}"
