"""Records far longer than a block, through every operator over text, where memory is plenty."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from emsqrt import Engine, EngineConfig, scan
from emsqrt.pipeline import Pipeline
from sennit_core.errors import BadInput, CapTooSmall
from sennit_core.schema import Schema

LONG = 3 << 20
SCHEMA = Schema.of(n="Int64", s="Utf8")
ROWS = [(1, "x" * LONG), (2, "short"), (1, "y" * (LONG - 1)), (3, "a"), (2, "z" * (1 << 19))]
Verb = Callable[[Pipeline], Pipeline]
VERBS: dict[str, tuple[Verb, str]] = {
    "select": (lambda rows: rows.select("s", "n"), "select s, n from t"),
    "filter": (lambda rows: rows.filter("n < 3"), "from t where n < 3"),
    "filter by text": (lambda rows: rows.filter("s > 'short'"), "from t where s > 'short'"),
    "compute": (lambda rows: rows.with_column("m", "n + 1"), "select *, n + 1 as m from t"),
    "limit": (lambda rows: rows.limit(3), "from t limit 3"),
    "sort": (lambda rows: rows.sort("n"), "from t order by n"),
    "sort by text": (lambda rows: rows.sort("s"), "from t order by s"),
    "filtered sort": (lambda rows: rows.filter("n < 3").sort("n"), "from t where n < 3 order by n"),
    "count by text": (lambda rows: rows.group_by("s").agg(c="count(*)"), "select s, count(*) from t group by s"),
    "extremes": (lambda rows: rows.group_by("n").agg(a="min(s)", z="max(s)"), "select n, min(s), max(s) from t group by n"),
    "different": (lambda rows: rows.group_by("n").agg(c="count(distinct s)"), "select n, count(distinct s) from t group by n"),
    "distinct": (lambda rows: rows.distinct(), "select distinct * from t"),
    "join": (lambda rows: rows.join(rows.select("n"), "n"), "from t join (select n from t) using (n)"),
}  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(mem_cap_bytes=320 << 20))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    (folder / "in.csv").write_text("n,s\n" + "".join(f"{n},{s}\n" for n, s in ROWS))
    lines = (f'{{"n":{n},"s":"{s}"}}\n' for n, s in ROWS)
    (folder / "in.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("verb", "kind"),
    [*((verb, "csv") for verb in VERBS), *((verb, "jsonl") for verb in ("filter by text", "sort"))],
)
def test_long_records_pass(
    verb: str, kind: str, files: Path, tmp_path: Path, engine: Engine
) -> None:
    build, query = VERBS[verb]
    target = tmp_path / f"out.{kind}"
    manifest = build(scan(files / f"in.{kind}", schema=SCHEMA)).sink(target).run(engine=engine)
    read = {"csv": "read_csv(?, max_line_size=8388608)", "jsonl": "read_json(?)"}[kind]
    reference = duckdb.connect()
    reference.execute(f"create table t as from {read}", [str(files / f"in.{kind}")])
    wanted = reference.execute(query).fetchall()
    assert manifest.rows_out == len(wanted)
    assert sorted(reference.execute(f"from {read}", [str(target)]).fetchall()) == sorted(wanted)


@pytest.mark.slow
def test_a_record_too_long_for_the_cap_is_refused_until_one_works(
    files: Path, tmp_path: Path, engine: Engine
) -> None:
    rows = scan(files / "in.csv").filter("n < 3").sink(tmp_path / "out.csv")
    caps, manifest = [24 << 20], None
    while manifest is None:
        try:
            manifest = rows.run(caps[-1], engine=engine)
        except CapTooSmall as refused:
            assert not (tmp_path / "out.csv").exists()
            caps.append(refused.needed_bytes)
    assert 2 <= len(caps) <= 4
    assert caps == sorted(caps)
    assert caps[-1] < 640 << 20


@pytest.mark.parametrize("codec", ["", ".gz"])
def test_columns_are_read_from_a_long_first_line(
    codec: str, tmp_path: Path, engine: Engine
) -> None:
    line = json.dumps({"n": 1, "s": "x" * LONG}) + "\n" + json.dumps({"n": 2, "s": None})
    source, target = tmp_path / f"in.jsonl{codec}", tmp_path / "out.jsonl"
    source.write_bytes(gzip.compress(line.encode()) if codec else line.encode())
    assert scan(source).sort("n:desc").sink(target).run(engine=engine).rows_out == 2
    assert json.loads(target.read_text().splitlines()[1]) == {"n": 1, "s": "x" * LONG}


def test_a_first_line_without_an_end_is_refused(tmp_path: Path, engine: Engine) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"s":"' + bytes(33 << 20))
    with pytest.raises(BadInput, match=r"first line is over 5\.0 MiB"):
        scan(source).sink(tmp_path / "out.jsonl").run(engine=engine)
