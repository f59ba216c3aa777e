"""A dictionary's texts are copied to its indices, for any indices and bytes."""

from __future__ import annotations

from array import array

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt._kernel import gather_texts, longest_text, measure_texts

INTS = st.lists(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-2, 20), max_size=12)


def packed(numbers: list[int]) -> bytes:
    return np.array(numbers, np.int32).tobytes()


@pytest.mark.slow
@given(st.lists(st.text(max_size=20), min_size=1, max_size=9), st.data())
def test_texts_are_spread_as_arrow_decodes_them(texts: list[str], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=40))
    ends, out = bytearray(4 * (len(places) + 1)), bytearray(1 << 12)
    dictionary = pa.array(texts, pa.string())
    _, known, held = dictionary.buffers()
    numbers = packed(places)
    size = measure_texts(numbers, known.slice(0, 4 * (len(texts) + 1)), ends)
    room = memoryview(out)[:size]
    gather_texts(numbers, known.slice(0, 4 * (len(texts) + 1)), held or b"", room)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(room)]
    found = pa.Array.from_buffers(pa.string(), len(places), buffers)
    assert found.to_pylist() == [texts[place] for place in places]
    assert not any(out[size:]), "nothing is written behind them"


def test_places_and_texts_that_are_not_there_are_refused() -> None:
    known, out = packed([0, 1, 3]), bytearray(64)
    for places in ([2], [-1], [0, 2]):
        with pytest.raises(ValueError, match="index"):
            measure_texts(packed(places), known, out)
        with pytest.raises(ValueError, match="measured"):
            gather_texts(packed(places), known, b"abb", out)
    for ends in (list[int](), [0, 2, 1], [0, 9], [-1, 3]):
        with pytest.raises(ValueError, match="dictionary"):
            gather_texts(packed([0]), packed(ends), b"abb", out)
    with pytest.raises(ValueError, match="end"):
        measure_texts(packed([0] * 16), known, out)
    with pytest.raises(ValueError, match="measured"):
        gather_texts(packed([0] * 16), known, b"abb", bytearray(15))
    with pytest.raises(ValueError, match="four bytes"):
        measure_texts(memoryview(bytes(9))[1:], known, out)


@given(st.lists(st.binary(max_size=300), max_size=9))
def test_the_longest_text_of_a_page_is_found(texts: list[bytes]) -> None:
    page = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    assert longest_text(page + b"more", len(texts)) == max(map(len, texts), default=0)
    with pytest.raises(ValueError, match="ends before"):
        longest_text(page[:-1], len(texts) or 1)
    assert longest_text(page, -1) == max(map(len, texts), default=0)
    with pytest.raises(ValueError, match="ends before"):
        longest_text(page + b"mor", -1)


@pytest.mark.slow
@given(INTS, INTS, st.binary(max_size=60), st.integers(0, 60), st.integers(0, 20))
def test_odd_places_and_ends_touch_nothing_else(
    places: list[int], known: list[int], texts: bytes, size: int, count: int
) -> None:
    ends, out = array("i", bytes(4 * count)), bytearray(size)
    for call in (
        lambda: measure_texts(array("i", places), array("i", known), ends),
        lambda: gather_texts(array("i", places), array("i", known), texts, out),
    ):
        try:
            call()
        except ValueError:
            continue
        assert all(0 <= place < len(known) - 1 for place in places)


@given(st.binary(max_size=80), st.integers(-2, 30))
def test_no_page_is_read_beyond_its_end(page: bytes, count: int) -> None:
    try:
        found = longest_text(page, count)
    except ValueError:
        return
    assert 0 <= found <= len(page)
