"""Columns into slots and out again: numpy, Arrow, nulls, wraps, and columns that do not fit."""

import json
import threading
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strand
from sennit_core.errors import Corrupt, UnknownColumn, UsageError
from strand.fields import FIELD_TYPES

INTERN = ["red", "green", "blue"]
f32 = st.floats(width=32, allow_nan=False)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i32": st.integers(-(2**31), 2**31 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "f32": f32,
    "f64": st.floats(allow_nan=False),
    "u16": st.integers(0, 2**16 - 1),
    "u8": st.integers(0, 255),
    "bool8": st.booleans(),
    "utf8": st.text("aé€😀", max_size=6),
    "utf8_ref": st.sampled_from(INTERN),
    "json": st.lists(st.integers(0, 9), max_size=3) | st.text("aé€😀", max_size=3),
    "bytes": st.binary(max_size=9),
    "i32_array": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    "f32_array": st.lists(f32, max_size=3),
}
POINTS = strand.build_schema(
    [("id", "u32"), ("x", "f32"), ("at", "i64"), ("kind", "u32"), ("y", "f32")]
)
LOOSE = strand.build_schema(
    [
        ("n", "i32"),
        {"name": "maybe", "type": "f64", "nullable": True},
        ("flag", "bool8"),
        {"name": "text", "type": "utf8", "nullable": True},
        {"name": "colour", "type": "utf8_ref", "nullable": True},
    ]
)

Pair = tuple[strand.StrandWriter, strand.StrandView]


@st.composite
def tables(draw: st.DrawFn) -> tuple[strand.StrandSchema, list[tuple[Any, ...]]]:
    """A schema of up to five fields and up to sixteen records of it."""
    kinds = draw(st.lists(st.sampled_from(sorted(FIELD_TYPES)), min_size=1, max_size=5))
    fields = [
        strand.StrandField(f"{at}", kind, draw(st.booleans())) for at, kind in enumerate(kinds)
    ]
    row = st.tuples(*(VALUES[f.type] | st.none() if f.nullable else VALUES[f.type] for f in fields))
    return strand.build_schema(fields), draw(st.lists(row, max_size=16))


def pair_of(schema: strand.StrandSchema, version: Any = 6, records: int = 16) -> Iterator[Pair]:
    ring = strand.open_ring(schema, records, 2048, version=version, metadata={"intern": INTERN})
    with ring, ring.producer() as writer, ring.consumer() as view:
        yield writer, view


@pytest.fixture
def points() -> Iterator[Pair]:
    yield from pair_of(POINTS)


@pytest.fixture
def loose() -> Iterator[Pair]:
    yield from pair_of(LOOSE)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, array) else value


def read_rows(view: strand.StrandView, start: int, stop: int) -> list[tuple[Any, ...]]:
    return [tuple(map(plain, row)) for row in view.tuples(start, stop)]


def read_arrow(view: strand.StrandView, start: int, stop: int) -> list[tuple[Any, ...]]:
    batch = view.to_arrow(start, stop)
    batch.validate(full=True)
    columns = []
    for field, column in zip(view.map.schema.fields, batch.columns, strict=True):
        values = column.to_pylist()
        if field.type == "json":
            values = [None if text is None else json.loads(text) for text in values]
        columns.append(values)
    return list(zip(*columns, strict=True))


def arrow_batch(schema: strand.StrandSchema, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    arrays = []
    for at, field in enumerate(schema.to_arrow()):
        values = [row[at] for row in rows]
        if schema.fields[at].type == "json":
            values = [None if value is None else json.dumps(value) for value in values]
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, list(schema.names))


@pytest.mark.slow
@given(tables(), st.sampled_from([5, 6]), st.integers(0, 15), st.booleans())
@settings(deadline=None)  # a ring for each example
def test_any_columns_round_trip(
    table: tuple[strand.StrandSchema, list[tuple[Any, ...]]], version: Any, skip: int, arrow: bool
) -> None:
    schema, rows = table
    for writer, view in pair_of(schema, version):
        if rows and skip:  # so that the ring wraps somewhere in the batch
            writer.write_record_batch(rows[:1] * skip)
            view.acknowledge_read(skip)
        if arrow and not view.map.is_blocks:
            writer.write_arrow(arrow_batch(schema, rows))
        else:
            columns = {name: [row[at] for row in rows] for at, name in enumerate(schema.names)}
            assert writer.write_columns(columns) == len(rows)
        start, stop = view.window_start, view.committed_count
        assert read_rows(view, start, stop) == rows
        assert read_arrow(view, start, stop) == rows
        for at, name in enumerate(schema.names):
            if not schema.fields[at].facts.heap and schema.fields[at].type != "utf8_ref":
                assert view.columns(start, stop)[name].tolist() == [row[at] for row in rows]


def soil(writer: strand.StrandWriter, view: strand.StrandView) -> int:
    """Leave a ring whose slots hold other bytes than zero; return the next record's number."""
    for slots in writer.claim_records(16):
        slots.view("u1")[:] = 0xFF
    writer.commit_slots(0, 16)
    view.acknowledge_read(16)
    return 16


@pytest.mark.slow
@given(tables(), st.sampled_from([5, 6]))
def test_rows_and_columns_fill_the_same_slots(
    table: tuple[strand.StrandSchema, list[tuple[Any, ...]]], version: Any
) -> None:
    schema, rows = table
    plain_fields = [field for field in schema.fields if not field.facts.heap]
    if not plain_fields or not rows:
        return
    narrow = strand.build_schema(plain_fields)
    places = [schema.position(field.name) for field in plain_fields]
    kept = [tuple(row[at] for at in places) for row in rows]
    slots = []
    for write in ("rows", "columns"):
        for writer, view in pair_of(narrow, version):
            start = soil(writer, view)
            if write == "rows":
                writer.write_record_batch(kept)
            else:
                columns = {name: [row[at] for row in kept] for at, name in enumerate(narrow.names)}
                writer.write_columns(columns)
            slots.append([piece.tobytes() for piece in view.records(start, start + len(kept))])
    assert slots[0] == slots[1]


def make_points(count: int) -> np.ndarray[Any, Any]:
    made = np.zeros(count, POINTS.to_numpy())
    made["id"] = np.arange(count)
    made["x"] = np.arange(count) * 0.5
    made["at"] = -np.arange(count)
    made["kind"] = np.arange(count) % 7
    made["y"] = 1.25
    return made


@pytest.mark.parametrize("form", ["slots", "strided", "reversed", "fields", "columns", "packed"])
def test_every_way_to_hand_numbers_over_is_the_same(points: Pair, form: str) -> None:
    writer, view = points
    made = make_points(12)
    columns: Any = made
    if form == "strided":
        columns = np.repeat(made, 2)[::2]
    elif form == "reversed":
        columns = made[::-1].copy()[::-1]
    elif form == "fields":
        columns = {name: made[name] for name in POINTS.names}
    elif form == "columns":
        columns = {name: made[name].copy() for name in POINTS.names}
    elif form == "packed":
        columns = np.zeros(12, [(name, made.dtype[name]) for name in reversed(POINTS.names)])
        for name in POINTS.names:
            columns[name] = made[name]
    assert writer.write_columns(columns) == 12
    [read] = view.records(0, 12)
    assert (read == made).all()


def test_records_are_read_only_and_see_the_ring(points: Pair) -> None:
    writer, view = points
    writer.write_columns(make_points(3))
    [read] = view.records(0, 3)
    with pytest.raises(ValueError, match="read-only"):
        read["id"][0] = 9
    assert read["id"].tolist() == [0, 1, 2]


def test_records_come_in_two_pieces_where_the_ring_wraps(points: Pair) -> None:
    writer, view = points
    writer.write_columns(make_points(10))
    view.acknowledge_read(10)
    writer.write_columns(make_points(14))
    pieces = view.records(10, 24)
    assert [len(piece) for piece in pieces] == [6, 8]
    assert np.concatenate([piece["id"] for piece in pieces]).tolist() == list(range(14))
    assert view.records(12, 12) == []


def test_records_that_are_not_there_are_refused(points: Pair) -> None:
    writer, view = points
    writer.write_columns(make_points(4))
    view.acknowledge_read(2)
    for start, stop in [(1, 4), (2, 5), (4, 2)]:
        with pytest.raises(UsageError, match="2 to 4"):
            view.records(start, stop)
        with pytest.raises(UsageError):
            view.to_arrow(start, stop)
        with pytest.raises(UsageError):
            view.columns(start, stop)


@pytest.mark.parametrize("version", [5, 6])
def test_a_batch_larger_than_ring_and_heap_is_split(version: Any) -> None:
    schema = strand.build_schema([("n", "i64"), ("text", "utf8"), ("xs", "i32_array")])
    texts = [f"row {n} " * (n % 5) for n in range(1000)]
    arrays = [[n] * (n % 4) for n in range(1000)]
    columns = {"n": np.arange(1000), "text": texts, "xs": arrays}
    with strand.open_ring(schema, 32, 1024, version=version) as ring:
        rows: list[tuple[Any, ...]] = []

        def consume(view: strand.StrandView) -> None:
            for row in view:
                rows.append(tuple(map(plain, row)))  # noqa: PERF401 - `row` is reused

        with ring.consumer() as view, ring.producer() as writer:
            reader = threading.Thread(target=consume, args=[view])
            reader.start()
            writer.write_columns(columns)
            writer.finalize()
            reader.join()
    assert rows == list(zip(range(1000), texts, arrays, strict=True))


def test_heap_bytes_are_kept_until_the_last_record_of_a_piece_is_read() -> None:
    schema = strand.build_schema([("text", "utf8")])
    with strand.open_ring(schema, 16, 128) as ring, ring.producer() as writer:
        view = ring.consumer()
        writer.write_columns({"text": ["a", "b" * 31]})
        writer.write_columns({"text": ["c" * 64]})
        writer.write_columns({"text": ["d" * 32]})
        view.acknowledge_read(1)
        with pytest.raises(TimeoutError):
            raise_when_full(writer, "e" * 32)
        assert view.tuples(1, 4) == [("b" * 31,), ("c" * 64,), ("d" * 32,)]


def raise_when_full(writer: strand.StrandWriter, text: str) -> None:
    def refuse(threshold: int) -> None:
        raise TimeoutError(threshold)

    writer._wait_for_room = refuse  # type: ignore[method-assign]
    writer.write_columns({"text": [text]})


def test_nulls_come_as_masks_masked_arrays_or_none(loose: Pair) -> None:
    writer, view = loose
    fine = {"n": [1, 2], "flag": [True, False], "text": ["a", "b"], "colour": ["red", "blue"]}
    writer.write_columns({**fine, "maybe": [0.5, None]})
    writer.write_columns({**fine, "maybe": np.array([0.5, 7])}, nulls={"maybe": [False, True]})
    masked = np.ma.MaskedArray([0.5, 7], mask=[False, True])
    writer.write_columns({**fine, "maybe": masked})
    writer.write_columns({**fine, "maybe": pa.array([0.5, None])})
    assert view.tuples(0, 2) == [(1, 0.5, True, "a", "red"), (2, None, False, "b", "blue")]
    assert view.tuples(2, 4) == view.tuples(4, 6) == view.tuples(6, 8) == view.tuples(0, 2)
    assert view.columns(0, 2)["maybe"].tolist() == [0.5, None]
    assert view.records(2, 4)[0]["maybe"].tolist() == [0.5, 0]  # not what the mask hid


def test_a_mask_counts_after_an_array_that_was_copied_verbatim() -> None:
    dtype = np.dtype([("id", "<i8"), ("x", "<f8")])  # equal to the ring's, and not the same object
    table = np.array([(1, 0.5), (2, 1.5)], dtype)
    schema = strand.build_schema([("id", "i64"), ("x", "f64")])
    with strand.open_ring(schema, 8, 1024) as ring, ring.producer() as writer:
        writer.write_columns(table)
        writer.write_columns(table[::-1])
        with pytest.raises(UsageError):
            writer.write_columns(np.ma.MaskedArray(table, mask=[(True, False), (False, False)]))
        with ring.consumer() as view:
            assert view.tuples(0, 4) == [(1, 0.5), (2, 1.5), (2, 1.5), (1, 0.5)]
            assert view.committed_count == 4


def test_records_of_one_ring_go_into_another_with_their_nulls() -> None:
    schema = strand.build_schema(
        [("n", "u8"), {"name": "m", "type": "i64", "nullable": True}, ("f", "bool8")]
    )
    rows = [(1, None, True), (2, -5, False), (3, None, True)]
    for writer, view in pair_of(schema):
        writer.write_record_batch(rows)
        for other, read in pair_of(schema):
            other.write_columns(view.records(0, 3)[0])
            assert read.tuples(0, 3) == rows


def test_handles_strings_and_dictionaries_are_the_same_reference(loose: Pair) -> None:
    writer, view = loose
    fine = {"n": [1, 2], "flag": [True, False], "text": ["a", "b"], "maybe": [1.0, 2.0]}
    encoded = pa.array(["blue", "red"]).dictionary_encode()
    for colours in (np.array([2, 0], "u4"), [2, 0], ["blue", "red"], np.array([2, 0]), encoded):
        writer.write_columns({**fine, "colour": colours})
    assert [row[4] for row in view.tuples(0, 10)] == ["blue", "red"] * 5
    column = view.to_arrow(0, 10).column("colour")
    assert column.type == pa.dictionary(pa.int32(), pa.string())
    assert column.dictionary.to_pylist() == INTERN


def test_without_an_intern_table_handles_are_numbers() -> None:
    schema = strand.build_schema([("ref", "utf8_ref")])
    with strand.open_ring(schema, 4, 128) as ring, ring.producer() as writer:
        view = ring.consumer()
        writer.write_columns({"ref": np.array([7, 9], "u4")})
        batch = view.to_arrow(0, 2)
        assert batch.column("ref").to_pylist() == [7, 9]
        assert strand.StrandSchema.from_arrow(batch.schema) == schema
        with pytest.raises(UsageError, match="'red'"):
            writer.write_columns({"ref": ["red"]})


def test_tables_and_sliced_batches_are_written_like_whole_ones(loose: Pair) -> None:
    writer, view = loose
    rows = [(n, None if n % 3 else n / 2, n % 2 == 0, f"t{n}" * n, "red") for n in range(7)]
    batch = arrow_batch(LOOSE, rows)
    writer.write_arrow(batch.slice(2, 3))
    table = pa.Table.from_batches([batch.slice(0, 2), batch.slice(5)])
    writer.write_arrow(table)
    assert view.tuples(0, 7) == [*rows[2:5], *rows[:2], *rows[5:]]


def test_arrow_layouts_of_the_same_values_are_cast() -> None:
    schema = strand.build_schema([("s", "utf8"), ("b", "bytes"), ("xs", "i32_array"), ("n", "i64")])
    batch = pa.record_batch(
        {
            "s": pa.array(["a", "bc"], pa.string_view()),
            "b": pa.array([b"xy", b"zw"], pa.binary(2)),
            "xs": pa.array([[1, 2], [3, 4]], pa.list_(pa.int16(), 2)),
            "n": pa.array([1, 2], pa.uint32()),
        }
    )
    for writer, view in pair_of(schema):
        writer.write_arrow(batch)
        assert read_rows(view, 0, 2) == [("a", b"xy", [1, 2], 1), ("bc", b"zw", [3, 4], 2)]


def test_a_matrix_is_a_column_of_arrays() -> None:
    for writer, view in pair_of(strand.build_schema([("xs", "f32_array")])):
        writer.write_columns({"xs": np.arange(6, dtype="f4").reshape(2, 3)})
        assert read_rows(view, 0, 2) == [([0, 1, 2],), ([3, 4, 5],)]


GOOD: dict[str, Any] = {
    "n": [1, 2],
    "maybe": [1.0, None],
    "flag": [True, False],
    "text": ["a", "b"],
    "colour": ["red", None],
}


@pytest.mark.parametrize(
    ("name", "column", "says"),
    [
        ("n", np.array([1, 2], "i8"), "'n' is i32, not int64"),
        ("n", np.array([1.0, 2.0]), "'n' is i32, not float64"),
        ("n", np.array([[1, 2]], "i4"), "2 dimensions"),
        ("n", [1, 2**31], "2147483648"),
        ("n", [1, 2.5], "a sequence of float64"),
        ("n", ["1", "2"], "'n' is i32"),
        ("n", pa.array([1, 2]), "'n' is i32, not int64"),
        ("n", [1, None], "'n'"),
        ("n", "ab", "'n' is i32, not str"),
        ("n", [1, 2, 3], "has 2 values, and column 'n' has 3"),
        ("flag", np.array([1, 0], "u1"), "'flag' is bool8, not uint8"),
        ("flag", [1, 0], "'flag' is bool8"),
        ("maybe", pa.array(["x", "y"]), "'maybe' is f64, not string"),
        ("maybe", np.array([1, 2], "M8[s]"), "'maybe' is f64"),
        (
            "text",
            ["a", b"b"],
            "'text' is utf8, not a sequence with invalid values: value 1 is bytes",
        ),
        ("text", ["a", "\ud800"], "surrogates not allowed"),
        ("text", np.array([1, 2]), "'text' is utf8"),
        ("text", pa.array([b"a", b"b"]), "'text' is utf8, not binary"),
        ("colour", ["red", "mauve"], "'mauve' is not in the intern table"),
        ("colour", np.array([0, 3], "u4"), "'handle 3' is not in the intern table"),
        ("colour", np.array([0.5, 1]), "'colour' is utf8_ref, not float64"),
        ("colour", pa.array(["mauve", "red"]).dictionary_encode(), "'mauve'"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_and_nothing_written(
    loose: Pair, name: str, column: Any, says: str
) -> None:
    writer, _ = loose
    with pytest.raises(UsageError, match=says):
        writer.write_columns({**GOOD, name: column})
    assert writer.committed_count == 0
    assert writer.write_columns(GOOD) == 2


@pytest.mark.parametrize("version", [5, 6])
def test_strings_and_bytes_in_sequences_are_stored_unchanged(version: Any) -> None:
    schema = strand.build_schema(
        [
            {"name": "text", "type": "utf8", "nullable": True},
            {"name": "data", "type": "bytes", "nullable": True},
        ]
    )
    texts = ["", "größer 😀", None, "x" * 600, "\0"]
    blobs = [b"ab", bytearray(b"c"), memoryview(b"defg")[::1], None, array("H", [1, 2])]
    plain_blobs = [b"ab", b"c", b"defg", None, b"\1\0\2\0"]
    forms: list[Any] = [list, tuple, lambda values: np.array(values, object)]
    for writer, view in pair_of(schema, version):
        for form in forms:
            start = view.acknowledged_count
            writer.write_columns({"text": form(texts), "data": blobs})
            assert view.tuples(start, start + 5) == list(zip(texts, plain_blobs, strict=True))
            writer.write_columns(
                {"text": form(texts[:2]), "data": blobs[:2]}, {"text": [True, False]}
            )
            assert view.tuples(start + 5, start + 7) == [(None, b"ab"), (texts[1], b"c")]
            view.acknowledge_read(start + 7)
        with pytest.raises(UsageError, match="value 1 is int, not bytes"):
            writer.write_columns({"text": ["a", "b"], "data": [b"a", 1]})
        with pytest.raises(UsageError, match="'data'"):
            writer.write_columns({"text": ["a"], "data": [memoryview(b"abcd")[::2]]})


def test_missing_and_unknown_columns_are_named(loose: Pair) -> None:
    writer, _ = loose
    with pytest.raises(UsageError, match="'flag' is missing"):
        writer.write_columns({name: GOOD[name] for name in GOOD if name != "flag"})
    with pytest.raises(UnknownColumn) as unknown:
        writer.write_columns({**GOOD, "colours": [1, 2]})
    assert unknown.value.suggestion == "colour"
    with pytest.raises(UnknownColumn):
        writer.write_columns(GOOD, nulls={"nope": [True, False]})
    with pytest.raises(UsageError, match="cannot be null"):
        writer.write_columns(GOOD, nulls={"n": [True, False]})
    with pytest.raises(UsageError, match="nulls mask has 3"):
        writer.write_columns(GOOD, nulls={"text": [True, False, True]})


@pytest.mark.parametrize("version", [5, 6])
def test_a_record_too_large_for_the_heap_is_refused_before_any_is_written(version: Any) -> None:
    schema = strand.build_schema([("a", "utf8"), ("b", "bytes")])
    for writer, view in pair_of(schema, version):
        with pytest.raises(strand.PayloadTooLarge):
            writer.write_columns({"a": ["x", "y" * 600], "b": [b"z", b"z" * 600]})
        assert writer.committed_count == 0
        writer.write_columns({"a": ["x", "y" * 300], "b": [b"z", b"z" * 300]})
        assert read_rows(view, 0, 2) == [("x", b"z"), ("y" * 300, b"z" * 300)]


@pytest.mark.parametrize("ends", [[0, 900, 4], [0, 4, 2]])
def test_offsets_that_leave_an_arrow_arrays_data_are_refused(ends: list[int]) -> None:
    offsets = pa.py_buffer(np.array(ends, "i4"))
    hostile = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abcd")])
    for writer, _ in pair_of(strand.build_schema([("s", "utf8")])):
        with pytest.raises(UsageError, match="'s'"):
            writer.write_columns({"s": hostile})
        assert writer.committed_count == 0


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", {"offset": 2000, "length": 100}),
        ("xs", {"offset": 0, "length": 7}),
        ("ref", 3),
        ("text", {"offset": 0, "length": 3}),
    ],
)
def test_hostile_slots_are_corrupt_and_harmless(field: str, value: Any, version: Any) -> None:
    schema = strand.build_schema([("text", "utf8"), ("xs", "i32_array"), ("ref", "utf8_ref")])
    for writer, view in pair_of(schema, version):
        writer.write_columns({"text": ["abc"], "xs": [[1]], "ref": [0]})
        heap = view.map.heap_start
        writer.memory[heap : heap + 3] = b"\xed\xa0\x80"  # a surrogate, which UTF-8 has not
        [slots] = writer.claim_records(1)
        slots[0]["text"] = (0, 0)
        slots[0][field] = tuple(value.values()) if isinstance(value, dict) else value
        writer.commit_slots(1, 1)
        with pytest.raises(Corrupt):
            view.to_arrow(1, 2)


def test_claimed_records_are_filled_in_place_and_published_together() -> None:
    schema = strand.build_schema([("n", "u32"), {"name": "m", "type": "f64", "nullable": True}])
    for writer, view in pair_of(schema, records=8):
        writer.write_columns({"n": [0] * 5, "m": [0.0] * 5})
        view.acknowledge_read(5)
        pieces = writer.claim_records(6)
        assert [len(piece) for piece in pieces] == [3, 3]
        for at, piece in enumerate(pieces):
            piece["n"] = at
            piece["m"] = 0.5
        pieces[1]["_nulls"][0] = 0
        assert view.committed_count == 5
        writer.commit_slots(5, 6)
        assert view.tuples(5, 11) == [(0, 0.5)] * 3 + [(1, None)] + [(1, 0.5)] * 2


def test_no_rows_are_no_records(loose: Pair, points: Pair) -> None:
    writer, view = loose
    assert writer.write_columns({name: [] for name in LOOSE.names}) == 0
    assert points[0].write_columns(make_points(0)) == 0
    batch = view.to_arrow(0, 0)
    assert batch.num_rows == 0
    assert strand.StrandSchema.from_arrow(batch.schema) == LOOSE


def test_heap_fields_have_no_numpy_column(loose: Pair) -> None:
    _, view = loose
    with pytest.raises(UsageError, match="'text' is utf8"):
        strand_columns(view, ["text"])


def strand_columns(view: strand.StrandView, names: list[str]) -> Any:
    from strand.columns import columns

    return columns(view, 0, 0, names)
