"""Verbs of a pipeline on a real node answer what plain Python answers for the same rows."""

from __future__ import annotations

import csv
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from elytra import Elytra, Pipeline, SendOptions
from sennit_core.errors import SennitError, Unsupported

ROWS = [
    {"id": n, "km": n * 37 % 1009, "delay": None if n % 11 == 0 else n % 23 - 9, "fare": n % 7 * 0.25,
     "carrier": ("UA", "AA", "B6", None)[n * 7 % 4]}
    for n in range(3000)
]  # fmt: skip


@pytest.fixture(scope="module")
def trips(shared_node: Any, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The rows as a dataset of several shards, uploaded as CSV."""
    path = tmp_path_factory.mktemp("trips") / "pytrips.csv"
    for begin in range(0, len(ROWS), 1000):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS[begin : begin + 1000])
        mode = "create" if begin == 0 else "append"
        options = SendOptions(mode=mode)
        shared_node.client.upload(path, options=options).job.wait(30)
    return Elytra(shared_node.client).remote("pytrips")


class Row(dict[str, Any]):
    __getattr__ = dict.__getitem__


def python_rows() -> list[Any]:
    return [Row(row) for row in ROWS]


def answered(pipeline: Pipeline) -> list[Any]:
    rows = pipeline.collect().rows
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows


MAPS: list[Callable[[Any], Any]] = [
    lambda r: r.km * 2,
    lambda r: r["km"] // -7,
    lambda r: r.delay == None,  # noqa: E711
    lambda r: r.delay != 3,
    lambda r: (r.id - 1500) % 7,
    lambda r: (r.id - 1500) // 7,
    lambda r: r.km / 8,
    lambda r: (r.id, r.km > 500),
    lambda r: (r.carrier == "UA") & (r.km > 100),
]


@pytest.mark.sample(3)
@pytest.mark.slow
@pytest.mark.parametrize("fn", MAPS, ids=range(len(MAPS)))
def test_a_map_returns_what_python_returns(trips: Pipeline, fn: Callable[[Any], Any]) -> None:
    assert answered(trips.map(fn)) == [fn(row) for row in python_rows()]


def test_a_filter_after_a_map_works_on_the_value(trips: Pipeline) -> None:
    ours = trips.map(lambda r: r.km * 5).filter(lambda v: v > 4000).map(lambda v: v - 1)
    assert answered(ours) == [r.km * 5 - 1 for r in python_rows() if r.km * 5 > 4000]


@pytest.mark.slow
def test_a_filter_keeps_the_rows_that_python_keeps(trips: Pipeline) -> None:
    conditions: list[Callable[[Any], Any]] = [
        lambda r: r.delay != 3,
        lambda r: r.delay == None,  # noqa: E711
        lambda r: (r.carrier != "UA") & (r.km > 900),
        lambda r: (r.id - 1500) % 7 == 3,
    ]
    for fn in conditions:
        ours = trips.filter(fn).select("id")
        assert answered(ours) == [r.id for r in python_rows() if fn(r)]


def test_a_tuple_is_unpacked_by_the_next_function(trips: Pipeline) -> None:
    ours = (
        trips.map(lambda r: (r.id, r.km)).filter(lambda t: t[1] > 1000).map(lambda t: t[0] + t[1])
    )
    pairs = [(r.id, r.km) for r in python_rows()]
    assert answered(ours) == [t[0] + t[1] for t in pairs if t[1] > 1000]


FOLDS: list[tuple[Callable[[Any, Any], Any], Any]] = [
    (lambda a, b: a + b, 0),
    (lambda a, b: a + b, 100),
    (lambda a, b: a - b, 5),
    (lambda a, b: a + b * 2 + 1, 7),
    (lambda n, _: n + 1, 0),
    (min, 3),
    (max, 3),
    (max, 1 << 40),
    (lambda a, b: min(a, b), -4),
]


@pytest.mark.slow
@pytest.mark.sample(6)
@pytest.mark.parametrize("at", range(len(FOLDS)))
@pytest.mark.parametrize("above", [0, 5000], ids=["rows", "no rows"])
def test_a_fold_with_an_initial_value_is_pythons(trips: Pipeline, at: int, above: int) -> None:
    fold, initial = FOLDS[at]
    ours = trips.filter(lambda r: r.km > above).map(lambda r: r.km).reduce(fold, initial)
    values = [r.km for r in python_rows() if r.km > above]
    assert ours.collect().value == functools.reduce(fold, values, initial)


@pytest.mark.slow
def test_a_fold_of_rows_begins_with_its_initial_value(trips: Pipeline) -> None:
    def fold(total: Any, r: Any) -> Any:
        return total + r.km * r.id

    assert trips.reduce(fold, 10).collect().value == functools.reduce(fold, python_rows(), 10)
    assert trips.reduce(lambda a, b: a + b, column="km").collect().value == sum(
        r.km for r in python_rows()
    )
    assert trips.map(lambda r: r.fare).reduce(lambda a, b: a + b, 0.5).collect().value == 0.5 + sum(
        r.fare for r in python_rows()
    )


def test_a_division_by_zero_fails_the_job(trips: Pipeline) -> None:
    with pytest.raises(SennitError, match="ZeroDivisionError"):
        trips.map(lambda r: 1 / r.fare).collect()


@pytest.mark.slow
def test_answers_are_written_to_files(trips: Pipeline, tmp_path: Path) -> None:
    some = trips.filter("km > 1000").select("id", "carrier", "fare")
    expected = [r for r in python_rows() if r.km > 1000]

    with some.write_csv(tmp_path / "a.csv").open(newline="") as file:
        assert [int(row["id"]) for row in csv.DictReader(file)] == [r.id for r in expected]
    lines = some.write_json(tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": r.id, "carrier": r.carrier, "fare": r.fare} for r in expected
    ]
    assert pq.read_table(some.write_parquet(tmp_path / "a.parquet")).num_rows == len(expected)
    nothing = trips.filter("km > 5000").select("id").write_csv(tmp_path / "none.csv")
    assert nothing.read_text().strip() == '"id"'
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.csv", "a.jsonl", "a.parquet", "none.csv")
    ]


def test_a_file_that_cannot_hold_the_answer_is_not_left_behind(
    trips: Pipeline, tmp_path: Path
) -> None:
    with pytest.raises(SennitError):
        trips.map(lambda r: 1 / r.fare).write_csv(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_limit_and_cast(trips: Pipeline) -> None:
    assert answered(trips.take(2).cast({"id": "Utf8"}).select("id")) == ["0", "1"]


@pytest.mark.nightly
def test_a_missing_package_is_named_before_the_job_runs(
    trips: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trips.count().collect()
    for package, verb in (("pandas", "df"), ("polars", "pl")):
        monkeypatch.setitem(sys.modules, package, None)
        for source in (result, trips):
            with pytest.raises(ImportError, match=f"-m pip install {package}") as caught:
                getattr(source, verb)()
            assert isinstance(caught.value, Unsupported)
            assert sys.executable in str(caught.value)
