"""What the fluent builder of plans accepts, and how it reports mistakes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emsqrt import Engine, col, scan
from emsqrt.documents import read_document
from emsqrt.pipeline import Pipeline
from sennit_core.errors import BadInput, SennitError, UsageError
from sennit_core.schema import Schema

ROWS = scan("in.csv", schema=Schema.of(id="Int64", amount="Float64"))


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("mistaken", "words"),
    [
        (lambda: ROWS.top_k("amount", 2), "2 is no sort key"),  # type: ignore[arg-type]
        (lambda: ROWS.sort(3), "3 is no sort key"),  # type: ignore[arg-type]
        (lambda: ROWS.sort("id", "amount", descending=[True]), "has 1 values for 2 keys"),
        (lambda: ROWS.select(["id"]), r"\['id'\] is no column"),  # type: ignore[arg-type]
        (lambda: ROWS.join("b.csv", on="id"), "'b.csv' is no pipeline"),  # type: ignore[arg-type]
        (lambda: ROWS.union(["b.csv"]), "is no pipeline"),  # type: ignore[arg-type]
        (lambda: scan(["a.csv"]), r"\['a.csv'\] is no path"),  # type: ignore[arg-type]
        (lambda: scan("a.csv", schema={"id": "Int64"}), "is no schema"),  # type: ignore[arg-type]
        (lambda: ROWS.window(n="count(distinct id)"), r"^count\(distinct id\)"),
        (lambda: ROWS.window(n="sum(id) over (x)"), r"^sum\(id\) over \(x\)"),
        (
            lambda: ROWS.sink("a.csv").filter("id > 1").schema(),
            "a sink ends a plan: a filter cannot",
        ),
        (
            lambda: ROWS.sink("a.csv").limit(1).sink("b.csv").run(),
            "a sink ends a plan: a limit cannot",
        ),
        (lambda: ROWS.join(ROWS.sink("a.csv"), "id").sink("b.csv").run(), "a join cannot read"),
    ],
)
def test_a_mistake_is_reported_in_the_terms_of_the_caller(
    mistaken: Callable[[], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id,amount\n1,2.5\n")
    with pytest.raises(UsageError, match=words):
        mistaken()


@pytest.mark.slow
def test_a_share_beyond_one_is_shown_as_a_number(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    with pytest.raises(SennitError, match=r"2\.0 is not between 0 and 1"):
        scan(tmp_path / "in.csv").sample(2.0).collect()


@pytest.fixture
def people(tmp_path: Path) -> Pipeline:
    (tmp_path / "people.csv").write_text("name,age,city\nAnn,30,Oslo\nBen,25,Rome\nCid,41,Oslo\n")
    return scan(tmp_path / "people.csv")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Keeps its process, so that a test of several plans starts one."""
    with Engine() as opened:
        yield opened


@pytest.mark.slow
def test_words_of_other_dataframe_libraries_mean_the_same_here(
    people: Pipeline, engine: Engine
) -> None:
    def rows(pipeline: Pipeline) -> dict[str, list[Any]]:
        return pipeline.collect(engine=engine).to_pydict()  # type: ignore[no-any-return]

    twice = (col("age") * 2).alias("twice")
    assert people.count(engine=engine) == 3
    assert people.unique("city").count(engine=engine) == 2
    assert rows(people.sort("age").head(2))["name"] == ["Ben", "Ann"]
    made = people.select("name", twice).sort(col("twice").desc())
    assert rows(made) == {"name": ["Cid", "Ann", "Ben"], "twice": [82, 60, 50]}
    assert people.with_columns(twice, "age + 1 as next").schema().names[3:] == ("twice", "next")
    assert list(people.to_pandas(engine=engine)["age"]) == [30, 25, 41]
    assert rows(people.group_by("city").count())["count"] == [2, 1]
    grouped = people.group_by(col("city").alias("c")).agg(col("age").sum().alias("total"))
    assert rows(grouped) == {"c": ["Oslo", "Rome"], "total": [71, 25]}


@pytest.mark.slow
def test_an_order_may_be_an_argument_or_part_of_the_keys(people: Pipeline, engine: Engine) -> None:
    def names(rows: Pipeline) -> list[str]:
        return rows.collect(engine=engine)["name"].to_pylist()  # type: ignore[no-any-return]

    assert names(people.sort("age", descending=True)) == ["Cid", "Ann", "Ben"]
    assert names(people.sort("city", "age", descending=[False, True])) == ["Cid", "Ann", "Ben"]
    assert names(people.sort("city:desc", col("age").asc())) == ["Ben", "Ann", "Cid"]
    assert str(col("age").desc(nulls_first=True)) == "age desc nulls first"


def test_a_pipeline_is_shown_as_its_plan() -> None:
    shown = repr(ROWS.filter("id > 1").sort(col("amount").desc()))
    assert shown == "Pipeline\nsort by amount desc\n  filter id > 1\n    scan csv in.csv"


def test_expressions_and_groups_are_shown_as_they_are_written() -> None:
    adult = (col("age") > 25) & col("name").is_null()
    assert repr(adult) == "<Call age > 25 and name is null>"
    assert repr(col("age").desc()) == "<SortKey age desc>"
    assert repr((col("age") * 2).alias("twice")) == "<Named age * 2 as twice>"
    grouped = repr(ROWS.group_by("id", odd="id % 2"))
    assert grouped == "Grouped by id, id % 2 as odd\nscan csv in.csv"


def test_aggregates_may_be_named_in_their_text() -> None:
    named = ROWS.agg("sum(amount) as total", "count(*) AS n", "max(id)")
    assert named.schema().names == ("total", "n", "max_id")
    with pytest.raises(UsageError, match="amount is not an aggregate"):
        ROWS.agg("amount as a")


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.tsv", "OUT.TSV", "out.tsv.gz"])
def test_tabs_separate_the_fields_of_a_tsv(name: str, tmp_path: Path) -> None:
    rows = scan(_packed(tmp_path / f"in.{name}", "a\tb\n2\tx,y\n1\tz\n")).sort("a")
    target = tmp_path / name
    rows.sink(target).run()
    data = target.read_bytes()
    text = gzip.decompress(data) if name.endswith(".gz") else data
    assert text == b"a\tb\n1\tz\n2\tx,y\n"


@pytest.mark.slow
def test_an_explicit_delimiter_wins_over_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_text("a;b\n1;2\n")
    rows = scan(tmp_path / "in.tsv", delimiter=";")
    rows.sink(tmp_path / "out.tsv", delimiter="|").run()
    assert (tmp_path / "out.tsv").read_text() == "a|b\n1|2\n"


def _packed(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_a_document_in_json_may_be_its_steps_alone(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text(json.dumps([{"scan": "in.csv"}, {"limit": 3}, {"sink": "out.csv"}]))
    expected = scan("in.csv").limit(3).sink("out.csv").plan
    assert read_document(path).plan == expected


def read(text: str, folder: Path, **options: Any) -> Pipeline:
    (folder / "in.csv").write_text(text)
    return scan(folder / "in.csv", **options)


@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("\n\na,b\n1,2\n", {}, "an empty line where the first record is expected"),
        ("\n", {}, "an empty line where the first record is expected"),
        ("a;b\n1,5;2\n", {}, "line 2, byte 4.*2 fields, expected 1"),
        ("a,b\n1,2\n3\n", {}, "line 3, byte 8.*1 fields, expected 2"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named_by_line(
    text: str, options: dict[str, Any], words: str, tier: str, tmp_path: Path
) -> None:
    rows = read(text, tmp_path, **options)
    with pytest.raises(BadInput, match=words):
        rows.sort("a").sink(tmp_path / "out.csv").run(in_process=tier == "arrow")


def test_a_header_of_one_name_needs_the_delimiter(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read("a;b\n1,5;2\n", tmp_path).schema()
    assert caught.value.hint == "the header is one name, 'a;b': is ';' the delimiter?"
    with pytest.raises(BadInput) as caught:
        read("a,b\n1\n", tmp_path).schema()
    assert caught.value.hint == 'option badRows "reject" leaves such records out'


@pytest.mark.slow
def test_types_are_inferred_without_the_skipped_records(tmp_path: Path) -> None:
    ragged = 'a,b\n1,x\n2\n"3\n",y,z\n4,w\n5'
    rows = read(ragged, tmp_path, bad_rows="reject")
    assert rows.schema() == Schema.of(a="Int64", b="Utf8")
    assert rows.collect()["a"].to_pylist() == [1, 4]


@pytest.mark.parametrize(
    ("option", "value"),
    [("header", "no"), ("skip_rows", "1"), ("delimiter", 9), ("null_values", 0), ("comment", 1)],
)
def test_an_option_of_another_type_is_refused_by_name(
    option: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"cannot be {value!r}"):
        read("a\n1\n", tmp_path, **{option: value}).schema()


@pytest.mark.slow
def test_one_text_for_null_needs_no_list(tmp_path: Path) -> None:
    rows = read("a\nNA\n5\n", tmp_path, null_values="NA")
    assert rows.collect()["a"].to_pylist() == [None, 5]
