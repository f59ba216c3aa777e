"""`platform sql` as a user runs it: every type in every form, large answers, and what it loads."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from nodes import RunningNode, platform, quiet_environment

QUERY = """
select [1, 2] as list, {'a': 1.5::decimal(9, 2), 'b': [null, 'x']} as struct,
       map {'k': 1} as map, '\\x00\\xFF'::blob as bytes, 'NaN'::double as nan,
       '-inf'::float as minus, 12345678901234567890123.45::decimal(30, 2) as decimal,
       timestamptz '2020-01-02 03:04:05.678+02' as instant, time '12:30:00' as time,
       interval '1 month 2 days' as interval, date '2020-02-29' as day, null as nothing,
       '' as empty, 9007199254740993 as large, e'two\\nlines "quoted", \\x1b[31m' as text,
       [date '2020-01-01'] as days, uuid '00000000-0000-0000-0000-000000000001' as uuid
"""
EXPECTED = {
    "list": [1, 2],
    "struct": {"a": "1.50", "b": [None, "x"]},
    "bytes": "AP8=",
    "nan": "NaN",
    "minus": "-Infinity",
    "decimal": "12345678901234567890123.45",
    "instant": "2020-01-02T01:04:05.678000Z",
    "day": "2020-02-29",
    "nothing": None,
    "empty": "",
    "large": "9007199254740993",
    "text": 'two\nlines "quoted", \x1b[31m',
    "days": ["2020-01-01"],
}


def test_json_holds_every_type(node: RunningNode) -> None:
    answer = json.loads(platform("sql", QUERY, "--json", data=node.data).stdout)
    names = [column["name"] for column in answer["columns"]]
    row = dict(zip(names, answer["rows"][0], strict=True))
    assert {name: row[name] for name in EXPECTED} == EXPECTED
    assert answer["engine"] == "duckdb"


def test_csv_holds_every_type(node: RunningNode) -> None:
    printed = platform("sql", QUERY, "--csv", data=node.data).stdout
    (row,) = csv.DictReader(io.StringIO(printed))
    assert json.loads(row["list"]) == [1, 2]
    assert json.loads(row["struct"]) == EXPECTED["struct"]
    assert row["interval"] == "[1, 2, 0]"
    assert (row["decimal"], row["text"]) == (EXPECTED["decimal"], EXPECTED["text"])
    assert '""' in printed.splitlines()[1]  # the empty text, which is not NULL


def test_the_table_holds_every_type_on_one_line(node: RunningNode) -> None:
    printed = platform("sql", QUERY, data=node.data).stdout
    header, rule, row = printed.splitlines()
    assert header.startswith("list")
    assert set(rule) == {"─"}
    assert '{"a": "1.50", "b": [null, "x"]}' in row
    assert "two\\nlines" in row
    assert "\x1b" not in row
    assert "∅" in row


def test_a_table_ends_at_its_limit_and_says_so(node: RunningNode) -> None:
    done = platform("sql", "select * from range(12000)", "--limit", "7", data=node.data)
    assert len(done.stdout.splitlines()) == 2 + 7
    assert "more rows" in done.stderr
    exact = platform("sql", "select * from range(7)", "--limit=7", data=node.data)
    assert exact.stderr == ""


@pytest.mark.parametrize(("flag", "lines"), [("--limit=0", 12_002), ("--limit=11000", 11_002)])
def test_a_table_may_be_longer_than_a_json_answer(node: RunningNode, flag: str, lines: int) -> None:
    done = platform("sql", "select range, [range] as l from range(12000)", flag, data=node.data)
    assert len(done.stdout.splitlines()) == lines
    assert ("more rows" in done.stderr) == (lines != 12_002)


def test_json_and_csv_are_whole(node: RunningNode) -> None:
    query = "select range as n, [range] as l from range(12000)"
    answer = json.loads(platform("sql", query, "--json", data=node.data).stdout)
    assert answer["rows"] == [[n, [n]] for n in range(12_000)]
    assert len(platform("sql", query, "--csv", data=node.data).stdout.splitlines()) == 12_001


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_an_empty_answer_has_its_columns(node: RunningNode, form: list[str]) -> None:
    done = platform("sql", "select 1 as one where false", *form, data=node.data)
    assert "one" in done.stdout


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_a_mistake_in_a_query_exits_with_status_2(node: RunningNode, form: list[str]) -> None:
    done = platform("sql", "select nocolumn", *form, data=node.data, check=False)
    assert done.returncode == 2
    assert "nocolumn" in done.stderr
    assert done.stdout == ""


HEAVY = (
    "_duckdb", "click", "duckdb", "email.mime", "emsqrt", "elytra", "fastapi", "httpcore",
    "httpx", "numpy", "pyarrow", "pydantic", "rich", "starlette", "typer", "uvicorn",
    "sennit.settings", "sennit.client",
)  # fmt: skip


def test_a_small_query_loads_nothing_heavy(node: RunningNode) -> None:
    program = (
        "import sys; from sennit.cli import run\n"
        "status = run(['sql', 'select 1', '--data', sys.argv[1]])\n"
        "print(status, *sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(node.data)],
        capture_output=True, text=True, check=True, env=quiet_environment(),
    )  # fmt: skip
    status, *loaded = done.stdout.splitlines()[-1].split()
    assert status == "0"
    assert not set(HEAVY) & set(loaded)
    assert len(loaded) < 200


def test_a_reader_that_has_seen_enough_is_no_error(node: RunningNode) -> None:
    command = [sys.executable, "-m", "sennit.cli", "sql", "select * from range(3000000)", "--csv"]
    with subprocess.Popen(
        [*command, "--data", str(node.data)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | quiet_environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"range\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_plan_is_printed_as_its_lines(node: RunningNode) -> None:
    query = "EXPLAIN SELECT 1 AS a, chr(27) AS b"
    lines = platform("sql", query, data=node.data).stdout.splitlines()
    assert lines[0] == "physical_plan:"
    assert len(lines) > 3
    assert all("\\n" not in line and "\x1b" not in line for line in lines)
