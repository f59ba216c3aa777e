"""Upserts into a dataset to which others append all the time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake import Lake
from lake.writes.upsert_execution import UPSERT_ATTEMPTS
from sennit_core.errors import Conflict, SennitError

ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=8)


def table(rows: list[tuple[int, int]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), ()]
    return pa.table({"id": pa.array(columns[0], "i8"), "v": pa.array(columns[1], "i8")})


@contextmanager
def overtaken(lake: Lake, changes: list[Any]) -> Iterator[list[dict[str, Any]]]:
    """Run one change before each attempt to commit; yield the responses of the attempts."""
    answers: list[dict[str, Any]] = []
    waiting = list(changes)
    commit = lake._writer.commit

    def late(answer: dict[str, Any], origin: Any) -> Any:
        if origin.statement.startswith("upsert"):
            answers.append(answer)
            if waiting:
                waiting.pop(0)()
        return commit(answer, origin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake._writer, "commit", late)
        yield answers


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.lists(ROWS, max_size=2),
    later=st.lists(ROWS, min_size=1, max_size=3),
    new=st.dictionaries(st.integers(0, 12), st.integers(100, 199), max_size=8),
)
def test_rows_that_are_appended_meanwhile_are_replaced_too(
    lake: Lake, base: list[Any], later: list[Any], new: dict[int, int]
) -> None:
    lake.sql("CREATE OR REPLACE TABLE d (id TINYINT, v TINYINT)")
    lake.sql("ALTER TABLE d ALTER v TYPE INTEGER")
    for rows in base:
        lake.append("d", table(rows))
    data = pa.table({"id": pa.array(list(new), "i8"), "v": pa.array(list(new.values()), "i4")})
    with overtaken(lake, [lambda rows=rows: lake.append("d", table(rows)) for rows in later]):
        lake.upsert("d", data, key=["id"])
    there = [row for rows in [*base, *(later if new else [])] for row in rows]
    expected = Counter((key, new.get(key, value)) for key, value in there)
    known = {key for key, _ in there}
    expected.update((key, value) for key, value in new.items() if key not in known)
    assert Counter(lake.sql("FROM d").rows) == expected


def test_only_what_was_appended_is_read_again(lake: Lake) -> None:
    lake.append("d", table([(1, 1), (2, 2)]))
    with overtaken(lake, [lambda: lake.append("d", table([(3, 3)]))]) as answers:
        lake.upsert("d", table([(2, 22), (3, 33), (4, 44)]), key=["id"])
    assert lake.sql("FROM d").rows == [(1, 1), (2, 22), (3, 33), (4, 44)]
    first, second = answers
    # The shard of the first merge is committed by the second attempt too.
    assert second["rewritten"][0] == first["rewritten"][0]
    assert lake.verify().findings == ()
    assert list(lake.staging.iterdir()) == []


def test_another_change_repeats_the_whole_and_the_last_attempt_gets_through(lake: Lake) -> None:
    lake.append("d", table([(1, 1), (2, 2)]))
    change = "UPDATE d SET v = v + 1 WHERE id = 1"
    with overtaken(lake, [lambda: lake.sql(change)] * (UPSERT_ATTEMPTS - 1)) as answers:
        lake.upsert("d", table([(2, 22)]), key=["id"])
    assert len(answers) == UPSERT_ATTEMPTS
    assert lake.sql("FROM d").rows == [(1, UPSERT_ATTEMPTS), (2, 22)]
    with (
        overtaken(lake, [lambda: lake.sql(change)] * UPSERT_ATTEMPTS),
        pytest.raises(Conflict, match="in the meantime"),
    ):
        lake.upsert("d", table([(2, 23)]), key=["id"])
    assert list(lake.staging.iterdir()) == []


@pytest.mark.slow
def test_an_upsert_commits_under_a_steady_stream_of_appends(lake: Lake) -> None:
    rows = 20_000
    lake.sql(f"CREATE TABLE d AS SELECT range AS id, 0 AS v FROM range({rows})")
    errors: list[SennitError] = []
    ended = threading.Event()
    appended = [0, 0, 0]

    def append(writer: int) -> None:
        while not ended.is_set():
            try:
                key = (writer + 1) * 10_000_000 + appended[writer]
                lake.sql(f"INSERT INTO d VALUES ({key}, -1)")
                appended[writer] += 1
            except SennitError as error:
                errors.append(error)

    threads = [threading.Thread(target=append, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    try:
        for step in range(1, 6):
            ids = pa.array(range(0, 2 * rows, 10), "i8")
            lake.upsert(
                "d", pa.table({"id": ids, "v": pa.array([step] * len(ids), "i4")}), key=["id"]
            )
    finally:
        ended.set()
        for thread in threads:
            thread.join()

    assert errors == []
    assert lake.sql("SELECT count(*), count(*) FILTER (v = 5) FROM d WHERE v <> -1").rows == [
        (rows + rows // 10, rows // 5)
    ]
    assert lake.sql("SELECT count(DISTINCT id) FROM d WHERE v = -1").value == sum(appended)
    assert lake.verify().findings == ()
