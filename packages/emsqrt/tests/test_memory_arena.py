"""The arena of a run: slices of a fixed total size, which operators allocate and release."""

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


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, PAGES), st.integers(0, 9)), min_size=1, max_size=40))
def test_all_that_is_free_can_be_had_in_one_slice(steps: list[tuple[int, int]]) -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        held: list[Slice] = []
        for pages, leaves in steps:
            free = PAGES * PAGE - sum(each.size for each in held)
            assert arena.free_bytes == free
            if pages * PAGE <= free:
                held.append(arena.allocate(pages * PAGE, "next"))
            else:
                with pytest.raises(MemoryCapExceeded):
                    arena.allocate(pages * PAGE, "next")
                if held:
                    held.pop(leaves % len(held)).release()
        for each in held:
            each.release()
        assert arena.free_bytes == PAGES * PAGE


def test_the_middle_one_of_three_does_not_split_the_memory_of_the_others() -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        third = PAGES // 3 * PAGE
        join, sort, window = (arena.allocate(third, tag) for tag in ("join", "sort", "window"))
        join.release()
        sort.release()
        with window, arena.allocate_most(PAGES * PAGE, 2 * third, "aggregate") as rest:
            assert rest.size == PAGES * PAGE - third


def test_slices_hold_what_was_written_until_released() -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        held: deque[tuple[Slice, int]] = deque()
        for number in range(200):
            with ExitStack() as released:
                if len(held) == 3:
                    slice_, wrote = held.popleft()
                    assert set(slice_.memory) == {wrote}
                    released.enter_context(slice_)
            allocated = arena.allocate((number % 7 + 1) * PAGE, "some")
            assert set(allocated.memory) == {0}
            allocated.memory[:] = bytes([number % 255 + 1]) * allocated.size
            held.append((allocated, number % 255 + 1))
        for slice_, wrote in held:
            assert set(slice_.memory) == {wrote}
            slice_.release()


def test_a_request_over_the_free_memory_names_the_holders() -> None:
    with MemoryBudget(PAGES * PAGE) as budget, Arena(PAGES * PAGE, budget) as arena:
        with arena.allocate(PAGE, "sort"), pytest.raises(MemoryCapExceeded, match="sort 4096"):
            arena.allocate(PAGES * PAGE, "join")
        assert arena.used_bytes == 0
