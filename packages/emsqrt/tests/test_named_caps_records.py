"""Records of MiB among short ones: the caps that refusals name are some times the longest record."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from smallest_runs import Watcher

from emsqrt import Engine, EngineConfig, scan
from emsqrt.pipeline import Pipeline
from sennit_core.errors import CapTooSmall
from sennit_core.schema import Schema
from sennit_core.units import MIB

Verb = Callable[[Pipeline, Pipeline], Pipeline]
LONG_BYTES = 3 * MIB
ROWS = 3000
SCHEMAS = {"a": Schema.of(k="Int64", g="Int64", t="Utf8"), "b": Schema.of(k="Int64", u="Int64")}
TEXT_FLOOR, TEXT_FIRST = 13 * MIB, 12 * MIB
VERBS: dict[str, tuple[Verb, int]] = {
    "scan": (lambda a, b: a.select("t", "k"), 5),
    "sort": (lambda a, b: a.sort("k"), 9),
    "sort by text": (lambda a, b: a.sort("t", "k"), 14),
    "top": (lambda a, b: a.top_k(40, "k"), 9),
    "count by text": (lambda a, b: a.group_by("t").agg(n="count(*)"), 21),
    "max": (lambda a, b: a.group_by("g").agg(m="max(t)"), 23),
    "different": (lambda a, b: a.group_by("g").agg(n="count(distinct t)"), 31),
    "distinct": (lambda a, b: a.distinct(), 21),
    "join": (lambda a, b: a.join(b, "k"), 20),
    "join by text": (lambda a, b: a.join(a.select("t", "g"), "t"), 33),
    "sort of a join": (lambda a, b: a.join(b, "k").sort("u"), 30),
}
"""Each with the most that may be named: so many of the longest record above the floor."""
ARROW_FLOOR, ARROW_FIRST = 64 * MIB, 40 * MIB
ARROW: dict[str, tuple[Verb, int]] = {
    "sort": (VERBS["sort"][0], 23),
    "sort by text": (VERBS["sort by text"][0], 26),
    "count by text": (VERBS["count by text"][0], 32),
    "join": (VERBS["join"][0], 32),
    "window": (lambda a, b: a.window("g", "k", n="row_number()"), 28),
}
ARROW_FEW = [("sort", "plain.parquet"), ("join", "coded.parquet"), ("window", "csv")]
ARROW_MANY = [
    *((name, "plain.parquet") for name in ARROW if name != "sort"),
    ("sort", "coded.parquet"),
    ("sort", "csv"),
    ("sort", "jsonl"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables, of which one has three long texts, that hardly compress."""
    folder, dice = tmp_path_factory.mktemp("records"), random.Random(4)
    keys = dice.sample(range(ROWS), ROWS)
    texts = [f"some {dice.randrange(ROWS)} words" for _ in keys]
    for at in (ROWS // 3, ROWS // 2, ROWS - 7):
        texts[at] = dice.randbytes(LONG_BYTES // 2).hex()
    rows: dict[str, list[dict[str, object]]] = {
        "a": [{"k": k, "g": k % 40, "t": t} for k, t in zip(keys, texts, strict=True)],
        "b": [{"k": k, "u": 2 * k} for k in keys[::2]],
    }
    for name, table in rows.items():
        lines = [",".join(map(str, row.values())) for row in table]
        (folder / f"{name}.csv").write_text("\n".join([",".join(table[0]), *lines, ""]))
        for way, coded in (("plain", False), ("coded", True)):
            made = pa.Table.from_pylist(table)
            parquet.write_table(made, folder / f"{name}.{way}.parquet", use_dictionary=coded)
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in table))
    return folder


def pipeline(verb: Verb, kind: str, folder: Path, target: Path) -> Pipeline:
    a, b = (scan(folder / f"{name}.{kind}", schema=of) for name, of in SCHEMAS.items())
    return verb(a, b).sink(target)


def named_cap(made: Pipeline, first: int, config: EngineConfig) -> int:
    """Return the cap that the one refusal names; a run under it is kept to it."""
    cap_bytes = first
    with Engine(config) as engine:
        try:
            engine.run(made.plan, mem_cap=cap_bytes)
        except CapTooSmall as error:
            cap_bytes = error.needed_bytes
    with Watcher() as watcher:
        Engine(config).run(made.plan, mem_cap=cap_bytes)
    assert 0 < watcher.peak_bytes <= cap_bytes
    return cap_bytes


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "csv") for name in VERBS), *((name, "jsonl") for name in ("scan", "sort", "join"))],
)
def test_text_is_named_some_times_its_longest_record(
    name: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    verb, times = VERBS[name]
    target = tmp_path / f"out.{kind}"
    made = pipeline(verb, kind, folder, target)
    config = EngineConfig(spill_dir=tmp_path / "spill")
    named = named_cap(made, TEXT_FIRST, config)
    more = 6 if kind == "jsonl" else 0  # lines are parsed in buffers of their own, at both ends
    assert named < TEXT_FLOOR + (times + more) * LONG_BYTES
    found = target.read_bytes()
    Engine(config).run(made.plan, mem_cap=512 * MIB)
    assert target.read_bytes() == found


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "kind"),
    [*ARROW_FEW, *(pytest.param(*run, marks=pytest.mark.nightly) for run in ARROW_MANY)],
)
def test_parquet_is_named_some_times_its_longest_record(
    name: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    verb, times = ARROW[name]
    target = tmp_path / "out.parquet"
    made = pipeline(verb, kind, folder, target)
    config = EngineConfig(spill_dir=tmp_path / "spill")
    named = named_cap(made, ARROW_FIRST, config)
    more = 6 if kind == "jsonl" else 0  # a line needs three more copies in memory than a CSV record
    assert named < ARROW_FLOOR + (times + more) * LONG_BYTES
    found = target.read_bytes()
    Engine(config).run(made.plan, mem_cap=512 * MIB)
    assert target.read_bytes() == found
