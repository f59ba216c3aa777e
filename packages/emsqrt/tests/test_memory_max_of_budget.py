"""Readers that run one at a time: the largest is held, and nothing leaks."""

from __future__ import annotations

import pytest

from emsqrt.memory import MemoryBudget
from emsqrt.memory.max_of_budget import MaxOfBudget
from sennit_core.errors import CapTooSmall


def test_the_largest_is_held_and_not_the_sum() -> None:
    whole = MemoryBudget(100, 200)
    shared = MaxOfBudget(whole, "scan")
    first = shared.admit(60, "scan", "it is large")
    second = shared.admit(80, "scan", "it is larger")
    assert whole.used_bytes == 80
    assert shared.free_bytes == 100
    with pytest.raises(CapTooSmall) as refusal:
        shared.admit(101, "scan", "it is too large")
    assert refusal.value.needed_bytes == 201
    assert not first.try_resize(101)
    assert first.try_resize(90)
    assert whole.used_bytes == 90
    first.release()
    assert whole.used_bytes == 80
    other = whole.acquire(20, "sink")
    assert shared.free_bytes == 80
    assert not second.try_resize(81)
    other.release()
    second.release()
    assert whole.used_bytes == 0
    shared.close()
    shared.release()
    whole.close()


def test_after_an_early_release_later_readers_reserve_nothing() -> None:
    whole = MemoryBudget(100)
    shared = MaxOfBudget(whole, "scan")
    guard = shared.acquire(10, "scan")
    shared.release()
    guard.release()
    whole.close()
