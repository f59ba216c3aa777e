"""Messages of the worker protocol as bytes, and hostile bytes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytra.backends.remote.messages import (
    FROM_NODE,
    FROM_WORKER,
    INLINE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Ack,
    Credit,
    Drain,
    Failed,
    FromWorker,
    Hello,
    Partial,
    Renew,
    Task,
    Welcome,
    encode,
    read_from_node,
    read_from_worker,
)
from sennit_core.errors import BadInput

HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
ATTEMPTS = st.text("az09-", max_size=20).map(lambda text: f"0{text}")
FROM_A_WORKER: st.SearchStrategy[FromWorker] = st.one_of(
    st.builds(
        Hello, st.integers(0, 9), st.just("emsqrt 0.1.0"), st.just("tab"), st.integers(1, 64),
        st.lists(HASHES, max_size=3).map(tuple), st.none() | st.just("a-secret_1"),
        st.lists(ATTEMPTS, max_size=3).map(tuple),
    ),
    st.builds(Credit, st.integers(1, 64)),
    st.builds(Renew, ATTEMPTS, st.integers(0, 1 << 53)),
    st.builds(Partial, ATTEMPTS, HASHES, HASHES, st.just("js 1"), HASHES, st.none() | st.binary()),
    st.builds(Failed, ATTEMPTS, st.text(max_size=10), st.text(max_size=10)),
    st.just(Drain()),
)  # fmt: skip


@given(FROM_A_WORKER)
def test_a_message_is_what_was_sent(message: FromWorker) -> None:
    assert read_from_worker(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Welcome(1, "w", "s", 2.0, 15.0, 1, 2, ("a-1",)),
        Task("a-1", {"v": 1}, "1" * 64, "/i", 5, "2" * 64, {}, "/u", 15.0),
        Ack("a-1"),
    ],
)
def test_a_worker_reads_what_the_node_sends(message: Any) -> None:
    assert read_from_node(encode(message)) == message


@given(st.binary(max_size=300))
def test_bytes_are_a_message_or_refused(frame: bytes) -> None:
    with suppress(BadInput):
        read_from_worker(frame)


@given(
    FROM_A_WORKER,
    st.data(),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.none())),
)
def test_a_member_of_another_type_or_range_is_refused_or_valid(
    message: FromWorker, data: st.DataObject, value: Any
) -> None:
    names = [each.name for each in fields(message)]
    if not names:
        return
    changed = replace(message, **{data.draw(st.sampled_from(names)): value})
    try:
        frame = encode(changed)
    except (TypeError, ormsgpack.MsgpackEncodeError):
        return  # an integer that MessagePack does not have
    with suppress(BadInput):
        assert isinstance(read_from_worker(frame), type(message))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        ormsgpack.packb([]),
        ormsgpack.packb({}),
        ormsgpack.packb({"word": ["drain"]}),
        ormsgpack.packb({"word": "task", "attempt": "a"}),
        ormsgpack.packb({"word": "drain", "more": 1}),
        ormsgpack.packb({"word": "credit"}),
        ormsgpack.packb({"word": "credit", "n": 0}),
        ormsgpack.packb({"word": "credit", "n": True}),
        ormsgpack.packb({"word": "credit", "n": 1 << 40}),
        ormsgpack.packb({"word": "renew", "attempt": "../etc", "bytesDone": 1}),
        ormsgpack.packb({"word": "renew", "attempt": "a", "bytesDone": -1}),
        ormsgpack.packb({"word": "failed", "attempt": "a", "code": "x" * 999, "message": ""}),
        b"\x91" * 5000,
        b"x" * (MESSAGE_BYTES_MAX + 1),
        encode(Partial("a", "1" * 64, "2" * 64, "e 1", "3" * 64, b"x" * (INLINE_BYTES_MAX + 1))),
        encode(Hello(1, "e 1", "tab", 1, ("1" * 64,) * 513, None, (), False)),
    ],
)
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(BadInput):
        read_from_worker(frame)


def test_each_side_has_its_words() -> None:
    assert set(FROM_WORKER) == {"hello", "credit", "renew", "partial", "failed", "drain"}
    assert set(FROM_NODE) == {"welcome", "task", "cancel", "ack", "drain"}
