"""The arena of a run: slices of one mapping, which operators take one after the other."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.memory import MemoryBudget
from emsqrt.memory.arena import Arena, Slice
from sennit_core.errors import MemoryCapExceeded

PAGE = 4096
PAGES = 64


@given(st.lists(st.integers(1, PAGES - 1), min_size=1, max_size=30))
def test_who_takes_a_slice_while_another_is_held_gets_all_that_is_free(sizes: list[int]) -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        before: Slice | None = None
        for pages in sizes:
            free = PAGES - (0 if before is None else before.size // PAGE)
            assert arena.largest_bytes == free * PAGE
            held = arena.take(min(pages, free - 1 or 1) * PAGE, "next")
            if before is not None:
                before.release()
            before = held
        assert before is not None
        before.release()


def test_slices_hold_what_was_written_until_they_are_given_back() -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        held: deque[tuple[Slice, int]] = deque()
        for number in range(200):
            with ExitStack() as given_back:
                if len(held) == 3:
                    slice_, wrote = held.popleft()
                    assert set(slice_.memory) == {wrote}
                    given_back.enter_context(slice_)
            taken = arena.take((number % 7 + 1) * PAGE, "some")
            assert set(taken.memory) == {0}
            taken.memory[:] = bytes([number % 255 + 1]) * taken.size
            held.append((taken, number % 255 + 1))
        for slice_, wrote in held:
            assert set(slice_.memory) == {wrote}
            slice_.release()


def test_what_is_not_there_is_refused_with_who_holds_it() -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        with arena.take(PAGE, "sort"), pytest.raises(MemoryCapExceeded, match="sort 4096"):
            arena.take(PAGES * PAGE, "join")
        assert arena.used_bytes == 0
