from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.executor.frames import FRAME_BYTES_MAX, FrameReader, encode_frame
from sennit_core.errors import Corrupt, TooLarge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.slow
@given(
    st.lists(st.dictionaries(st.text(max_size=9), JSON, max_size=3), max_size=3), st.integers(1, 40)
)
def test_frames_survive_any_cut(requests: list[dict[str, Any]], step: int) -> None:
    sent = [
        {"word": "failed", "attempt": str(index), "error": request}
        for index, request in enumerate(requests)
    ]
    stream = b"".join(
        encode_frame("failed", attempt=str(index), error=request)
        for index, request in enumerate(requests)
    )
    reader, received = FrameReader(), []
    for start in range(0, len(stream), step):
        received += reader.feed(stream[start : start + step])
    assert received == sent


@given(st.binary(min_size=4, max_size=200))
def test_garbage_is_refused_or_waited_for_but_never_passed_on(data: bytes) -> None:
    try:
        frames = FrameReader().feed(data)
    except Corrupt:
        return
    assert all(frame["word"] == "drain" for frame in frames)


def test_a_length_over_the_bound_is_refused_before_its_body_comes() -> None:
    with pytest.raises(Corrupt, match="at most"):
        FrameReader().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "little"))


def test_a_frame_over_the_bound_is_not_sent() -> None:
    with pytest.raises(TooLarge, match="partial frame"):
        encode_frame("partial", attempt="a", result={}, payloads=[b"x" * FRAME_BYTES_MAX])


def test_missing_members_are_refused() -> None:
    body = encode_frame("drain").replace(b"drain", b"hello")
    with pytest.raises(Corrupt, match="a known word with its members"):
        FrameReader().feed(body)
    with pytest.raises(AssertionError, match="failed has"):
        encode_frame("failed", attempt="a")


GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "hello": (
        {"version": 2, "pid": 7},
        "1a00000083a4776f7264a568656c6c6fa776657273696f6e02a370696407",
    ),
    "cancel": (
        {"attempt": "a1", "reason": "deadline"},
        "2800000083a4776f7264a663616e63656ca7617474656d7074a26131a6726561736f6ea8646561646c696e65",
    ),
    "drain": ({}, "0c00000081a4776f7264a5647261696e"),
}


@pytest.mark.parametrize("word", GOLDEN)
def test_frames_keep_their_bytes(word: str) -> None:
    members, expected = GOLDEN[word]
    assert encode_frame(word, **members).hex() == expected
