"""Large bodies are parsed in pieces and mean what they mean when they are parsed whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.errors import BadValue, TooManyNodes
from elkyn.server.bodies import scanner
from elkyn.server.bodies.codec import dump, load
from elkyn.server.bodies.large_bodies import prepare_large, put_large, update_large
from elkyn.server.bodies.large_responses import dump_large
from elkyn.server.realtime.large_messages import Announced, parse_large, try_announced
from elkyn.storage.log_rows import Entry, pack_entry, unpack_entry
from elkyn.storage.writer import patch_write, put_write
from elkyn.testing import EXPORTS, VALUES
from elkyn.tree.large_map import LargeMap
from elkyn.tree.values import plain, prepare, present
from sennit_core.errors import SennitError, UsageError

NODES_MAX = 10_000
NUMBERED = st.dictionaries(st.integers(-3, 40).map(str), VALUES, max_size=30)
JSON = st.one_of(VALUES, EXPORTS, NUMBERED, st.lists(VALUES, max_size=20))


@pytest.fixture(scope="module", autouse=True)
def _small_pieces() -> Iterator[None]:
    """Cut bodies into pieces of so few bytes that small examples have several."""
    patched = pytest.MonkeyPatch()
    patched.setattr(scanner, "PIECE_BYTES", 24)
    yield
    patched.undo()


def ordered(value: Any) -> Any:
    """Return a stored form in which the order of keys shows."""
    if isinstance(value, dict):
        return [(key, ordered(child)) for key, child in value.items()]
    return (type(value).__name__, value)


def outcome(parse: Any) -> Any:
    """Return the parsed value, or that it is refused."""
    try:
        return ordered(plain(parse().value))
    except (ValueError, SennitError):
        return "refused"


@pytest.mark.slow
@given(JSON, st.sampled_from([None, 1]), st.booleans())
@example({"-3": False, "0": False}, None, False)
def test_a_body_in_pieces_is_the_body_as_a_whole(value: Any, indent: Any, by_name: bool) -> None:
    body = json.dumps(value, indent=indent, sort_keys=by_name, ensure_ascii=False).encode()
    split = prepare_large(body, ("a",), NODES_MAX)
    assert ordered(plain(split.value)) == ordered(prepare(load(body), ("a",)).value)
    assert dump_large(split.value) == dump(present(plain(split.value)))


@pytest.mark.nightly
@given(JSON, st.data())
@settings(max_examples=200)
def test_a_broken_body_is_refused_in_pieces_as_it_is_whole(value: Any, data: st.DataObject) -> None:
    body = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b",", b"{", b"}", b"[", b"]", b'"', b"\\", b":", b"null", b" "])
        )
        if not body:
            return
    whole = outcome(lambda: prepare(load(bytes(body))))
    assert outcome(lambda: prepare_large(bytes(body), (), NODES_MAX)) == whole


def test_of_a_key_that_is_repeated_the_last_value_counts_also_when_that_is_null() -> None:
    body = b'{"b":1,"a":{"x":"' + b"y" * 50 + b'"},"c":3,"d":4,"b":null,"a":2,"e":[null]}'
    assert plain(prepare_large(body, (), NODES_MAX).value) == {"a": 2, "c": 3, "d": 4}


def test_server_values_in_a_large_body_wait_for_the_write() -> None:
    body = json.dumps({"n": {".sv": {"increment": 2}}, "text": "x" * 50, "t": {".sv": "timestamp"}})
    with ElkynStore(mode="memory") as store:
        store.set("/a/n", 40)
        write = put_large(("a",), body.encode(), NODES_MAX)
        store.admin.apply([write])
        assert write.error is None
        assert (store.get("/a/n"), type(store.get("/a/t"))) == (42, int)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(["a", "b", "7", "07"]), JSON, min_size=1), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_large_write_leaves_the_tree_log_and_index_that_a_small_one_leaves(
    value: Any, merges: bool
) -> None:
    body = json.dumps(value).encode()
    with ElkynStore(mode="memory") as large, ElkynStore(mode="memory") as small:
        for store in (large, small):
            store.set("/t/a", {"old": "x" * 30, "older": {"b": 1}})
            store.set_rules({"rules": {"t": {"$k": {".indexOn": ["a", ".value"]}}}})
            assert store.admin.wait_for_indexes(20)
        if merges:
            split = update_large(("t",), body, NODES_MAX)
            assert split is not None
            writes = [split, patch_write(("t",), load(body))]
        else:
            writes = [put_large(("t",), body, NODES_MAX), put_write(("t",), load(body))]
        for store, write in zip((large, small), writes, strict=True):
            store.admin.apply([write])
            assert write.error is None
            assert store.admin.verify() == []
        assert ordered(large.get("/")) == ordered(small.get("/"))
        log = [list(store.oplog.read(1, 10))[-1].places for store in (large, small)]
        assert log[0] == log[1]


@pytest.mark.slow
@given(JSON)
def test_a_log_row_in_pieces_reads_like_one_that_was_packed_whole(value: Any) -> None:
    large = prepare_large(json.dumps({"k": value, "l": "x" * 40}).encode(), (), NODES_MAX).value
    assert type(large) is LargeMap
    entry = Entry(3, 1, 5, "put", ("a",), [(("a",), large)])
    again = unpack_entry(3, pack_entry(entry))
    assert ordered(again.places[0][1]) == ordered(large.whole())


def test_a_body_of_too_many_values_is_refused_before_most_of_it_is_parsed() -> None:
    with pytest.raises(TooManyNodes, match="more than 1,000 values"):
        prepare_large(b"[" + b"0," * 5000 + b"no JSON]", (), 1000)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a/b": "' + b"x" * 60 + b'"}', "'/'"),
        (b'{"k": {"x": "' + b"x" * 60 + b'", ".value": 1}}', ".value"),
        (b'{".sv": "timestamp", "x": "' + b"x" * 60 + b'"}', "server value"),
        (b'{"a":' * 40 + b'"' + b"x" * 60 + b'"' + b"}" * 40, "32 levels"),
    ],
)
def test_values_the_tree_cannot_hold_are_named(body: bytes, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        prepare_large(body, (), NODES_MAX)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from("pqh"), VALUES), VALUES, st.booleans())
def test_the_data_of_a_large_message_are_found_wherever_they_are(
    others: dict[str, Any], data: Any, first: bool
) -> None:
    inner = {"d": data, **others} if first else {**others, "d": data}
    text = json.dumps({"d": {"b": inner, "a": "p", "r": 7}, "t": "d"})
    message = parse_large(text)
    assert (message.number, message.action) == (7, "p")
    assert load(message.body["d"].text) == load(json.dumps(data).encode())
    assert {name: message.body[name] for name in others} == json.loads(json.dumps(others))


def test_the_first_frame_of_a_message_names_the_paths_it_writes() -> None:
    frame = '{"t":"d","d":{"r":3,"a":"m","b":{"p":"/a/\\u00e9","d":{"x":'
    assert try_announced(frame) == Announced(3, "patch", ("a", "é"))
    assert try_announced('{"t":"d","d":{"r":3,"a":"q","b":{"p":"/a"') is None
    with pytest.raises(UsageError):
        parse_large('{"t":"d","d":{"r":3,"a":"p","b":{"p":"/a","d":[1,2')


@pytest.mark.nightly
def test_a_map_whose_keys_come_in_no_order_is_sorted(tmp_path: Path) -> None:
    body = json.dumps({f"{n * 7919 % 100_003:x}": n for n in range(20_000)}).encode()
    split = prepare_large(body, (), 100_000).value
    assert ordered(plain(split)) == ordered(prepare(load(body)).value)
    with ElkynStore(tmp_path) as store:
        store.admin.apply([put_large(("a",), body, 100_000)])
        assert store.get("/a") == load(body)
