"""Repeated queries are answered from memory, and nothing else is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake import Lake
from lake.access.rules import ColumnRule, PolicyRule
from lake.routes.query import may_use_cache
from lake.sql.guard import check_statement
from lake.sql.volatility import volatile_names
from lake.statements.result_cache import CachedResult, ResultCache, result_key
from sennit_core.errors import NotFound, SennitError

from .served_lake import Client, make_app

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with Lake(tmp_path_factory.mktemp("lake"), cache_bytes=4 * MIB) as opened:
        opened.append("trips", pa.table({"id": range(1000), "km": [n / 4 for n in range(1000)]}))
        yield opened


@pytest.fixture
def lake(shared: Lake) -> Lake:
    for key in list(shared.result_cache._entries):
        shared.result_cache._remove(key)
    return shared


def use(lake: Lake, sql: str, **options: Any) -> tuple[str, bytes]:
    with lake.run(sql, **options) as execution:
        payload = b"".join(bytes(piece) for piece in execution.payloads())
        return execution.result()["cache"], payload


def test_a_repeated_query_is_answered_without_an_executor(lake: Lake) -> None:
    first = use(lake, "select count(*), sum(km) from trips")
    second = use(lake, "select count(*), sum(km) from trips")

    assert (first[0], second[0]) == ("miss", "hit")
    assert first[1] == second[1]
    assert lake.sql("select count(*) from trips").value == 1000
    again = lake.sql("select count(*) from trips")
    assert again.value == 1000
    assert again.manifest["cache"] == "hit"
    assert again.manifest["engine"] == "duckdb"
    assert again.manifest["inputs"] == [lake.catalog.get("trips").head]
    assert "repeatable" not in again.manifest
    with lake.run("select count(*) from trips") as execution:
        assert [batch.num_rows for batch in execution.batches()] == [1]
        assert execution.pid == 0


@pytest.mark.parametrize(
    "other",
    [
        {"params": [2]},
        {"params": [1.0]},
        {"params": [True]},
        {"params": ["1"]},
        {"params": [None]},
        {"format": "csv"},
        {"format": "json"},
        {"max_rows": 1},
        {"engine": "duckdb"},
    ],
    ids=str,
)
def test_a_request_that_differs_has_its_own_result(lake: Lake, other: dict[str, Any]) -> None:
    sql = "select id, ?::varchar as given from trips limit 3"
    request: dict[str, Any] = {"params": [1]}

    use(lake, sql, **request)
    different = use(lake, sql, **(request | other))
    direct = use(lake, sql, **(request | other), use_cache=False)

    assert different[0] == "miss"
    assert (direct[0], direct[1]) == ("bypass", different[1])
    assert use(lake, sql, **request)[0] == "hit"


def test_users_with_different_policies_share_no_result(lake: Lake) -> None:
    lake.append("mail", pa.table({"to": ["ada", "bob"], "text": ["canary4711", "for bob"]}))
    lake.set_policy("mail", [
        PolicyRule("eve", columns=(ColumnRule("text"),)),
        PolicyRule("mallory", read=False),
        PolicyRule("*", rows="\"to\" = current_user"),
    ])  # fmt: skip
    sql = "select * from mail"

    def ask(user: str) -> tuple[str, bytes]:
        return use(lake, sql, user=user, role="reader", format="csv")

    for user in ("ada", "bob", "eve", "ada", "bob", "eve"):
        cache, payload = ask(user)
        assert (b"canary4711" in payload) == (user == "ada")
    assert cache == "hit"
    with pytest.raises(NotFound):
        ask("mallory")

    lake.set_policy(
        "mail", [PolicyRule("ada", read=False), PolicyRule("bob")]
    )  # for all from now on
    with pytest.raises(NotFound):
        ask("ada")
    assert ask("bob") == ("miss", b"to,text\nada,canary4711\nbob,for bob\n")
    lake.delete("mail")


@pytest.mark.parametrize("clock", ["current_localtimestamp()", "ago(interval 1 day)", "now()"])
def test_a_policy_of_the_clock_is_refused(lake: Lake, clock: str) -> None:
    with pytest.raises(SennitError, match="another time"):
        lake.set_policy("trips", [PolicyRule("*", rows=f"{clock} > timestamptz '2020-01-01'")])


def test_whatever_an_executor_is_sent_is_part_of_the_key() -> None:
    table = {"name": "t", "id": "1", "snapshot": "2", "schema": {}, "paths": ["/x"]}
    members = {"sql": "from t", "params": None, "format": "json", "maxRows": 5, "tables": [table]}
    changes: list[dict[str, Any]] = [{name: "other"} for name in members]
    changes += [{"tables": [table | {name: "other"}]} for name in table]
    changes += [{"tables": [table | {"policy": "km < 10"}]}, {"tables": [table, table]}]

    keys = {result_key(members | change, "auto") for change in changes}

    assert len(keys) == len(changes)
    assert result_key(members, "auto") not in keys | {None}
    assert result_key(members | {"params": [object()]}, "auto") is None


def test_a_change_of_the_data_is_seen_at_once(lake: Lake) -> None:
    lake.append("grows", pa.table({"n": [1]}))
    sql = "select count(*) from grows"
    assert [lake.sql(sql).value for _ in range(2)] == [1, 1]

    lake.append("grows", pa.table({"n": [2]}))
    assert lake.sql(sql).value == 2
    lake.sql("delete from grows where n = 1")
    assert lake.sql(sql).value == 1
    old = lake.sql("select count(*) from grows at (version => 1)")
    assert (old.value, old.manifest["cache"]) == (1, "miss")
    lake.rollback("grows", 1)
    assert lake.sql("select n from grows").rows == [(1,)]
    lake.delete("grows")


def test_a_deleted_dataset_leaves_no_rows_in_the_cache(lake: Lake) -> None:
    lake.append("secret", pa.table({"word": ["canary4711"]}))
    use(lake, "select * from secret")
    use(lake, "select id from trips limit 1")
    assert len(lake.result_cache) == 2

    lake.sql("drop table secret")

    assert len(lake.result_cache) == 1
    with pytest.raises(NotFound):
        use(lake, "select * from secret")
    lake.append("secret", pa.table({"word": ["another"]}))
    assert lake.sql("select * from secret").rows == [("another",)]
    lake.delete("secret")


def test_expired_snapshots_leave_no_rows_in_the_cache(lake: Lake) -> None:
    lake.append("ages", pa.table({"word": ["canary4711"]}))
    use(lake, "select * from ages")
    lake.sql("delete from ages")

    lake.expire("ages", keep=1, older_than_seconds=0)

    assert len(lake.result_cache) == 0
    lake.delete("ages")


def test_a_dataset_that_is_deleted_while_it_is_read_is_not_kept(lake: Lake) -> None:
    lake.append("secret", pa.table({"word": ["canary4711"]}))

    with lake.run("select * from secret") as execution:
        payloads = execution.payloads()
        next(payloads)
        lake.delete("secret")
        list(payloads)

    assert len(lake.result_cache) == 0


VOLATILE = [
    "select random()", "select uuid()", "select uuidv7()", "select gen_random_uuid()",
    "select now()", "select current_timestamp", "select current_date", "select today()",
    "select CURRENT_TIME", "select localtimestamp", "select localtime", "select get_current_time()",
    "select current_localtimestamp()", "select transaction_timestamp()", "select txid_current()",
    "select age(timestamp '2020-01-01')", "select ago(interval 1 day)", "select pg_conf_load_time()",
    "select current_connection_id()", "select current_query()", "select current_query_id()",
    "select (random)()", 'select "RANDOM"()', "select main.random()", "select system.main.random()",
    "select [1].list_transform(lambda x: x + random())", "select 1 where random() > 2",
    "select id from trips order by random()", "with x as (select random()) from x",
    "select (select now())", "select 1 union all select random()", "from trips using sample 3",
    "from trips tablesample 10%", "from (select * from trips) tablesample reservoir(5)",
    "select count(*) filter (random() < 1) from trips", "select sum(id + random()) from trips",
    "select case when true then now() end", "values (random())", "from pg_timezone_names()",
    "pivot (select 1 as a, random() as b) on a in (1) using sum(b)",
    "select * exclude (id) replace (random() as km) from trips", "select columns(c -> true), now() from trips",
    "select id from trips group by id having random() < 2", "select id from trips qualify random() < 2",
    "select rank() over (order by random()) from trips", "select id from trips limit (select 1 + random())",
    "from trips t join trips u on random() < 2 and t.id = u.id", "describe select now()",
    "show tables", "from information_schema.tables", "explain from trips",
    "explain analyze from trips",
]  # fmt: skip


@pytest.mark.parametrize("sql", VOLATILE)
def test_what_may_differ_the_next_time_is_not_kept(sql: str) -> None:
    try:
        statement = check_statement(sql)
    except SennitError:
        return  # it is refused, so there is no result
    assert not statement.repeatable


@pytest.mark.parametrize(
    "sql",
    [
        "select 1", "select count(*), min(km), max(km) from trips", "from range(3)", "summarize trips",
        "select id, row_number() over (order by id) from trips", "describe trips",
        "select 'now()'", "select unnest([1, 2])", "select strftime(timestamp '2020-01-01', '%Y')",
        "select date_trunc('month', d) from (values (date '2020-02-03')) t(d)",
    ],
)  # fmt: skip
def test_what_is_the_same_every_time_is_kept(sql: str) -> None:
    assert check_statement(sql).repeatable


def test_a_volatile_query_runs_every_time(lake: Lake) -> None:
    results = [use(lake, "select random(), now()") for _ in range(3)]

    assert [cache for cache, _ in results] == ["miss"] * 3
    assert len({payload for _, payload in results}) == 3


def test_no_function_without_arguments_is_wrongly_taken_as_repeatable() -> None:
    """DuckDB calls some clocks consistent; a later version may add others."""

    def values() -> dict[str, str]:
        found = {}
        with duckdb.connect() as connection:
            rows = connection.execute(
                "select distinct function_name from duckdb_functions() where function_type in"
                " ('scalar', 'macro') and len(parameters) = 0 and function_name <> 'write_log'"
            ).fetchall()
            for (name,) in rows:
                try:
                    found[name] = repr(connection.execute(f'select "{name}"()').fetchall())
                except duckdb.Error as error:
                    found[name] = type(error).__name__
        return found

    before, after = values(), values()
    changing = {name for name in before if before[name] != after[name]}

    assert {"random", "current_localtimestamp"} <= changing
    assert changing <= volatile_names()


def test_large_and_failed_and_foreign_results_are_not_kept(lake: Lake) -> None:
    assert [use(lake, "from range(200000)")[0] for _ in range(2)] == ["miss"] * 2
    for _ in range(2):
        with pytest.raises(SennitError):
            use(lake, "select error('no') from trips")
    with lake.run("select id from trips") as execution:  # its result is never read
        execution.result()
    sql = "select count(*) from trips"
    assert [use(lake, sql, engine="emsqrt")[0] for _ in range(2)] == ["miss"] * 2
    assert len(lake.result_cache) == 0


def test_many_columns_count_towards_the_memory(lake: Lake) -> None:
    columns = ", ".join(f"{number} as c{number}" for number in range(12000))

    use(lake, f"select {columns} limit 0", format="csv")

    assert len(lake.result_cache) == 0


def test_half_a_result_is_not_kept(lake: Lake) -> None:
    with lake.run("select id from trips") as execution:
        next(execution.payloads())
    assert len(lake.result_cache) == 0


def result(size: int, *datasets: str) -> CachedResult:
    return CachedResult.of(b"x" * size, {}, frozenset(datasets))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20_000), st.booleans()), max_size=80))
def test_the_cache_stays_within_its_memory(steps: list[tuple[int, int, bool]]) -> None:
    cache = ResultCache(64 << 10)
    model: dict[bytes, int] = {}
    for number, size, drops in steps:
        key = b"%d" % number
        if drops:
            cache.drop_dataset(str(number % 5))
            model = {k: s for k, s in model.items() if int(k) % 5 != number % 5}
        else:
            cache.put(key, result(size, str(number % 5)), lambda _: True)
            model.pop(key, None)
            model[key] = size
        kept = {k for k in model if cache.find(k) is not None}
        model = {k: s for k, s in model.items() if k in kept}

        assert len(cache) == len(kept)
        assert cache.memory_bytes == sum(result(size, "x").memory_bytes for size in model.values())
        assert cache.memory_bytes <= 64 << 10
        assert drops or key in kept


def test_threads_share_the_cache() -> None:
    cache = ResultCache(1 << 20)

    def work(seed: int) -> None:
        for number in range(300):
            cache.put(b"%d" % (seed * number % 97), result(5000, str(number % 7)), lambda _: True)
            cache.find(b"%d" % (number % 97))
            if number % 10 == 0:
                cache.drop_dataset(str(number % 7))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for dataset in range(7):
        cache.drop_dataset(str(dataset))
    assert (len(cache), cache.memory_bytes) == (0, 0)


def test_http_says_where_the_result_came_from(lake: Lake) -> None:
    client = Client(make_app(lake))

    def ask(**headers: str) -> tuple[str, Any]:
        body = {"sql": "select count(*) as n from trips"}
        response = client.post("/api/query", json=body, headers=headers)
        return response.headers["Sennit-Cache"], response.json()

    answers = [ask(), ask(), ask(**{"Cache-Control": "no-cache"}), ask(Accept="*/*")]

    assert [cache for cache, _ in answers] == ["miss", "hit", "bypass", "hit"]
    assert len({str(body) for _, body in answers}) == 1
    change = client.post("/api/query", json={"sql": "create table made as select 1 as a"})
    assert "Sennit-Cache" not in change.headers
    lake.delete("made")


@pytest.mark.parametrize(
    ("header", "may"),
    [
        ("", True), ("max-age=60", True), ("no-cache", False), ("No-Cache", False),
        ("max-age=0, no-store", False), ('no-cache="x"', False), ("xno-cache", True), (",,;=", True),
    ],
)  # fmt: skip
def test_the_header_that_bypasses_the_cache(header: str, may: bool) -> None:
    assert may_use_cache(header) is may


def test_a_lake_without_a_cache_bypasses_it(tmp_path: Path) -> None:
    with Lake(tmp_path) as plain:
        assert [use(plain, "select 1")[0] for _ in range(2)] == ["bypass"] * 2
