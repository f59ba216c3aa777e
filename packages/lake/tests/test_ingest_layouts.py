"""CSV as people send it: the layout found in each file, next to that of DuckDB's sniffer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.inference import infer_csv_schema
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

from .conftest import Encode


@dataclass(frozen=True)
class Sent:
    """A file, and what has to be found.

    Args:
        text: The file.
        delimiter: Between fields.
        types: Columns.
        first: The first row.
        header: Whether there is one.
        skipped: Records above it.
    """

    text: str | bytes
    delimiter: str
    types: dict[str, str]
    first: tuple[Any, ...]
    header: bool = True
    skipped: int = 0


SENT = {
    "german": Sent(
        "Artikel;Preis;Menge\nApfel;1,5;3\nBirne;2,25;4\n",
        ";",
        {"Artikel": "Utf8", "Preis": "Float64", "Menge": "Int64"},
        ("Apfel", 1.5, 3),
    ),
    "german, every field a decimal": Sent(
        "Preis;Menge\n" + "1,5;2,5\n" * 300,
        ";",
        {"Preis": "Float64", "Menge": "Float64"},
        (1.5, 2.5),
    ),
    "german without header": Sent(
        "1,5;2,5\n3,5;4,5\n",
        ";",
        {"column_1": "Float64", "column_2": "Float64"},
        (1.5, 2.5),
        header=False,
    ),
    "german thousands and dates": Sent(
        "Konto;Datum;Betrag\nA;31.12.2024;1.234,56\nB;01.01.2025;99,00\n",
        ";",
        {"Konto": "Utf8", "Datum": "Date", "Betrag": "Float64"},
        ("A", None, 1234.56),
    ),
    "decimal comma after whole numbers": Sent(
        "v;w\n" + "4;2\n" * 10 + "1,5;3\n",
        ";",
        {"v": "Float64", "w": "Int64"},
        (4.0, 2),
    ),
    "comma within a semicolon's name": Sent(
        "Name, Vorname;Alter\nMüller, Hans;30\nMeier, Eva;25\n",
        ";",
        {"Name, Vorname": "Utf8", "Alter": "Int64"},
        ("Müller, Hans", 30),
    ),
    "tab": Sent("a\tb\n1,5\t2\n", "\t", {"a": "Float64", "b": "Int64"}, (1.5, 2)),
    "pipe": Sent("a|b\n1|x, y\n2|z\n", "|", {"a": "Int64", "b": "Utf8"}, (1, "x, y")),
    "quoted newlines": Sent(
        'a,b\n"x\ny",1\n"z; w",2\n', ",", {"a": "Utf8", "b": "Int64"}, ("x\ny", 1)
    ),
    "semicolons within quotes": Sent(
        'a,b\n"x;y;z",1\n"w;v;u",2\n', ",", {"a": "Utf8", "b": "Int64"}, ("x;y;z", 1)
    ),
    "one column": Sent("name\nAnna\nBert\n", ",", {"name": "Utf8"}, ("Anna",)),
    "zip codes": Sent("zip\n02134\n10001\n", ",", {"zip": "Utf8"}, ("02134",)),
    "byte order mark": Sent(
        "\ufeffa;b\n1,5;2\n2,5;3\n", ";", {"a": "Float64", "b": "Int64"}, (1.5, 2)
    ),
    "UTF-16": Sent(
        "Ort;Wert\nKöln;1,5\n".encode("utf-16"), ";", {"Ort": "Utf8", "Wert": "Float64"},
        ("Köln", 1.5),
    ),
    "latin-1": Sent(
        "Name;Ort\nMüller;Köln\nZoë;Bonn\n".encode("latin-1"),
        ";",
        {"Name": "Utf8", "Ort": "Utf8"},
        ("Müller", "Köln"),
    ),
    "a trailing delimiter in every line": Sent(
        "a;b;\n1;2;\n3;4;\n", ";", {"a": "Int64", "b": "Int64", "column_3": "Utf8"}, (1, 2, None)
    ),
    "a trailing delimiter in the records alone": Sent(
        "a;b\n1;2;\n3;4;\n", ";", {"a": "Int64", "b": "Int64", "column_3": "Utf8"}, (1, 2, None)
    ),
    "title lines": Sent(
        "Sales report 2024\nGenerated 2024-01-02, 10:00\n\nRegion;Product;Amount\n"
        "North;A;1,5\nSouth;B;2,5\n",
        ";",
        {"Region": "Utf8", "Product": "Utf8", "Amount": "Float64"},
        ("North", "A", 1.5),
        skipped=2,
    ),
    "a title with CRLF": Sent(
        "Report\r\n\r\na;b;c\r\n1;2;3\r\n",
        ";",
        {"a": "Int64", "b": "Int64", "c": "Int64"},
        (1, 2, 3),
        skipped=1,
    ),
    "comment lines": Sent(
        "# made by a tool\n# version 2\nid,name\n1,x\n2,y\n",
        ",",
        {"id": "Int64", "name": "Utf8"},
        (1, "x"),
        skipped=2,
    ),
    "a header that begins with #": Sent(
        "#id,name\n1,x\n2,y\n", ",", {"#id": "Int64", "name": "Utf8"}, (1, "x")
    ),
    "Excel's sep= line": Sent("sep=;\na;b\n1;2\n", ";", {"a": "Int64", "b": "Int64"}, (1, 2),
                              skipped=1),
    "empty lines": Sent(
        "\n\na,b\n\n1,2\n\n3,4\n\n", ",", {"a": "Int64", "b": "Int64"}, (1, 2)
    ),
    "a line of totals": Sent(
        "item,amount\nA,1\nB,2\nTotal,3\n", ",", {"item": "Utf8", "amount": "Int64"}, ("A", 1)
    ),
    "thousands and points": Sent(
        'item,amount,n\nA,"1,234.50","1,234,567"\nB,99.00,12\n',
        ",",
        {"item": "Utf8", "amount": "Float64", "n": "Int64"},
        ("A", 1234.5, 1234567),
    ),
    "thousands or decimals": Sent(
        'item,n\nA,"1,234"\nB,"5,678"\n', ",", {"item": "Utf8", "n": "Utf8"}, ("A", "1,234")
    ),
    "percent and currency": Sent(
        "p;c;e\n12%;$12.50;12,50 €\n5%;$5.00;5,00 €\n",
        ";",
        {"p": "Utf8", "c": "Utf8", "e": "Utf8"},
        ("12%", "$12.50", "12,50 €"),
    ),
    "all quoted": Sent(
        '"a";"b"\n"1,5";"x"\n"2,5";"y"\n', ";", {"a": "Float64", "b": "Utf8"}, (1.5, "x")
    ),
    "spaces after the delimiter": Sent(
        "a, b, c\n1, 2, 3\n", ",", {"a": "Int64", "b": "Int64", "c": "Int64"}, (1, 2, 3)
    ),
}  # fmt: skip

# Where DuckDB 2.0 finds another delimiter or header, or fails, and the file means what ours says.
DUCKDB_DIFFERS = {
    "german, every field a decimal": "it divides at the decimal commas",
    "german without header": "it divides at the decimal commas",
    "UTF-16": "it reads UTF-8 by default",
    "latin-1": "it reads UTF-8 by default",
    "Excel's sep= line": "it reads the line as the header",
}


@pytest.mark.parametrize("name", SENT)
def test_common_csv_layouts_are_read(encode: Encode, name: str) -> None:
    sent = SENT[name]

    done = encode(sent.text)

    found = done.source
    assert (found["delimiter"], found["header"]) == (sent.delimiter, sent.header)
    assert found["skipped"] == sent.skipped
    assert done.types == sent.types
    row = list(done.table.slice(0, 1).to_pylist()[0].values())
    assert [v for v, wanted in zip(row, sent.first, strict=True) if wanted is not None] == [
        wanted for wanted in sent.first if wanted is not None
    ]
    notes = [note for note in done.report["notes"] if note["note"].startswith("above the table")]
    assert len(notes) == sent.skipped


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", SENT)
def test_duckdb_finds_the_same_layout_where_it_is_right(name: str, tmp_path: Path) -> None:
    sent = SENT[name]
    path = tmp_path / "sent.csv"
    path.write_bytes(sent.text if isinstance(sent.text, bytes) else sent.text.encode())
    found: Any = None
    with duckdb.connect() as database:
        try:
            database.execute("SELECT Delimiter, HasHeader, Columns FROM sniff_csv(?)", [str(path)])
            delimiter, header, columns = database.fetchall()[0]
            names = [column["name"] for column in columns] if header else list(sent.types)
            # It drops a last column that is always empty.
            found = (delimiter, header, names[: len(sent.types)])
        except duckdb.Error:
            pass

    wanted = (
        sent.delimiter,
        sent.header,
        [name.replace("column_3", "column2") for name in sent.types],
    )
    same = found is not None and found[:2] == wanted[:2] and wanted[2][: len(found[2])] == found[2]
    assert same is (name not in DUCKDB_DIFFERS)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("item,amount,n\nA,1,2\nB,2,3\nTotal 3\n", 4),
        ("a,b\n1,2\n3,4,5\n", 3),
        ("comment\nhello, world\nfoo, bar\n", 2),
        ("a,b\n1,2,3\n4,5,6\n", 2),
    ],
)
def test_records_that_do_not_fit_are_refused_with_their_line(
    encode: Encode, text: str, line: int
) -> None:
    """A footer, a ragged record, commas in a text of one column: nothing is dropped silently."""
    with pytest.raises(BadInput, match="fields, the header") as caught:
        encode(text)

    assert caught.value.line == line


@pytest.mark.slow
def test_a_table_below_a_title_is_located_in_the_file(encode: Encode) -> None:
    title = "Report\n\n"
    good = title + "id,name,n\n" + "1,x,2\n" * 300_000

    with pytest.raises(BadInput) as caught:
        encode(good + "1,x\n")

    assert (caught.value.line, caught.value.byte_offset) == (300_004, len(good))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("02134 10001", "Utf8"),
        ("10001 02134", "Utf8"),
        ("-07 7", "Utf8"),
        ("1.5 00.5", "Utf8"),
        ("0 7 10", "Int64"),
        ("0 0.5 -0.25", "Float64"),
    ],
)
def test_the_engine_infers_the_type_that_the_lake_infers(
    encode: Encode, values: str, kind: str, tmp_path: Path
) -> None:
    text = "\n".join(["zip", *values.split(), ""])
    path = tmp_path / "sent.csv"
    path.write_text(text)

    assert encode(text).types == {"zip": kind}
    assert infer_csv_schema(path, CsvOptions()) == Schema.of(zip=kind)


@pytest.mark.parametrize("data", [bytes(range(256)) * 20, b"\x00\x01\x02abc" * 200])
def test_bytes_that_are_not_text_are_refused(encode: Encode, data: bytes) -> None:
    with pytest.raises(BadInput, match="not text"):
        encode(data)


@pytest.mark.nightly
def test_more_columns_than_a_dataset_may_have_are_refused_by_number(encode: Encode) -> None:
    for data, name in (
        (",".join(f"c{n}" for n in range(100_000)) + "\n", "wide.csv"),
        ("{" + ",".join(f'"c{n}": {n}' for n in range(100_000)) + "}", "wide.json"),
    ):
        with pytest.raises(BadInput, match=r"100,000 columns; a dataset may have 16,384"):
            encode(data, name)
