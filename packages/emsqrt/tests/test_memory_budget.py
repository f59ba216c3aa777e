from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.memory import MemoryBudget
from sennit_core.errors import MemoryCapExceeded


def test_a_request_that_does_not_fit_is_refused_and_reserves_nothing() -> None:
    budget = MemoryBudget(100)
    with budget.acquire(60, "rows"):
        assert budget.try_acquire(41, "more") is None
        assert budget.used_bytes == 60
    assert budget.used_bytes == 0


def test_a_refusal_names_the_tag_the_cap_and_the_holders_of_the_rest() -> None:
    budget = MemoryBudget(100)
    with budget.acquire(60, "rows"), pytest.raises(MemoryCapExceeded, match=r"sort .*rows 60") as e:
        budget.acquire(41, "sort")
    assert (e.value.cap_bytes, e.value.asked_bytes) == (100, 41)


def test_a_guard_grows_and_shrinks_within_the_cap() -> None:
    budget = MemoryBudget(100)
    guard = budget.acquire(10, "table")
    guard.resize(100)
    assert not guard.try_resize(101)
    guard.resize(20)
    assert (guard.size_bytes, budget.free_bytes, budget.peak_bytes) == (20, 80, 100)
    guard.release()
    budget.close()


def test_peaks_are_kept_for_each_tag() -> None:
    budget = MemoryBudget(100)
    with budget.acquire(30, "read"):
        budget.acquire(20, "read").release()
    budget.acquire(10, "write").release()
    assert budget.peak_by_tag() == {"read": 50, "write": 10}
    assert budget.used_by_tag() == {}


def test_closing_a_budget_finds_leaked_guards() -> None:
    budget = MemoryBudget(100)
    guard = budget.acquire(5, "forgotten")
    with pytest.raises(AssertionError, match="forgotten"):
        budget.close()
    guard.release()
    guard.release()
    budget.close()


def test_using_a_released_guard_is_a_mistake() -> None:
    budget = MemoryBudget(100)
    guard = budget.acquire(5, "rows")
    guard.release()
    with pytest.raises(AssertionError, match="released"):
        guard.resize(6)


def test_an_error_inside_a_budget_is_not_hidden_by_the_leak_check() -> None:
    with pytest.raises(KeyError), MemoryBudget(10) as budget:
        {"rows": 1}.pop(budget.acquire(5, "rows").tag + " of another kind")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=40))
def test_the_sum_of_guards_never_exceeds_the_cap(steps: list[tuple[int, int]]) -> None:
    budget = MemoryBudget(100)
    guards = [budget.acquire(0, f"tag{i}") for i in range(6)]
    for index, size in steps:
        guards[index].try_resize(size)
        assert budget.used_bytes == sum(guard.size_bytes for guard in guards) <= 100
    for guard in guards:
        guard.release()
    budget.close()
