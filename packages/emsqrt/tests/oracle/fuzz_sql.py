"""Random SELECT statements over the tables t and u, within what EM-√'s SQL covers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Column: TypeAlias = tuple[str, str]
"""A column as an expression writes it, and its kind: n(umber), x (float), s (text) or d(ate)."""

T = (("a", "n"), ("b", "n"), ("s", "s"), ("x", "x"), ("d", "d"))
U = (("a", "n"), ("name", "s"), ("n", "n"))


@dataclass(frozen=True, slots=True)
class Select:
    """A query and its output columns."""

    text: str
    columns: tuple[Column, ...]


class Queries:
    """Draws queries; all column names are different."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._made = 0

    def query(self, depth: int = 2) -> Select:
        """Draw a SELECT, or several put together."""
        if depth and self._chance(8):
            return self._union(depth)
        source, columns = self._source(depth)
        if depth and self._chance(10):
            return self._with(source, columns, depth)
        return self._select(source, columns)

    def ordered(self) -> str:
        """Draw a query that orders by all of its columns."""
        inner = self.query()
        names = [name for name, _ in inner.columns]
        keys = [
            name + self._one(("", " desc", " nulls first", " desc nulls first")) for name in names
        ]
        ends = self._one(("", "", " limit 3", " limit 4 offset 2"))
        return f"select {', '.join(names)} from ({inner.text}) o order by {', '.join(keys)}{ends}"

    def _union(self, depth: int) -> Select:
        one = self.query(depth - 1)
        text = f"select * from ({one.text}) {self._name('q')} where {self._flag(one.columns)}"
        word = self._one(("union all", "union"))
        return Select(f"{one.text} {word} {text}", one.columns)

    def _with(self, source: str, columns: Sequence[Column], depth: int) -> Select:
        inner, name = self._select(source, columns), self._name("w")
        whole = self._select(name, [(f"{name}.{column}", kind) for column, kind in inner.columns])
        return Select(f"with {name} as ({inner.text}) {whole.text}", whole.columns)

    def _source(self, depth: int) -> tuple[str, list[Column]]:
        if depth == 0 or self._chance(3):
            return self._table(depth)
        left, ours = self._table(depth - 1)
        right, theirs = self._table(depth - 1)
        pairs = [(one, two) for one, k in ours for two, kind in theirs if k == kind and k != "x"]
        if not pairs:
            return left, ours
        how = self._one(("join", "left join", "right join", "full join", "semi join", "anti join"))
        one, two = self._one(pairs)
        more = ""
        if how == "join" and self._chance(2):
            more = f" and {self._flag([*ours, *theirs])}"
        elif how in ("left join", "semi join", "anti join") and self._chance(3):
            more = f" and {self._flag(theirs)}"
        seen = ours if how in ("semi join", "anti join") else [*ours, *theirs]
        return f"{left} {how} {right} on {one} = {two}{more}", seen

    def _table(self, depth: int) -> tuple[str, list[Column]]:
        name = self._name("q")
        if depth and self._chance(3):
            inner = self.query(depth - 1)
            return f"({inner.text}) {name}", [(f"{name}.{c}", kind) for c, kind in inner.columns]
        table, columns = self._one((("t", T), ("t", T), ("u", U)))
        return f"{table} {name}", [(f"{name}.{c}", kind) for c, kind in columns]

    def _select(self, source: str, columns: Sequence[Column]) -> Select:
        where = f" where {self._flag(columns)}" if self._chance(2) else ""
        match self._dice.randint(0, 4):
            case 0 | 1:
                return self._grouped(source + where, columns)
            case 2:
                return self._windowed(source + where, columns)
        made = [self._expr(columns) for _ in range(self._dice.randint(1, 4))]
        names = [self._name("c") for _ in made]
        items = ", ".join(f"{text} as {name}" for (text, _), name in zip(made, names, strict=True))
        word = self._one(("", "", "distinct "))
        kinds = tuple((name, kind) for name, (_, kind) in zip(names, made, strict=True))
        return Select(f"select {word}{items} from {source}{where}", kinds)

    def _grouped(self, source: str, columns: Sequence[Column]) -> Select:
        keys = [self._expr(columns) for _ in range(self._dice.randint(0, 2))]
        keys = [(text, kind) for text, kind in keys if kind != "x"]
        aggs = [self._aggregate(columns) for _ in range(self._dice.randint(1, 3))]
        made = [*keys, *aggs]
        names = [self._name("c") for _ in made]
        items = ", ".join(f"{text} as {name}" for (text, _), name in zip(made, names, strict=True))
        numbers = [str(at + 1) for at in range(len(keys))]
        group = f" group by {self._one((', '.join(numbers), 'all'))}" if keys else ""
        having = self._one(("", " having count(*) > 1", f" having {aggs[0][0]} is not null"))
        kinds = tuple((name, kind) for name, (_, kind) in zip(names, made, strict=True))
        return Select(f"select {items} from {source}{group}{having if keys else ''}", kinds)

    def _windowed(self, source: str, columns: Sequence[Column]) -> Select:
        parts = f"partition by {self._one(columns)[0]}" if self._chance(2) else ""
        # All columns, so that no order is left open.
        order = ", ".join(f"{name}{self._one(('', ' desc'))} nulls last" for name, _ in columns)
        names = [name for name, _ in columns]
        argument, kind = self._one(columns)
        forms = (
            *(("row_number()", "n"), ("rank()", "n"), ("ntile(2)", "n"), ("count(*)", "n")),
            *((f"lag({argument})", kind), (f"lead({argument}, 2)", kind)),
            *(
                (f"first_value({argument})", kind),
                (f"max({argument})", kind),
                (f"count({argument})", "n"),
            ),
        )
        (call, of), name = self._one(forms), self._name("c")
        frame = ""
        if call.startswith(("first", "max", "count")):
            frame = self._one(
                ("", " rows between 1 preceding and 1 following", " rows 2 preceding")
            )
        items = ", ".join(f"{each} as {self._name('c')}" for each in names)
        start = self._made - len(names)
        kinds = [(f"c{start + at + 1}", of_) for at, (_, of_) in enumerate(columns)]
        text = (
            f"select {items}, {call} over ({parts} order by {order}{frame}) as {name} from {source}"
        )
        if of == "n" and self._chance(4):
            text += f" qualify {name} > 1"
        return Select(text, (*kinds, (name, of)))

    def _aggregate(self, columns: Sequence[Column]) -> Column:
        text, kind = self._expr(columns)
        forms = [("count(*)", "n"), ("count({})", "n"), ("min({})", kind), ("max({})", kind)]
        forms.append(("count(distinct {})", "n"))
        if kind == "n":
            forms += [("sum({})", "n"), ("avg({})", "x"), ("sum({}) + count(*)", "n")]
            forms += [("quantile_cont({}, 0.5)", "x"), ("stddev({})", "x")]
        form, of = self._one(forms)
        return form.format(text), of

    def _expr(self, columns: Sequence[Column]) -> Column:
        name, kind = self._one(columns)
        same = [text for text, of in columns if of == kind]
        other = self._one(same)
        forms: dict[str, Sequence[tuple[str, str]]] = {
            "n": (
                *(
                    ("{0}", "n"),
                    ("{0}", "n"),
                    ("{0} + {1}", "n"),
                    ("{0} * 2 - 1", "n"),
                    ("-{0}", "n"),
                ),
                *(("abs({0} - {1})", "n"), ("{0} / 2", "x"), ("{0} // 2", "n"), ("{0} % 3", "n")),
                *(("coalesce({0}, {1}, 0)", "n"), ("nullif({0}, 1)", "n"), ("{0}::varchar", "s")),
                *(("greatest({0}, {1})", "n"), ("sign({0})", "n")),
                ("case when {0} > 1 then {1} when {0} is null then -1 else 0 end", "n"),
            ),
            "x": (("{0}", "x"), ("{0} + 0.5::double", "x"), ("-{0}", "x"), ("floor({0})", "x")),
            "s": (
                *(("{0}", "s"), ("upper({0})", "s"), ("{0} || 'z'", "s"), ("length({0})", "n")),
                *(("substr({0}, 1, 1)", "s"), ("coalesce({0}, '?')", "s"), ("trim({0})", "s")),
                *(("replace({0}, 'a', 'bb')", "s"), ("concat({0}, '-', {1})", "s"), ("{0}", "s")),
                ("case {0} when 'a' then 'A' else {1} end", "s"),
            ),
            "d": (
                ("{0}", "d"),
                ("year({0})", "n"),
                ("extract(month from {0})", "n"),
                ("day({0})", "n"),
            ),
        }
        text, of = self._one(forms[kind])
        return text.format(name, other), of

    def _flag(self, columns: Sequence[Column], depth: int = 1) -> str:
        if depth and self._chance(3):
            one, two = self._flag(columns, 0), self._flag(columns, 0)
            return str(self._one(("({} and {})", "({} or {})", "not ({} and {})")).format(one, two))
        name, kind = self._one(columns)
        forms = {
            "n": (
                "{} > 0",
                "{} in (1, 2)",
                "{} between 0 and 1",
                "{} <> 1",
                "{} is null",
                "{} % 2 = 0",
            ),
            "x": ("{} >= 0", "{} is not null", "not ({} < 1)"),
            "s": ("{} like 'a%'", "{} = 'a'", "{} <> ''", "{} is not null", "{} in ('b', 'p')"),
            "d": ("{} > date '2013-01-31'", "{} is null", "year({}) = 2013"),
        }
        return str(self._one(forms[kind]).format(name))

    def _name(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self._made}"

    def _chance(self, one_in: int) -> bool:
        return bool(self._dice.randint(0, one_in - 1) == 0)

    def _one(self, values: Sequence[Any]) -> Any:
        return self._dice.choice(values)


def query(dice: random.Random) -> str:
    """Draw a query whose rows may come in any order."""
    return Queries(dice).query().text


def ordered_query(dice: random.Random) -> str:
    """Draw a query that puts its rows in a full order."""
    return Queries(dice).ordered()
