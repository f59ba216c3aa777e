"""Types that the user chooses, and rows that do not fit: refused, or left out and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake import Lake
from lake.cli import main
from sennit_core.errors import BadInput, UsageError

from .conftest import Encode, Encoded, put
from .served_lake import Client, make_app


def rejects(found: Encoded) -> list[dict[str, Any]]:
    if found.answer["rejects"] is None:
        return []
    lines = Path(found.answer["rejects"]["file"]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_ragged_rows_are_left_out_with_their_place_text_and_reason(encode: Encode) -> None:
    text = 'a,b\n1,x\n\n2\n3,"y\nz"\n4,w,v\n5,u\n'
    found = encode(text, onBadRow="skip")

    assert found.table.column("a").to_pylist() == [1, 3, 5]
    assert rejects(found) == [
        {"line": 4, "byteOffset": 9, "text": "2", "reason": "this record has 1 fields, the header 2"},
        {"line": 7, "byteOffset": 19, "text": "4,w,v",
         "reason": "this record has 3 fields, the header 2"},
    ]  # fmt: skip
    for row in rejects(found):
        assert text.encode()[row["byteOffset"] :].startswith(row["text"].encode())
    assert found.report["rejected"] == 2


def test_values_that_do_not_fit_a_chosen_type_are_left_out(encode: Encode) -> None:
    found = encode("a,b\n1,x\nseven,y\n2\n,z\n3,w\n", columns={"a": "Int64"}, onBadRow="skip")

    assert found.types["a"] == "Int64"
    assert found.table.to_pylist() == [
        {"a": 1, "b": "x"},
        {"a": None, "b": "z"},
        {"a": 3, "b": "w"},
    ]
    assert [(row["line"], row["text"], row["reason"]) for row in rejects(found)] == [
        (3, "seven,y", "column 'a' is Int64, and 'seven' is not"),
        (4, "2", "this record has 1 fields, the header 2"),
    ]


def test_strict_and_appended_rows_are_left_out_too(encode: Encode) -> None:
    text = "a\n" + "1\n" * 300_000 * 2 + "x\n1.5\n2\n"
    found = encode(text, strict=True, onBadRow="skip")

    assert found.types == {"a": "Int64"}
    assert found.table.num_rows == 600_001
    assert [row["line"] for row in rejects(found)] == [600_002, 600_003]
    schema = found.answer["schema"]
    again = encode("a\nx\n7\n", schema=schema, onBadRow="skip")
    assert again.table.to_pylist() == [{"a": 7}]
    with pytest.raises(BadInput, match="column 'a' is Int64 so far, and 'x' is not") as raised:
        encode("a\n1\nx\n", schema=schema)
    assert raised.value.line == 3


def test_chosen_types_are_kept_although_values_look_otherwise(encode: Encode) -> None:
    found = encode(
        "zip,n,day\n1234,5,03/04/2024\n5678,6,05/04/2024\n",
        columns={"zip": "Utf8", "n": "Float64", "day": "Date"},
        dateOrder="dmy",
    )

    assert found.types == {"zip": "Utf8", "n": "Float64", "day": "Date"}
    assert str(found.table.column("day")[0]) == "2024-04-03"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"aa": "Utf8"}}, "no column 'aa'"),
        ({"columns": {"a": "Int128"}}, "columns: unknown type 'Int128'"),
        ({"columns": ["a"]}, "columns is an object"),
        ({"columns": {"a": None}}, "is no type"),
        ({"onBadRow": "null"}, "fail or skip"),
        ({"onBadrow": "skip"}, "unknown ingest option"),
    ],
)
def test_wrong_options_are_refused(encode: Encode, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encode("a,b\n1,2\n", **options)


def test_options_of_text_are_refused_for_other_formats(encode: Encode) -> None:
    with pytest.raises(UsageError, match="for CSV and Excel"):
        encode('{"a": 1}\n', "t.jsonl", onBadRow="skip")


def test_a_value_of_a_chosen_type_is_an_error_without_skip(encode: Encode) -> None:
    with pytest.raises(BadInput, match="column 'a' is Int64 so far, and 'x' is not") as raised:
        encode("a,b\n1,2\nx,3\n", columns={"a": "Int64"})
    assert raised.value.line == 3
    assert raised.value.hint == "onBadRow=skip leaves such rows out"


def test_the_report_says_how_sure_the_types_are(encode: Encode) -> None:
    text = "a,b,c\n" + "".join(f"{i},{i if i % 10 else 'none'},x\n" for i in range(100))

    assert encode(text).report["columns"] == [
        {"column": "a", "type": "Int64", "sampled": 100},
        {"column": "b", "type": "Utf8", "sampled": 100, "mostly": "Int64", "fits": 0.9},
        {"column": "c", "type": "Utf8", "sampled": 100},
    ]


def test_rejects_are_bounded(encode: Encode) -> None:
    found = encode("a,b\n1,2\n" + "x\n" * 20_000, onBadRow="skip")

    assert found.answer["rejects"]["count"] == 20_000
    assert found.answer["rejects"]["kept"] == 10_000
    assert len(rejects(found)) == 10_000
    (row,) = rejects(encode("a,b\n1,2\n" + "x" * 100_000 + "\n", onBadRow="skip"))
    assert (len(row["text"]), row["cut"]) == (65_536, 100_000)


ROWS = st.lists(
    st.sampled_from(["1,x", "2,y", "bad,z", "3", "4,a,b", "", '5,"q\nr"', ",n", "６,u"]),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=ROWS, wide=st.booleans())
def test_every_row_is_stored_or_rejected_once(encode: Encode, rows: list[str], wide: bool) -> None:
    text = "a,b\n0,first\n" + "".join(f"{row}\n" for row in rows)
    data = text.encode("utf-16") if wide else text.encode()
    found = encode(data, columns={"a": "Int64"}, onBadRow="skip")

    bad = [row for row in rows if row in ("bad,z", "3", "4,a,b", "６,u")]
    assert [row["text"] for row in rejects(found)] == bad
    assert found.table.num_rows == 1 + len([row for row in rows if row]) - len(bad)
    lines = text.splitlines()
    for row in rejects(found):
        assert lines[row["line"] - 1] == row["text"]
        code = "utf-16" if wide else "utf-8"
        assert (
            data[row["byteOffset"] :].decode("utf-16-le" if wide else code).startswith(row["text"])
        )


def test_rejected_rows_are_downloaded_until_their_dataset_is_deleted(lake: Lake) -> None:
    client = Client(make_app(lake))
    put(lake, "t.csv", "a,b\n1,2\n3\n", options={"onBadRow": "skip"})
    put(lake, "u.csv", "a,b\n1,2\n")

    answer = client.get("/api/datasets/t/rejects")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.json()["text"] == "3"
    head = lake.catalog.get("t").head
    assert client.get(f"/api/datasets/t/rejects?snapshot={head}").status_code == 200
    for path in ("t/rejects?snapshot=../../x", "u/rejects", "v/rejects"):
        assert client.get(f"/api/datasets/{path}").status_code == 404
    lake.delete("t")
    assert list((lake.folder / "lake" / "rejects").iterdir()) == []


def test_the_command_prints_rejected_rows(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file, data = tmp_path / "t.csv", str(tmp_path / "data")
    file.write_text("a,b\n1,2\nx,3\n")
    options = ["--type", "a=Int64", "--skip-bad-rows", "--data", data]

    assert main(["put", str(file), *options]) == 0
    assert main(["rejects", "t", "--data", data]) == 0
    line = capfdbinary.readouterr().out.splitlines()[-1]
    assert json.loads(line)["reason"] == "column 'a' is Int64, and 'x' is not"
    assert main(["put", str(file), "--type", "a", "--data", data]) == 2
