import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import UsageError
from sennit_core.ids import id_time, is_id, new_id, task_key
from sennit_core.testing import ManualClock


def test_ids_grow_in_text_order() -> None:
    made = [new_id() for _ in range(2000)]
    assert made == sorted(set(made))
    assert all(map(is_id, made))


def test_ids_grow_while_the_clock_is_set_back() -> None:
    clock = ManualClock()
    first = new_id(clock)
    clock.set_back(3600)
    assert new_id(clock) > first


@given(st.integers(0, 2**47))
def test_id_encodes_its_millisecond(milliseconds: int) -> None:
    made = new_id(ManualClock(milliseconds / 1000))
    assert id_time(made) == pytest.approx(milliseconds / 1000, abs=0.0011)


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=2, unique=True))
def test_text_order_is_time_order(times: list[int]) -> None:
    first, second = (new_id(ManualClock(t)) for t in (min(times) / 1000, max(times) / 1000))
    assert first[:10] <= second[:10]


def test_threads_never_make_the_same_id() -> None:
    made = []
    threads = [
        threading.Thread(target=lambda: made.extend([new_id() for _ in range(500)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


def test_forked_child_does_not_count_on_from_its_parent() -> None:
    clock = ManualClock()
    new_id(clock)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_id(clock).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 64).decode()
    os.close(reader)
    os.close(writer)
    ours = new_id(clock)
    assert is_id(theirs)
    assert ours[10:16] != theirs[10:16]


@pytest.mark.parametrize(
    "text", ["", "0" * 25, "0" * 27, "z" * 26, "0" * 25 + "u", "0" * 25 + "A", 3]
)
def test_malformed_ids(text: Any) -> None:
    assert not is_id(text)
    with pytest.raises(UsageError):
        id_time(text)


def test_task_keys_sort_as_their_numbers() -> None:
    assert task_key(0) == "t000000"
    assert task_key(9) < task_key(10) < task_key(999_999)


@pytest.mark.parametrize("index", [-1, 1_000_000])
def test_task_number_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(UsageError, match="1,000,000"):
        task_key(index)
