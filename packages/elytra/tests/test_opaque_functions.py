"""Python functions that are not traced: called with rows, in the caller's process only."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from elytra import Elytra, StepFailed
from elytra.local.session import LocalElytra
from elytra.pipelines.pipeline import Pipeline
from sennit_core.errors import Unsupported, UsageError


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalElytra]:
    with Elytra.local("128MiB", tmp_path_factory.mktemp("spill")) as session:
        yield session


@pytest.fixture
def people(local: LocalElytra) -> Pipeline:
    return local.dataset(
        [{"id": 1, "name": "Ada"}, {"id": 2, "name": None}, {"id": 3, "name": "Bo"}]
    )


def test_functions_see_rows_as_traced_ones_do(people: Pipeline) -> None:
    def label(row: Any) -> dict[str, Any]:
        return {"id": row["id"], "label": row.name.upper() if row.name is not None else "?"}

    labels = people.map(label, opaque=True)

    assert labels.collect().rows == [(1, "ADA"), (2, "?"), (3, "BO")]
    assert labels.filter("id > 1").count().collect().value == 2


def test_a_later_function_receives_what_the_former_returned(people: Pipeline) -> None:
    pairs = people.map(lambda r: (r.id, r.id**2), opaque=True)

    assert pairs.map(lambda t: t[0] + t[1]).collect().rows == [(2,), (6,), (12,)]
    assert pairs.map(lambda t: sum(t), opaque=True).sum().collect().value == 20


def test_flat_map_makes_a_row_of_each_item(people: Pipeline, local: LocalElytra) -> None:
    assert people.flat_map(lambda r: range(r.id), opaque=True).collect().rows == [
        *((0,), (0,), (1,), (0,), (1,), (2,))
    ]
    lists = local.dataset({"tags": [["a", "b"], [], None, ["c"]]})
    assert lists.flat_map(lambda r: r.tags).collect().rows == [("a",), ("b",), ("c",)]


def test_filters_and_folds_have_pythons_meaning(people: Pipeline) -> None:
    assert people.filter(lambda r: r.name and r.id < 3, opaque=True).collect().rows == [(1, "Ada")]
    assert people.reduce(lambda n, r: n * 10 + r.id, 0, opaque=True).collect().value == 123


def test_map_batches_receives_tables_in_each_form(people: Pipeline) -> None:
    assert people.map_batches(lambda b: {"n": [b.num_rows]}, batch_rows=2).collect().rows == [
        (2,),
        (1,),
    ]
    tripled = people.map_batches(lambda df: df.assign(id=df.id * 3), form="pandas")
    assert tripled.sum("id").collect().value == 18
    assert people.map_batches(lambda df: df.head(1), form="polars").count().collect().value == 1


def test_a_declared_schema_calls_nothing_before_the_run(people: Pipeline) -> None:
    calls: list[int] = []

    def number(row: Any) -> int:
        calls.append(row.id)
        return calls[-1]

    ids = people.map(number, opaque=True, schema="Int64")
    assert calls == []

    assert ids.sum().collect().value == 6
    assert calls == [1, 2, 3]


def test_a_failing_function_names_its_step_and_row(people: Pipeline) -> None:
    def half(row: Any) -> Any:
        return 1 / (row.id - 3)

    failing = people.filter("id > 1").map(half, opaque=True, schema="Float64")
    with pytest.raises(StepFailed) as caught:
        failing.collect()
    assert (caught.value.step, caught.value.row) == ("step 2, map(half)", 1)
    assert "ZeroDivisionError" in str(caught.value)


def test_a_value_that_does_not_fit_names_its_column(people: Pipeline) -> None:
    mixed = people.map(
        lambda r: {"a": r.id, "b": r.name or 5}, opaque=True, schema={"a": "Int64", "b": "Utf8"}
    )
    with pytest.raises(StepFailed) as caught:
        mixed.collect()
    assert (caught.value.row, caught.value.column) == (1, "b")


@pytest.mark.parametrize(
    "function",
    [lambda r: {"a": 1} if r.id < 3 else {"b": 1}, lambda r: r.id if r.id < 3 else {"value": 1}],
    ids=["names", "forms"],
)
def test_rows_of_another_form_than_the_first_are_refused(people: Pipeline, function: Any) -> None:
    with pytest.raises(StepFailed):
        people.map(function, opaque=True).collect()


def test_without_rows_the_columns_must_be_declared(people: Pipeline) -> None:
    none = people.filter("id > 9")
    with pytest.raises(UsageError, match="returned no row"):
        none.map(lambda r: r.id, opaque=True)
    assert none.map(lambda r: r.id, opaque=True, schema="Int64").collect().rows == []


@pytest.mark.parametrize("returned", [5, "text", None], ids=str)
def test_what_is_no_table_or_no_list_is_refused(people: Pipeline, returned: Any) -> None:
    with pytest.raises(StepFailed):
        people.map_batches(lambda _: returned)
    with pytest.raises(StepFailed):
        people.flat_map(lambda _: returned, opaque=True)


def test_a_node_gets_no_functions(flights: Pipeline, drawer: Any) -> None:
    def function(*_: Any) -> None: ...

    for verb, options in (
        *((verb, {"opaque": True}) for verb in ("map", "flat_map", "filter", "reduce")),
        ("map_batches", {}),
    ):
        with pytest.raises(Unsupported, match=r"only in Elytra\.local"):
            getattr(flights, verb)(function, **options)
    with pytest.raises(Unsupported, match=r"only in Elytra\.local"):
        flights.cache()
    assert drawer.submitted == []


def test_rows_beyond_one_piece_keep_their_order(local: LocalElytra) -> None:
    many = local.dataset(pa.table({"x": range(20_001)}))

    doubled = many.map(lambda r: r.x * 2, opaque=True).to_arrow().column(0).to_pylist()

    assert doubled == list(range(0, 40_002, 2))
