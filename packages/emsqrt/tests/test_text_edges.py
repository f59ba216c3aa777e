"""Text files at their edges: dates that no calendar has, counts of copied rows, refused output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt import Engine, EngineConfig, Pipeline, scan
from emsqrt.checkpoint import Checkpoint
from emsqrt.expr import Column, SortKey
from emsqrt.io.json_lines import infer_lines
from emsqrt.plan import (
    Aggregate,
    Files,
    Filter,
    Limit,
    Plan,
    Project,
    Scan,
    Sort,
    TopK,
    Window,
    WithColumn,
)
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

EMSQRT = Path(sys.executable).with_name("emsqrt")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2024-02-29", "Date"),
        ("2024-02-30", "Utf8"),
        ("2023-02-29", "Utf8"),
        ("1900-02-29", "Utf8"),
        ("2000-02-29", "Date"),
        ("2024-13-01", "Utf8"),
        ("2024-00-10", "Utf8"),
        ("2024-04-31T10:00:00", "Utf8"),
        ("2024-04-30T24:00:00", "Utf8"),
        ("2024-04-30T10:60:00Z", "Utf8"),
        ("2024-04-30T10:59:00+24:00", "Utf8"),
        ("2024-04-30T10:59:00+14:00", "Timestamp(us,UTC)"),
        ("2024-04-30 23:59:59.5", "Timestamp(us)"),
    ],
)
def test_a_text_is_a_timestamp_only_for_calendar_dates(text: str, kind: str) -> None:
    line = json.dumps({"at": text}).encode() + b"\n"
    assert str(infer_lines(line, "a file").field("at").type) == kind


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32), st.integers(0, 25), st.booleans()
)
def test_every_inferred_type_can_be_read(
    tmp_path_factory: pytest.TempPathFactory,
    year: int,
    month: int,
    day: int,
    hour: int,
    clock: bool,
) -> None:
    folder = tmp_path_factory.mktemp("dates")
    text = f"{year:04}-{month:02}-{day:02}" + f"T{hour:02}:00:00" * clock
    (folder / "in.jsonl").write_text(json.dumps({"at": text}) + "\n")
    scan(folder / "in.jsonl").sink(folder / "out.csv").run("64MiB", in_process=True)
    assert len((folder / "out.csv").read_text().splitlines()) == 2


def copies(folder: Path) -> dict[str, Pipeline]:
    (folder / "in.csv").write_text("a,b\nx,1\ny,2\n")
    (folder / "in.jsonl").write_text('{"a":"x","b":1}\n{"a":"y","b":2}\n')
    text, lines = scan(folder / "in.csv"), scan(folder / "in.jsonl")
    return {
        "csv": text,
        "csv twice": text.union(text),
        "jsonl": lines,
        "jsonl twice": lines.union(lines),
        "renamed": text.rename({"a": "c"}),
        "sorted": lines.sort("a"),
        "renamed and twice": text.rename({"a": "c"}).union(text.rename({"a": "c"})),
    }


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "name",
    ["csv", "csv twice", "jsonl", "jsonl twice", "renamed", "sorted", "renamed and twice"],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_that_are_copied_are_counted(name: str, suffix: str, tmp_path: Path) -> None:
    manifest = copies(tmp_path)[name].sink(tmp_path / f"out.{suffix}").run("32MiB")
    rows = 4 if "twice" in name else 2
    assert (manifest.rows_in, manifest.rows_out) == (rows, rows)


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["sort", "--by", "k"], ["agg", "--by", "k", "count(*)"]])
def test_a_refused_run_prints_no_header(verb: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k,v\n1,2\n3\n")
    words = [verb[0], str(tmp_path / "in.csv"), "-", *verb[1:]]
    done = subprocess.run([EMSQRT, *words], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"line 3" in done.stderr


@pytest.mark.slow
def test_an_empty_answer_has_its_header(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k,v\n")
    words = ["sort", str(tmp_path / "in.csv"), "-", "--by", "k", "--quiet"]
    done = subprocess.run([EMSQRT, *words], capture_output=True, check=True)
    assert done.stdout == b"k,v\n"


BASE = Scan(Files(("in.csv",), "csv"), Schema.of(k="Int64"))
KEY = (SortKey(Column("k")),)


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (Filter, (BASE, "k > 25"), "Filter.predicate is an expression, not 'k > 25'"),
        (Filter, ("in.csv", Column("k")), "Filter.input is a plan, not 'in.csv'"),
        (Project, (BASE, "k"), "Project.columns is pairs of a name and an expression"),
        (Project, (BASE, (("x", "k"),)), "Project.columns"),
        (WithColumn, (BASE, (("x", "k + 1"),)), "WithColumn.columns"),
        (Aggregate, (BASE, (), (("n", "count(*)"),)), "Aggregate.aggs"),
        (Sort, (BASE, ("k",)), "Sort.keys is sort keys, not"),
        (TopK, (BASE, KEY, "5"), "TopK.count is a number of rows, not '5'"),
        (Limit, (BASE, 2.5), "Limit.count is a number of rows, not 2.5"),
        (Window, (BASE, ("k",), (), ()), "Window.partition_by"),
    ],
)
def test_a_node_made_of_the_wrong_things_is_refused(
    kind: Any, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        kind(*args)
    assert message in str(refused.value)
    assert refused.value.hint


def test_arguments_of_a_node_may_be_any_sequence() -> None:
    node: Plan = Sort(BASE, list(KEY))  # type: ignore[arg-type]
    assert node == Sort(BASE, KEY)


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_journal_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("checkpoints")
    kept = Checkpoint(root, "one", {"plan": "p", "inputs": []})
    kept.page(0).save(10, [], complete=False)
    journal = kept.folder / "journal"
    whole = journal.read_bytes()
    kept.close()
    cut = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(max_size=4))
    kept.folder.mkdir(parents=True)
    if (damaged := whole[:cut] + noise + whole[cut + 1 :]) == whole:
        return
    journal.write_bytes(damaged)
    with pytest.raises(UsageError, match="the journal of the run one is damaged"):
        Checkpoint(root, "one", {"plan": "p", "inputs": []})


def test_a_run_with_a_damaged_journal_names_the_file_to_remove(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k\n2\n1\n")
    left = tmp_path / "spill" / "checkpoints" / "nightly"
    left.mkdir(parents=True)
    (left / "journal").write_text('{"v": 2, "facts"')
    plan = scan(tmp_path / "in.csv").sort("k").sink(tmp_path / "out.csv").plan
    with pytest.raises(UsageError, match="is damaged") as refused:
        Engine(EngineConfig(spill_dir=tmp_path / "spill")).run(plan, resume="nightly")
    assert str(left) in (refused.value.hint or "")
