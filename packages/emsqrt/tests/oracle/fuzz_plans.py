"""Random plans over random tables: what the fuzz tests run."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from fuzz_data import KEYS, MENU, ORDERS, SUMMABLE, random_table
from fuzz_exprs import Exprs
from fuzz_files import BINARY, TEXT, Files

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import JoinKind, check, explain
from sennit_core.errors import UsageError
from sennit_core.schema import Schema

HOWS: tuple[JoinKind, ...] = ("inner", "left", "right", "full", "semi", "anti", "cross")
DIRECTIONS = ("", ":desc", ":nulls_first", ":desc:nulls_first")
SMALL = ("i8", "i16", "u8", "u16", "n", "g", "k", "k8", "ku")
NO_TEXT_FORM = ("b", "kb", "xs")
"""Columns that CSV and JSON Lines do not carry."""
WAYS = ("batches", "batches", "files", "files", "text")
ROWS = (0, 1, 2, 7, 40, 700, 3000, 9000)
HEAVY_ROWS = (700, 3000, 9000, 9000)
HEAVY = ("k", "kt", "pad")
DIFFERENT_KEYS = (1, 3, 50, 800, 6000)


@dataclass
class Case:
    """A plan, the tables that it reads, and how it is carried out.

    Args:
        pipeline: the plan.
        tables: by the first path of the scans that read them.
        files: how these are stored in files.
        way: over batches in memory, from files to a file, or likewise in the text tier.
        formats: that its files may have.
        target: the format of the file that is written.
        memory: MiB to begin with; 0 is the least that is admitted.
        batch_rows: rows in a batch, of those in memory.
        build: arguments for a join's builder: (build left, bytes).
        packs: whether spilled blocks are compressed.
        made: how many names were used.
    """

    pipeline: Pipeline
    tables: dict[str, tuple[Schema, pa.Table]]
    files: dict[str, Files]
    way: str
    formats: Sequence[str]
    target: str
    memory: int
    batch_rows: int
    build: tuple[bool, int | None]
    packs: bool
    made: int = field(default=0)

    def __repr__(self) -> str:
        rows = {
            name: (table.num_rows, str(schema), self.files[name])
            for name, (schema, table) in self.tables.items()
        }
        how = f"{self.way} to {self.target}, {self.memory} MiB, {self.batch_rows} rows, {self.build}, {self.packs}"
        return f"{explain(self.pipeline.plan)}\n{rows}\n{how}"


def cases(dice: random.Random, rows: Sequence[int] = ROWS, ways: Sequence[str] = WAYS) -> Case:
    """Draw a plan of up to five steps over two tables."""
    case = _begin(dice, ways)
    keys = dice.choice(DIFFERENT_KEYS)
    sources = [_source(dice, case, name, rows, keys) for name in ("l", "r")]
    case.pipeline, other = (
        exploded(dice, case, source)
        if "xs" in check(source.plan) and dice.randint(0, 2)
        else source
        for source in sources
    )
    for _ in range(dice.randint(0, 1)):
        other = step(dice, case, other, None)
    for _ in range(dice.randint(1, 4)):
        case.pipeline = step(dice, case, case.pipeline, other)
    return _aimed(case)


def heavy_cases(
    dice: random.Random, rows: Sequence[int] = HEAVY_ROWS, ways: Sequence[str] = WAYS
) -> Case:
    """Draw one operator, or two, that hold more rows than the least memory does."""
    case = _begin(dice, ways)
    case.memory = dice.choice((0, 0, 0, 1))
    keys = dice.choice((800, 6000))
    left, right = (_source(dice, case, name, rows, keys, HEAVY) for name in ("l", "r"))
    case.pipeline = left
    verbs = [verb for verb in HOLDING if case.way != "text" or verb in TEXT_TIER]
    case.pipeline = _with_verb(dice, case, case.pipeline, right, dice.choice(verbs))
    if dice.randint(0, 2) == 0:
        case.pipeline = step(dice, case, case.pipeline, right)
    return _aimed(case)


def _begin(dice: random.Random, ways: Sequence[str]) -> Case:
    """Draw how a case is carried out."""
    way = dice.choice(ways)
    is_text = way == "text" or (way == "files" and (dice.random() < 0.5))
    formats = TEXT if way == "text" else (*BINARY, *TEXT) if is_text else BINARY
    return Case(
        scan("nothing.csv"),
        {},
        {},
        way,
        formats,
        dice.choice(formats),
        dice.choice((0, 0, 0, 1, 4, 64)),
        dice.choice((1000, 64, 100_000)),
        (dice.random() < 0.5, dice.choice((None, 1, 1 << 20))),
        dice.random() < 0.5,
    )


def _aimed(case: Case) -> Case:
    """Let a case end in a format that can hold what comes out."""
    if case.target in TEXT and any(f.type.name == "Binary" for f in check(case.pipeline.plan)):
        case.target = "parquet"
    return case


def _source(
    dice: random.Random,
    case: Case,
    name: str,
    rows: Sequence[int],
    keys: int,
    more: Sequence[str] = (),
) -> Pipeline:
    """Draw a table and its files; return the scan of it."""
    is_text = any(kind in TEXT for kind in case.formats)
    columns = [each for each in MENU if not is_text or each not in NO_TEXT_FORM]
    names = dice.sample(columns, dice.randint(1, 5))
    names += [each for each in more if each not in names]
    by = [each for each in names if each in KEYS][:2] or [each for each in names if each != "xs"][
        :1
    ]
    schema, table = random_table(
        names,
        dice.choice(rows),
        dice.randint(0, 1 << 20),
        nul=not is_text,
        keys=keys,
        order=dice.choice(ORDERS),
        by=by,
    )
    kind = dice.choice(case.formats)
    files = Files(kind, name, dice.randint(0, 1 << 20), plain=case.way == "batches")
    case.tables[files.paths[0]], case.files[files.paths[0]] = (schema, table), files
    return scan(*files.paths, format=kind, schema=schema, **files.options)


def step(dice: random.Random, case: Case, rows: Pipeline, other: Pipeline | None) -> Pipeline:
    """Draw one more operator; one that makes no sense here is left out."""
    verbs = [verb for verb in VERBS if case.way != "text" or verb in TEXT_TIER]
    verbs = [verb for verb in verbs if other or verb not in (_join, _star, _union)]
    return _with_verb(dice, case, rows, other, dice.choice(verbs))


def _with_verb(
    dice: random.Random,
    case: Case,
    rows: Pipeline,
    other: Pipeline | None,
    verb: Callable[..., Pipeline],
) -> Pipeline:
    firm = plain(rows)
    try:
        made = verb(dice, case, rows, firm, other) if firm else rows
        check(made.plan)
        return made
    except UsageError:
        return rows


def plain(rows: Pipeline) -> list[str]:
    """Return the columns that can be compared: neither estimates nor lists."""
    return [
        f.name for f in check(rows.plan) if not f.name.startswith("z") and f.type.name != "List"
    ]


def fresh(case: Case, prefix: str = "c") -> str:
    """Return a name that no column has."""
    case.made += 1
    return f"{prefix}{case.made}"


def pick(dice: random.Random, names: Sequence[str], most: int = 3) -> list[str]:
    """Draw a few columns."""
    return dice.sample(names, dice.randint(1, min(most, len(names))))


def _filter(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    one, two = dice.choice(names), dice.choice(names)
    if dice.random() < 0.5:
        return rows.filter(Exprs(dice, check(rows.plan), names).flag())
    return rows.filter(
        dice.choice(
            (
                f"{one} is not null",
                f"{one} is null or {two} is not null",
                f"{one} <= {two}",
                f"not ({one} == {two})",
                f"{one} > 1",
                f"{one} in (0, 1, -1) or {two} is null",
                f"{one} between -3 and 20",
                f"{one} >= 0.1",
                f"{one} <= Decimal(2,1) '0.3'",
                f"{one} in (0.2, -0.7)",
                f"{one} == 'a' or {two} < 'b'",
                f"coalesce({one}, {two}) == {one}",
                f"case when {one} is null then {two} is null else {one} <> {two} end",
            )
        )
    )


def _with(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    one, two = dice.choice(names), dice.choice(names)
    if dice.randint(0, 3):
        expr = Exprs(dice, check(rows.plan), names).any()
        return rows.with_column(dice.choice((one, fresh(case), fresh(case))), expr)
    expr = dice.choice(
        (
            one,
            f"coalesce({one}, {two})",
            f"case when {one} is null then 1 when {one} = {two} then 2 end",
            f"nullif({one}, {two})",
            f"{one} is null",
            f"{one} < {two}",
            "true",
            "5",
        )
    )
    name = dice.choice((one, fresh(case)))
    return rows.with_column(name, expr)


def _project(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    kept = pick(dice, names, 6)
    return rows.select(*kept, **{fresh(case): kept[-1]})


def _rename(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.rename({name: fresh(case) for name in pick(dice, names)})


def _sort(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.sort(*(name + dice.choice(DIRECTIONS) for name in pick(dice, names)))


def _top(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    keys = [name + dice.choice(DIRECTIONS) for name in pick(dice, names)]
    count, offset = dice.choice((1, 5, 100, 5000)), dice.choice((0, 3, 500))
    return rows.top_k(count, *keys, offset=offset)


def _limit(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.limit(dice.choice((1, 30, 5000)), dice.choice((0, 2, 400)))


def _distinct(
    dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any
) -> Pipeline:
    if len(names) < len(check(rows.plan).names) or (dice.random() < 0.5):
        return rows.distinct(*pick(dice, names))
    return rows.distinct()


def _aggregate(
    dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any
) -> Pipeline:
    keys = pick(dice, names) if dice.randint(0, 4) else []
    schema = check(rows.plan)
    exprs = Exprs(dice, schema, names)
    named = {fresh(case): exprs.any() for _ in range(dice.choice((0, 0, 0, 1)))}
    sums = [n for n in names if n in SUMMABLE and str(schema.field(n).type) == MENU.get(n)]
    made: dict[str, str] = {}
    for _ in range(dice.randint(1, 4)):
        any_one = dice.choice(names) if dice.randint(0, 3) else exprs.any()
        form = dice.choice(PLAIN_AGGS)
        made[fresh(case, "zh" if form.startswith("approx") else "c")] = form.format(any_one)
        if sums:
            form = dice.choice(SUM_AGGS)
            name = fresh(case, "c" if form.startswith("sum") else "z")
            summed = dice.choice(sums)
            if summed not in SMALL and form.startswith(("var", "stddev")):
                form = "avg({})"  # their squares lose digits, as spec/float-sum.md says
            made[name] = form.format(summed)
    return rows.group_by(*keys, **named).agg(**made)


PLAIN_AGGS = (
    "count(*)",
    "count({})",
    "min({})",
    "max({})",
    "first({})",
    "last({})",
    "count(distinct {})",
    "approx_count_distinct({})",
    "quantile_disc({}, 0.4)",
    "quantile_disc({}, 0)",
    "quantile_disc({}, 1)",
)
SUM_AGGS = (
    "sum({})",
    "sum(distinct {})",
    "avg({})",
    "avg(distinct {})",
    "var(distinct {})",
    "var({})",
    "stddev({})",
    "median({})",
    "quantile({}, 0.9)",
    "quantile({}, 0)",
)


def _sample(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    seed = dice.randint(0, 5)
    if dice.random() < 0.5:
        return rows.sample(dice.choice((0.0, 0.3, 1.0)), seed=seed)
    return rows.sample(count=dice.choice((0, 1, 50, 3000)), seed=seed)


def _expect(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    return rows.expect(rows=">=0")


def _window(dice: random.Random, case: Case, rows: Pipeline, names: list[str], _: Any) -> Pipeline:
    parts = pick(dice, names, 2) if (dice.random() < 0.5) else []
    keys = [name + dice.choice(DIRECTIONS) for name in pick(dice, names, 2)]
    keys = keys if dice.randint(0, 3) else []
    schema = check(rows.plan)
    sums = [n for n in names if n in SUMMABLE and str(schema.field(n).type) == MENU.get(n)]
    made: dict[str, str] = {}
    for _ in range(dice.randint(1, 3)):
        one = dice.choice(names)
        form = dice.choice(RANKINGS if keys else ("row_number()", "count(*)"))
        made[fresh(case)] = form.format(one)
        frame = dice.choice(FRAMES if len(keys) != 1 else (*FRAMES, *RANGES))
        if sums:
            form = dice.choice(("sum({})", "avg({})", "min({})", "max({})", "count({})"))
            name = fresh(case, "z" if form.startswith("avg") else "c")
            made[name] = form.format(dice.choice(sums)) + frame
        made[fresh(case)] = dice.choice(("first_value", "last_value", "min", "max")) + (
            f"({one}){frame or FRAMES[1]}"
        )
    return rows.window(parts, keys, **made)


RANKINGS = (
    *("row_number()", "rank()", "dense_rank()", "ntile(3)", "lag({})", "lead({}, 2)", "count({})"),
    *("lag({}, 0)", "lag({}, 700)", "count(*)", "ntile(1000)", "lag({}, 1, 7)", "lead({}, 1, 'x')"),
)
FRAMES = (
    "",
    " rows between 2 preceding and current row",
    " rows between unbounded preceding and 1 preceding",
    " rows between 1 following and unbounded following",
    " rows between 300 preceding and 200 following",
    " rows between 3 following and 5 following",
    " rows between unbounded preceding and unbounded following",
    " range between unbounded preceding and unbounded following",
    " range between current row and unbounded following",
    " range between current row and current row",
    " rows between 5 preceding and 3 preceding",
)
RANGES = (
    " range between 3 preceding and 2 following",
    " range between 5 preceding and current row",
    " range between 1 following and 40 following",
    " range between unbounded preceding and 2 preceding",
)
"""Frames for one order key of whole numbers."""


def exploded(dice: random.Random, case: Case, rows: Pipeline) -> Pipeline:
    """Unnest the lists, which no other operator reads."""
    position = dice.choice((None, fresh(case)))
    outer, name = dice.random() < 0.5, dice.choice((None, fresh(case)))
    return rows.explode("xs", name, outer=outer, position=position)


def _join(
    dice: random.Random, case: Case, rows: Pipeline, names: list[str], other: Any
) -> Pipeline:
    how = dice.choice(HOWS)
    if how == "cross":
        return rows.limit(40).join(other.limit(50), how="cross")
    theirs = plain(other)
    if not theirs:
        return rows
    both = [name for name in names if name in theirs]
    ours, keyed = ([n for n in each if n in KEYS] for each in (names, theirs))
    if both and dice.randint(0, 2):
        keyed = [name for name in both if name in KEYS]
        keys = pick(dice, keyed if keyed and (dice.random() < 0.5) else both, 2)
        if dice.random() < 0.5:
            return rows.sort(*keys).join(other.sort(*keys), keys, how)
        return rows.join(other, keys, how)
    if ours and keyed and (dice.random() < 0.5):
        return rows.join(other, [(dice.choice(ours), dice.choice(keyed))], how)
    on = [(dice.choice(names), dice.choice(theirs))]
    return rows.limit(3000).join(other.limit(900), on, how)


def _join_whole(
    dice: random.Random, case: Case, rows: Pipeline, names: list[str], other: Any
) -> Pipeline:
    """Join by keys that few rows share, some of the sides sorted by them."""
    how = dice.choice(HOWS[:-1])
    theirs = plain(other)
    keys = [*dice.choice((["k"], ["kt"], ["k", "kt"], ["kt", "k"]))]
    pairs = [(one, two) for one in names for two in theirs if one[0] == two[0] == "k"]
    if dice.randint(0, 3) == 0:
        return rows.join(other, [dice.choice(pairs)], how)
    ours = rows.sort(*keys) if (dice.random() < 0.5) else rows
    return ours.join(other.sort(*keys) if (dice.random() < 0.5) else other, keys, how)


def _star(
    dice: random.Random, case: Case, rows: Pipeline, names: list[str], other: Any
) -> Pipeline:
    """Join three inputs or four, filter them, and group what comes out, so that no order is seen."""
    theirs, made = plain(other), rows.limit(2000)
    pairs = [(one, two) for one in names for two in theirs if one in KEYS and two in KEYS]
    if not pairs:
        return rows
    for at in range(dice.choice((2, 2, 3))):
        side = other.limit(dice.choice((1, 40, 300)))
        side = side.rename({name: f"{name}_{at}" for name in check(other.plan).names})
        one, two = dice.choice(pairs)
        made = made.join(
            side, [(one, f"{two}_{at}")], dice.choice(("inner", "inner", "left", "semi"))
        )
        pairs += [(f"{two}_{at}", two)] * (f"{two}_{at}" in check(made.plan))
        if dice.randint(0, 2) == 0:
            made = _filter(dice, case, made, plain(made), None)
    return _aggregate(dice, case, made, plain(made), None)


def _union(
    dice: random.Random, case: Case, rows: Pipeline, names: list[str], other: Any
) -> Pipeline:
    if dice.random() < 0.5:
        return rows.union(other, by_name=True)
    return rows.union(rows.limit(17, 3))


VERBS: list[Callable[..., Pipeline]] = [
    _filter,
    _with,
    _project,
    _rename,
    _limit,
    _top,
    _expect,
    _sample,
    _sort,
    _sort,
    _distinct,
    _distinct,
    _aggregate,
    _aggregate,
    _aggregate,
    _window,
    _window,
    _join,
    _join,
    _join,
    _join,
    _star,
    _union,
]
TEXT_TIER = (
    _filter,
    _with,
    _project,
    _rename,
    _limit,
    _top,
    _sort,
    _distinct,
    _aggregate,
    _join,
    _join_whole,
    _star,
    _union,
)
"""What the text tier has operators for."""
HOLDING = (
    *(_join_whole, _join_whole, _join_whole, _join_whole, _sort, _sort, _aggregate, _aggregate),
    *(_distinct, _window, _window, _star),
)
"""What holds rows; `_join_whole` wants the columns of `HEAVY`."""
