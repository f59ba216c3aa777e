"""JSON Lines, JSON arrays and single objects: read whole, or refused with the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt.io.records import CsvDialect
from lake.ingest.json_documents import JsonDocument
from lake.ingest.source import TextSource
from sennit_core.errors import BadInput

from .conftest import Encode

ROWS = [{"a": 1, "b": {"c": [1, 2]}}, {"a": 2, "b": {"c": []}}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["rows.json", "rows.txt", "rows.jsonl"])
def test_an_array_of_objects_is_its_rows(encode: Encode, indent: int | None, name: str) -> None:
    done = encode(json.dumps(ROWS, indent=indent), name, part_bytes=7)

    assert done.source["format"] == "json"
    assert done.types == {"a": "Int64", "b": "Struct(c: List(Int64))"}
    assert done.table.to_pylist() == ROWS


def test_one_object_is_one_row(encode: Encode) -> None:
    document = {"type": "FeatureCollection", "features": [{"n": 1}, {"n": 2}]}

    done = encode(json.dumps(document, indent=1), "map.geojson")

    assert done.table.to_pylist() == [document]


def test_objects_over_several_lines_without_an_array_are_rows(encode: Encode) -> None:
    done = encode('{"a":\n1}\n{"a": 2}{"a": 3}\n', "rows.json")

    assert done.table["a"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "type_name", "values"),
    [
        ("[1, 2, null]", "Int64", [1, 2, None]),
        ('["x", "a, ]", "q\\"[{"]', "Utf8", ["x", "a, ]", 'q"[{']),
        ("[[1, 2], []]", "List(Int64)", [[1, 2], []]),
        ('[1, "x", {"k": [1.10]}]', "Utf8", ["1", '"x"', '{"k": [1.10]}']),
    ],
)
def test_other_elements_become_a_column_called_value(
    encode: Encode, text: str, type_name: str, values: list[Any]
) -> None:
    done = encode(text, "values.json")

    assert done.types == {"value": type_name}
    assert done.table["value"].to_pylist() == values


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[{"a": 1},\n,{"a": 2}]', 2, "a comma of the array has no value"),
        ('[{"a": 1},\n]', 2, "a comma of the array has no value"),
        ('[\n,{"a": 1}]', 2, "a comma of the array has no value"),
        ("[1,\n,2]", 2, "a comma of the array has no value"),
        ("[1, 2,\n]", 2, "a comma of the array has no value"),
        ('[{"a": 1}\n{"a": 2}]', 2, "no comma between them"),
        ('[{"a": 1},\n5]', 2, "is not an object"),
        ('[{"a": 1},\n5, {"a": 2}]', 2, "is not an object"),
        ('[{"a": 1}\n', 2, "never closed"),
        ("[", 1, "never closed"),
        ("[1, 2", 1, "never closed"),
        ('[{"a": 1}]\n x', 2, "text follows"),
        ('[{"a": 1},\n{"a": }]', 2, "not JSON"),
        ('{"a": 1', 1, "not JSON"),
        ('{"a": "open', 1, "not JSON"),
        ("[]", None, "no object"),
        ("{}", None, "no object"),
    ],
)
def test_a_broken_document_is_refused_with_its_line(
    encode: Encode, text: str, line: int | None, reason: str
) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        encode(text, "broken.json")

    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('{"a": 1}\n\n{"a": }\n', 3, "not JSON"),
        ('{"a": 1}\n5\n', 2, "not a JSON object"),
        ('{"a": 1}\n{"a": 1, "a": 2}\n', 2, "specified twice"),
        ('{"a": "x"}\n{"a": "\\ud800"}\n', 2, "surrogate"),
    ],
)
def test_a_broken_line_is_named(encode: Encode, text: str, line: int, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        encode(text, "broken.jsonl")

    assert caught.value.line == line


def test_a_json_file_that_is_none_is_refused_by_its_name(encode: Encode) -> None:
    with pytest.raises(BadInput, match=r"neither \[ nor \{"):
        encode("a,b\n1,2\n", "table.json")


def test_a_csv_header_in_brackets_is_no_json(encode: Encode) -> None:
    assert encode("[id],[name]\n1,x\n").table.column_names == ["[id]", "[name]"]


def test_a_column_of_nulls_or_empty_values_is_text(encode: Encode) -> None:
    lines = '{"a": null, "b": {"c": null}, "d": [null], "e": {}, "f": []}\n'

    done = encode(lines * 2, "f.jsonl")

    assert done.types == {
        "a": "Utf8", "b": "Struct(c: Utf8)", "d": "List(Utf8)", "e": "Utf8", "f": "List(Utf8)",
    }  # fmt: skip
    assert done.table.to_pylist()[0] == {
        "a": None, "b": {"c": None}, "d": [None], "e": "{}", "f": [],
    }  # fmt: skip


@pytest.mark.slow
def test_a_field_of_several_types_is_text_as_written_and_reported(encode: Encode) -> None:
    lines = '{"v": 1.10}\n' * 100_000 + '{"v": "2.0-beta"}\n{"v": true}\n{"v": null}\n'

    done = encode(lines, "f.jsonl")

    assert done.table["v"].to_pylist()[99_999:] == ["1.10", "2.0-beta", "true", None]
    assert done.report["widened"] == [
        {"column": "v", "line": 100_001, "value": '"2.0-beta"', "from": "Float64", "to": "Utf8"}
    ]


def test_objects_among_other_values_are_json_text(encode: Encode) -> None:
    done = encode('{"v": 1}\n{"v": {"x": 1.10, "y": ["é"]}}\n{"v": "t"}\n', "f.jsonl")

    assert done.table["v"].to_pylist() == ["1", '{"x": 1.10, "y": ["é"]}', '"t"']
    assert [json.loads(value) for value in done.table["v"].to_pylist()][2] == "t"


def test_strict_refuses_a_field_of_several_types_with_its_line(encode: Encode) -> None:
    with pytest.raises(BadInput, match="column 'v' is Int64 so far") as caught:
        encode('{"v": 1}\n{"v": "x"}\n', "f.jsonl", strict=True)

    assert caught.value.line == 2


@pytest.mark.nightly
def test_no_integer_is_rounded(encode: Encode) -> None:
    """A block of whole numbers, then one of fractions: as floats the first would change."""
    large = 2**53 + 1
    lines = f'{{"a": {large}, "b": {2**64}, "c": {large}}}\n' * 30_000
    lines += '{"a": 0.5, "b": 1, "c": 1}\n' * 90_000

    done = encode(lines, "f.jsonl")

    assert done.types == {"a": "Utf8", "b": "Utf8", "c": "Int64"}
    first = done.table.slice(0, 1).to_pylist()[0]
    assert first == {"a": str(large), "b": str(2**64), "c": large}
    assert done.table["a"].to_pylist()[-1] == "0.5"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text('"\\[]{},:é\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    elements=st.lists(
        st.dictionaries(st.text(max_size=3), JSON_VALUES, max_size=3), min_size=1, max_size=6
    )
    | st.lists(
        JSON_VALUES.filter(lambda value: not isinstance(value, dict)), min_size=1, max_size=6
    ),
    indent=st.sampled_from([None, 1]),
    block_bytes=st.integers(1, 40),
)
def test_any_array_is_cut_into_its_elements(
    tmp_path: Path, elements: list[Any], indent: int | None, block_bytes: int
) -> None:
    path = tmp_path / "a.json"
    text = json.dumps(elements, indent=indent, ensure_ascii=False)
    path.write_text(text)
    source = TextSource([path], "utf-8", CsvDialect())
    document = JsonDocument(source, what="a.json", block_bytes=block_bytes)

    decoder, found, lines = json.JSONDecoder(), [], 1
    for block in document.blocks(0, path.stat().st_size):
        assert block.line >= lines
        rest, lines = block.data.decode().strip(), block.line
        while rest:
            value, end = decoder.raw_decode(rest)
            found.append(value if isinstance(elements[0], dict) else value["value"])
            rest = rest[end:].strip()

    assert found == elements
    assert lines <= text.count("\n") + 1


def test_an_array_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(
        "[" + ",\n".join(json.dumps({"n": n, "t": "x" * 50}) for n in range(9_000)) + "]"
    )
    source = TextSource([path], "utf-8", CsvDialect())

    blocks = list(
        JsonDocument(source, what="large", block_bytes=10_000).blocks(0, path.stat().st_size)
    )

    assert max(len(block.data) for block in blocks) <= 20_100
    assert blocks[-1].line > 8_000


def test_a_value_that_is_too_long_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"type": "F", "features": [{"n": n} for n in range(5_000)]}))
    source = TextSource([path], "utf-8", CsvDialect())
    document = JsonDocument(source, what="one", block_bytes=1_000, value_bytes_max=9_000)

    with pytest.raises(BadInput, match="longer than") as caught:
        list(document.blocks(0, path.stat().st_size))

    assert "jq -c '.features[]'" in str(caught.value.hint)
