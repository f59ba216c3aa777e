"""Documents of steps: both styles, variables, inputs, settings, and errors with their place."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import pytest

from emsqrt.documents import BadDocument, Document, document_schema, read_document, steps_to_plan
from emsqrt.pipeline import Pipeline, scan
from sennit_core.errors import TooLarge, UsageError
from sennit_core.schema import Schema
from sennit_core.testing import run_markdown

Read: TypeAlias = Callable[..., Document]
SCHEMA = Schema.of(uid="Utf8", amount="Float64", n="Int64")
HEAD = """
steps:
- scan: {source: a.csv, schema: {uid: Utf8, amount: Float64, n: Int64}}
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def reading(text: str, **options: Any) -> Document:
        Path("flow.yaml").write_text(text)
        return read_document("flow.yaml", **options)

    return reading


def rows() -> Pipeline:
    return scan("a.csv", schema=SCHEMA)


ORIGINAL = """
steps:
  - scan:
      source: "data/logs.csv"
      schema:
        - { name: "ts", type: "Utf8", nullable: false }
        - { name: "uid", type: "Utf8", nullable: false }
        - { name: "amount", type: "Float64", nullable: true }

  - filter:
      expr: "amount > 1000"

  - aggregate:
      group_by: ["uid"]
      aggs: ["COUNT(*)", "SUM(amount)"]

  - sort:
      by: ["uid", "sum_amount"]

  - sink:
      destination: "results/summary.csv"
      format: "csv"
"""
SAME_PLAN = """
steps:
- op: scan
  source: data/logs.csv
  schema: [{name: ts, type: Utf8, nullable: false}, {name: uid, type: Utf8, nullable: false},
           {name: amount, type: Float64}]
- {op: filter, expr: amount > 1000}
- op: aggregate
  group_by: uid
  aggs: [COUNT(*), SUM(amount)]
- op: sort
  by: [uid, sum_amount]
- op: sink
  destination: results/summary.csv
"""


def test_both_styles_of_a_step_mean_the_same(read: Read) -> None:
    assert read(ORIGINAL).plan == read(SAME_PLAN).plan
    assert read(ORIGINAL).plan.__class__.__name__ == "Sink"


VERBS: list[tuple[str, Callable[[Pipeline], Pipeline]]] = [
    ("filter: n > 1 and uid == 'a'", lambda r: r.filter("n > 1 and uid == 'a'")),
    ("select: [uid, n * 2 AS twice]", lambda r: r.select("uid", twice="n * 2")),
    ("project: {twice: n * 2}", lambda r: r.select(twice="n * 2")),
    ("map: [uid AS user]", lambda r: r.rename({"uid": "user"})),
    ("map: {expr: 'uid AS user, n'}", lambda r: r.rename({"uid": "user", "n": "n"})),
    ("project: uid, n * 2 AS twice", lambda r: r.select("uid", twice="n * 2")),
    ("project: if(n > 1, 'a,b', uid) AS k", lambda r: r.select(k="if(n > 1, 'a,b', uid)")),
    ("sort: uid, n desc", lambda r: r.sort("uid", "n:desc")),
    ("project: {x: cast(n as i32)}", lambda r: r.select(x="cast(n as Int32)")),
    ("rename: {uid: user, n: m}", lambda r: r.rename({"uid": "user", "n": "m"})),
    ("with_column: {name: m, expr: n + 1}", lambda r: r.with_column("m", "n + 1")),
    ("with_columns: {columns: {m: n + 1}}", lambda r: r.with_column("m", "n + 1")),
    (
        "aggregate: {group_by: [uid, n % 2 AS odd], aggs: [COUNT(*), SUM(n) AS total, {m: max(n)}]}",
        lambda r: r.group_by("uid", odd="n % 2").agg("count(*)", total="sum(n)", m="max(n)"),
    ),
    ("aggregate: {aggs: COUNT(DISTINCT uid)}", lambda r: r.agg("count(distinct uid)")),
    ("sort: uid", lambda r: r.sort("uid")),
    ("sort: [uid, n desc nulls first]", lambda r: r.sort("uid", "n:desc:nulls_first")),
    (
        "sort: {by: [{expr: n, descending: true}, 'uid:desc']}",
        lambda r: r.sort("n:desc", "uid:desc"),
    ),
    ("top_k: {by: n desc, count: 3, offset: 1}", lambda r: r.top_k(3, "n:desc", offset=1)),
    ("distinct:", lambda r: r.distinct()),
    ("distinct: [uid]", lambda r: r.distinct("uid")),
    ("limit: 5", lambda r: r.limit(5)),
    ("limit: {count: 5, offset: 2}", lambda r: r.limit(5, 2)),
    ("sample: 0.5", lambda r: r.sample(0.5)),
    ("sample: {count: 5, seed: 3}", lambda r: r.sample(count=5, seed=3)),
    ("union: {with: [{scan: a.csv}]}", lambda r: r.union(scan("a.csv"))),
    (
        "join: {with: {scan: b.csv}, on: {uid: id}, how: left}",
        lambda r: r.join(scan("b.csv"), {"uid": "id"}, "left"),
    ),
    (
        "join: {with: [{scan: b.csv}, {limit: 2}], on: [uid, n]}",
        lambda r: r.join(scan("b.csv").limit(2), ["uid", "n"]),
    ),
    (
        "window: {partition_by: uid, order_by: n desc, functions: {r: rank(), s: sum(n)}}",
        lambda r: r.window([("uid")], "n:desc", r="rank()", s="sum(n)"),
    ),
    (
        "window: {partitions: [uid], order_by: n, functions: [ROW_NUMBER() AS r, sum(n) AS s]}",
        lambda r: r.window(["uid"], "n", r="row_number()", s="sum(n)"),
    ),
    (
        "expect: {unique: uid, not_null: [uid, n], rows: '>0'}",
        lambda r: r.expect(unique="uid", not_null=["uid", "n"], rows=">0"),
    ),
    ("sink: out.parquet", lambda r: r.sink("out.parquet")),
]


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(("step", "same"), VERBS, ids=[step.partition(":")[0] for step, _ in VERBS])
def test_every_verb_is_the_pipelines(
    read: Read, step: str, same: Callable[[Pipeline], Pipeline]
) -> None:
    document = f"{HEAD}- {step}\n"
    assert read(document).plan == same(rows()).plan
    jsonschema.validate(_plain(document), document_schema())


def _plain(text: str) -> Any:
    from emsqrt.documents.yaml_text import read_yaml

    return read_yaml(text, "flow.yaml").data()


def test_explode_makes_a_row_of_each_item(read: Read) -> None:
    text = "- {scan: {source: a.parquet}}\n- explode: {column: tags, as: tag, outer: true}"
    assert read(text).plan == scan("a.parquet").explode("tags", "tag", outer=True).plan


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "step",
    [
        "lateral: {column: tags, alias: tag}",
        "{op: lateral, column: tags, alias: tag}",
        "explode: {column: tags, as: tag}",
    ],
)
def test_lateral_is_explode(read: Read, step: str) -> None:
    document = f"- {{scan: {{source: a.parquet}}}}\n- {step}"
    assert read(document).plan == scan("a.parquet").explode("tags", "tag").plan
    jsonschema.validate({"steps": _plain(document)}, document_schema())


def test_types_may_have_the_names_of_other_engines(read: Read) -> None:
    names = {"a": "i32", "b": "i64", "c": "f64", "d": "bool", "e": "bytes", "f": "Varchar"}
    columns = ", ".join(f"{{name: {name}, type: {kind}}}" for name, kind in names.items())
    plan = read(f"- scan: {{source: a.csv, schema: [{columns}]}}").plan
    wanted = Schema.of(a="Int32", b="Int64", c="Float64", d="Bool", e="Binary", f="Utf8")
    assert plan == scan("a.csv", schema=wanted).plan


def test_inputs_are_named_once_and_used_often(read: Read) -> None:
    text = """
inputs:
  all: {scan: a.csv}
  some: [{from: all}, {limit: 3}]
steps:
- from: some
- union: [all, some]
"""
    everything = scan("a.csv")
    few = everything.limit(3)
    assert read(text).plan == few.union(everything, few).plan


def test_variables_have_defaults_and_types(read: Read) -> None:
    text = """
vars: {least: 10, day: 2013-01-01}
steps:
- scan: ${folder:-data}/${day}.csv
- filter: n > ${least} and s != '$${x}'
- limit: ${count:-7}
"""
    plan = read(text, variables={"least": "20"}).plan
    assert plan == scan("data/2013-01-01.csv").filter("n > 20 and s != '${x}'").limit(7).plan


def test_the_environment_is_read_only_when_allowed(read: Read) -> None:
    text = "- scan: ${env:WHERE}"
    assert read(text, environment={"WHERE": "a.csv"}).plan == scan("a.csv").plan
    with pytest.raises(BadDocument, match="environment is not read"):
        read(text)


def test_settings_come_with_the_plan(read: Read) -> None:
    text = f"""
config:
  mem_cap: 64MiB
  threads: 2
  seed: 7
  spill_uri: s3://bucket/spill
  spill_aws_region: eu-west-1
  spill_retry_max_ms: 500
{HEAD}"""
    assert read(text).config == {
        "mem_cap_bytes": 64 << 20,
        "max_parallel_tasks": 2,
        "seed": 7,
        "spill_uri": "s3://bucket/spill",
        "spill_aws_region": "eu-west-1",
        "spill_retry_max_ms": 500,
    }


def test_words_of_yaml_1_1_are_texts(read: Read) -> None:
    text = "- scan: {source: a.csv, schema: {on: Utf8, yes: Int64}}\n- filter: on == 'no'"
    assert (
        read(text).plan
        == scan("a.csv", schema=Schema.of(on="Utf8", yes="Int64")).filter("on == 'no'").plan
    )


def test_the_same_document_in_json_means_the_same(read: Read, tmp_path: Path) -> None:
    as_json = tmp_path / "flow.json"
    as_json.write_text(json.dumps(_plain(ORIGINAL)))
    assert read_document(as_json).plan == read(ORIGINAL).plan
    assert steps_to_plan(_plain(ORIGINAL)["steps"]) == read(ORIGINAL).plan


WRONG = [
    ("- fliter: n > 1", "4:3", "no verb 'fliter'", 'did you mean "filter"?'),
    ("- filter: n >", "4:14", "ends too soon", None),
    ('- filter: "n > > 1"', "4:16", "expected a value", None),
    ("- filter: {}", "4:11", "filter needs 'expr'", None),
    ("- {op: sort, bi: n}", "4:18", "sort has no 'bi'", "there are by"),
    ("- filter: amont > 1", "4:3", 'no column "amont"', 'did you mean "amount"?'),
    ("- filter: uid + 1 > n", "4:3", "uid (Utf8)", None),
    ("- limit: many", "4:10", "whole number", None),
    ("- limit: ${x}", "4:10", "'x' has no value", None),
    ("- join: {with: users}", "4:16", "no input is called 'users'", "there are none"),
    ("- scan: b.csv", "4:3", "begin with one scan", None),
    ("- sink: out.xyz", "4:3", "names no known format", None),
    ("- {filter: n > 1, limit: 3}", "4:3", "one verb with its keys", None),
    ("- aggregate: {aggs: [n]}", "4:22", "not an aggregate", None),
    ("- project: [n + 1]", "4:13", "needs a name", "write n + 1 as …"),
    ("- limit: {count: 3, count: 4}", "4:21", "occurs twice", None),
    ("- filter: !!python/name:os.system x", "4:11", "only plain data", None),
    ("- filter: 'n", "4:13", "not YAML", None),
    ("- filter: n > 1 && n < 3", "4:17", "unexpected '&'", "write and"),
    ("- filter: n || uid = 'a'", "4:3", "expected Utf8", "between conditions write or"),
    ("- filter: n > 1 || n < 3", "4:22", "do not chain", "|| joins texts: write or"),
    ("- map: {expr: n + 1 AS m}", "4:15", "no column's name", "with_column"),
    ("- map: {expr: n, names: [n]}", "4:25", "are the same", None),
    ("- window: {functions: [row_number()]}", "4:24", "needs a name", "functions: {n:"),
    ("- sort: {by: [{descending: true}]}", "4:15", "needs 'expr'", None),
]


@pytest.mark.parametrize(("step", "place", "words", "hint"), WRONG, ids=[w[0] for w in WRONG])
def test_errors_are_reported_with_their_position(
    read: Read, step: str, place: str, words: str, hint: str | None
) -> None:
    with pytest.raises(BadDocument) as caught:
        read(f"{HEAD}{step}")
    if words != "not YAML":
        assert caught.value.place == f"flow.yaml:{place}"
    assert words in str(caught.value)
    assert hint is None or hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected keys"),
        ("a: 1", "a document has no 'a'"),
        ("vars: {}", "needs steps"),
        ("steps: []", "no step here"),
        ("config: {mem_kap: 1}\nsteps: []", "config has no 'mem_kap'"),
        ("config: {mem_cap: lots}\nsteps: []", "lots"),
        ("config: {mem_cap: 1, mem_cap_bytes: 2}\nsteps: []", "another name"),
        ("inputs: {a: {from: b}, b: {from: a}}\nsteps: [{from: a}]", "reads from itself"),
        ("- scan: a.csv\n---\n- scan: b.csv", "another document"),
    ],
)
def test_a_document_that_is_none_is_refused(read: Read, text: str, words: str) -> None:
    with pytest.raises(BadDocument, match=words):
        read(text)


def test_no_document_can_explode(read: Read) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]" for i in range(9)
    )
    with pytest.raises(BadDocument, match="20,000 values"):
        read(bomb)
    with pytest.raises(BadDocument, match="deeper than"):
        read("steps: " + "[" * 100 + "]" * 100)
    with pytest.raises(BadDocument, match="deeper than"):
        read("steps: &a [*a]")
    with pytest.raises(TooLarge):
        read("#" * (2 << 20))


@pytest.mark.slow
def test_the_schema_that_ships_is_the_one_that_is_made() -> None:
    shipped = json.loads(files("emsqrt.documents").joinpath("schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(shipped)
    assert shipped == document_schema()


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "steps",
    ["- fliter: n > 1", "- {op: sort, bi: n}", "- limit:", "- {op: limit}", "- join: {on: a}", "x"],
)
def test_the_schema_refuses_what_the_reader_refuses(read: Read, steps: str) -> None:
    text = f"{HEAD}{steps}" if steps != "x" else "steps: x"
    with pytest.raises(UsageError):
        read(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_plain(text), document_schema())


def test_the_page_on_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_markdown(Path(__file__).resolve().parents[3] / "docs" / "yaml.md")
