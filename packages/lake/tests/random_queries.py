"""Random queries whose result does not depend on the order of rows, over the tables of `distributed_tables`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

__all__ = ["random_query"]

_TABLES = {
    "t": {"k": "int", "g": "text", "n": "int", "x": "float", "m": "dec", "d": "date", "b": "bool"},
    "u": {"k": "int", "v": "int", "w": "text"},
    "d": {"g": "text", "label": "text", "rank": "int"},
}
_CONSTANTS = {
    "int": ("0", "1", "3", "-2", "7", "NULL"),
    "text": ("'a'", "'b'", "'B'", "''", "'ü'", "NULL"),
    "float": ("0.5", "1e6", "-1.25", "3.0", "'nan'::DOUBLE"),
    "dec": ("1.50", "-3.25", "0.00"),
    "date": ("DATE '2024-01-15'", "DATE '2024-02-29'", "NULL::DATE"),
    "bool": ("true", "false", "NULL::BOOLEAN"),
}
# Patterns of expressions of a type; `{int}` is one of another type.
_EXPRESSIONS = {
    "int": (
        *("{int} + {int}", "{int} * 2", "-{int}", "abs({int})", "{int} % 3", "length({text})"),
        *("coalesce({int}, {int})", "nullif({int}, 3)", "CASE WHEN {bool} THEN {int} END"),
        *(
            "month({date})",
            "{bool}::INTEGER",
            "greatest({int}, {int})",
            "({date} - DATE '2024-01-01')",
        ),
        *("date_diff('day', {date}, {date})", "round({dec})::INTEGER", "if({bool}, {int}, 1)"),
    ),
    "text": (
        *("upper({text})", "{text} || {text}", "coalesce({text}, 'z')", "{int}::VARCHAR"),
        *(
            "substr({text}, 1, 1)",
            "CASE {int} WHEN 1 THEN {text} ELSE 'else' END",
            "concat({text}, {int})",
        ),
        *(
            "strftime({date}, '%Y-%m')",
            "lower({text})",
            "left({text}, 1)",
            "min(5)::VARCHAR || {text}",
        ),
    )[:-1],
    "float": (
        "{float} * 2",
        "{int} / 2",
        "{float} + {int}",
        "coalesce({float}, 0)",
        "{dec}::DOUBLE",
    ),
    "dec": (
        "{dec} + {dec}",
        "{dec} * 2",
        "coalesce({dec}, 1.5)",
        "{int}::DECIMAL(12,2)",
        "abs({dec})",
    ),
    "date": (
        "date_trunc('month', {date})::DATE",
        "{date} + 3",
        "coalesce({date}, DATE '2024-03-01')",
    ),
    "bool": (
        *("{int} > {int}", "{int} = {int}", "{text} = {text}", "{text} LIKE 'b%'", "{int} IS NULL"),
        *("{text} IS NOT NULL", "NOT {bool}", "({bool} AND {bool})", "({bool} OR {bool})"),
        *(
            "{int} BETWEEN {int} AND 5",
            "{int} IN (1, 2, {int})",
            "{int} NOT IN (1, 3)",
            "{float} <= {float}",
        ),
        *(
            "{dec} < {dec}",
            "{date} >= {date}",
            "{int} IS DISTINCT FROM {int}",
            "{text} IN ('a', 'B')",
        ),
        *("{text} < {text}", "({bool}) IS NOT TRUE", "{int} <> {int}", "{date} < '2024-02-10'"),
    ),
}
# Aggregates of which no order of rows changes the value.
_AGGREGATES = {
    "int": (
        *(
            "count(*)",
            "count({int})",
            "sum({int})",
            "min({int})",
            "max({int})",
            "count(DISTINCT {text})",
        ),
        *(
            "count(DISTINCT {int})",
            "sum(DISTINCT {int})",
            "count_if({bool})",
            "bit_xor({int})",
            "bit_or({int})",
        ),
        *(
            "sum({int}) FILTER (WHERE {bool})",
            "count(*) FILTER (WHERE {bool})",
            "max({int}) - min({int})",
        ),
        *(
            "coalesce(sum({int}), 0)",
            "count(DISTINCT {int}) FILTER (WHERE {bool})",
            "count(DISTINCT {date})",
        ),
        *(
            "length(string_agg(DISTINCT {text}, ',' ORDER BY {text}))",
            "count({bool})",
            "any_value(3)",
        ),
    ),
    "text": (
        "min({text})",
        "max({text})",
        "max({text}) FILTER (WHERE {bool})",
        "min(DISTINCT {text})",
    ),
    "float": (
        *(
            "avg({int})",
            "sum({float})",
            "max({float})",
            "avg({dec})",
            "median({int})",
            "min({float})",
        ),
        *(
            "avg({int}) FILTER (WHERE {bool})",
            "avg(DISTINCT {int})",
            "sum({int}) / count(*)",
            "stddev({int})",
        ),
    ),
    "dec": ("sum({dec})", "min({dec})", "max({dec})", "sum(DISTINCT {dec})"),
    "date": ("min({date})", "max({date})"),
    "bool": ("bool_and({bool})", "bool_or({bool})", "count(*) > 2"),
}
_WINDOWS = (
    *("rank() OVER ({})", "dense_rank() OVER ({})", "count(*) OVER ({})", "sum({int}) OVER ({})"),
    *("max({int}) OVER ({})", "min({int}) OVER ({})", "count({text}) OVER ({})"),
)
_WAYS = ("rows", "groups", "groups", "distinct", "window", "aggregate")
_SETS = ("UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL")


_Columns = list[tuple[str, str]]
"""Texts of columns, and their types."""


@dataclass
class _Scope:
    """The columns that expressions may use: their text and type."""

    columns: _Columns
    outer: _Columns = field(default_factory=list)
    depth: int = 2


class _Writer:
    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self._names = 0

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def name(self, letter: str) -> str:
        self._names += 1
        return f"{letter}{self._names}"

    def value(self, kind: str, scope: _Scope, depth: int = 2) -> str:
        columns = [text for text, each in scope.columns if each == kind]
        outer = [text for text, each in scope.outer if each == kind]
        if outer and self.chance(0.2):
            return self._random.choice(outer)
        if columns and (depth == 0 or self.chance(0.6)):
            return self._random.choice(columns)
        if depth == 0 or self.chance(0.25):
            return self._random.choice(_CONSTANTS[kind])
        if kind == "bool" and scope.depth > 0 and self.chance(0.15):
            return self._subquery(scope)
        if kind == "int" and scope.depth > 0 and self.chance(0.06):
            return self._scalar(scope)
        return self._filled(self._random.choice(_EXPRESSIONS[kind]), scope, depth - 1)

    def _filled(self, pattern: str, scope: _Scope, depth: int) -> str:
        text = pattern
        for kind in _CONSTANTS:
            while f"{{{kind}}}" in text:
                value = self.value(kind, scope, depth)
                text = text.replace(f"{{{kind}}}", f"({value})" if " " in value else value, 1)
        return text

    def _inner(self, scope: _Scope) -> tuple[str, _Scope]:
        """FROM and WHERE of a subquery, correlated or not."""
        text, own = self.source(scope.depth - 1, joins=self._random.choice([0, 0, 1]))
        if self.chance(0.7):
            own = replace(own, outer=scope.columns)
        conditions = []
        keys = [column for column, _ in own.columns if column.endswith(".k")]
        outer_keys = [column for column, _ in scope.columns if column.endswith(".k")]
        if own.outer and keys and outer_keys and self.chance(0.7):
            conditions.append(f"{self._random.choice(keys)} = {self._random.choice(outer_keys)}")
        if self.chance(0.5):
            conditions.append(self.value("bool", replace(own, depth=scope.depth - 1)))
        where = " AND ".join(f"({each})" for each in conditions)
        return f"{text}{f' WHERE {where}' if where else ''}", own

    def _subquery(self, scope: _Scope) -> str:
        text, own = self._inner(scope)
        if self.chance(0.5):
            return f"{self._random.choice(['', 'NOT '])}EXISTS (SELECT 1 {text})"
        bare = replace(own, depth=0)
        kind = self._random.choice(["int", "int", "text"])
        value, result = self.value(kind, replace(scope, depth=0), 1), self.value(kind, bare, 1)
        if value.isdigit():
            value = f"({value})"
        word = self._random.choice(["IN", "NOT IN", "IN", "= ANY", "> ALL", "<> ALL"])
        return f"{value} {word} (SELECT {result} {text})"

    def _scalar(self, scope: _Scope) -> str:
        text, own = self._inner(scope)
        return f"(SELECT {self.aggregate('int', replace(own, depth=0))} {text})"

    def aggregate(self, kind: str, scope: _Scope) -> str:
        return self._filled(
            self._random.choice(_AGGREGATES[kind]), replace(scope, outer=[], depth=0), 1
        )

    def source(self, depth: int, joins: int) -> tuple[str, _Scope]:
        """FROM with joins; the columns that it shows."""
        first, columns = self._item(depth)
        text = f"FROM {first}"
        for _ in range(joins):
            item, own = self._item(depth)
            kind = self._random.choice(
                ["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]
            )
            pairs = [
                f"{one} = {other}"
                for one, a in columns
                for other, b in own
                if a == b and a in ("int", "text")
            ]
            keys = [pair for pair in pairs if pair.count(".k") == 2]
            on = self._random.choice(keys if keys and self.chance(0.7) else pairs or ["true"])
            if self.chance(0.3):
                both = _Scope([*columns, *own], depth=0)
                on += f" AND {self.value('bool', both, 1)}"
            if kind == "FULL JOIN" and " AND " in on:
                on = on.split(" AND ")[0]
            text += f" {kind} {item} ON {on}"
            columns = columns if kind in ("SEMI JOIN", "ANTI JOIN") else [*columns, *own]
        return text, _Scope(columns, depth=depth)

    def _item(self, depth: int) -> tuple[str, _Columns]:
        alias = self.name("q")
        if depth > 0 and self.chance(0.25):
            query, kinds = self.select(depth - 1, keeps_key=True)
            columns = [(f"{alias}.{name}", kind) for name, kind in kinds]
            return f"({query}) AS {alias}", columns
        table = self._random.choice(["t", "t", "u", "u", "d"])
        return f"{table} AS {alias}", [(f"{alias}.{c}", kind) for c, kind in _TABLES[table].items()]

    def select(
        self, depth: int, *, keeps_key: bool = False, kinds: Sequence[str] = ()
    ) -> tuple[str, _Columns]:
        """A SELECT, and the names and types of its results.

        Args:
            depth: How many queries may be inside one another.
            keeps_key: Whether a result may be `k`, for joins with it.
            kinds: The types of the results; empty for any.
        """
        text, scope = self.source(depth, joins=self._random.choice([0, 0, 1, 1, 2, 2, 3]))
        where = f" WHERE {self.value('bool', scope)}" if self.chance(0.6) else ""
        wanted = list(kinds) or self._random.choices(list(_CONSTANTS), k=self._random.randint(1, 3))
        way = self._random.choice(_WAYS[:4] if kinds else _WAYS)
        key = next((name for name, _ in scope.columns if name.endswith(".k")), None)
        word, tail = "SELECT", ""
        match way:
            case "groups":
                results, tail = self._grouped(scope, wanted, key, has_groups=not kinds)
            case "aggregate":
                results = [(self.aggregate(kind, scope), kind) for kind in wanted]
                tail = self._having(scope, 0.2)
            case "window":
                results = [(self.value(kind, scope), kind) for kind in wanted]
                window = self._window(scope, key)
                results.append((window, "int"))
                tail = f" QUALIFY {window} <= 3" if self.chance(0.3) else ""
            case _:
                results = [(self.value(kind, scope), kind) for kind in wanted]
                word = "SELECT DISTINCT" if way == "distinct" else word
                if keeps_key and key:
                    results.insert(0, (key, "int"))
        names = [f"c{number}" for number in range(len(results))]
        if results[0][0] == key:
            names[0] = "k"
        pairs = list(zip(names, results, strict=True))
        listed = ", ".join(f"{value} AS {name}" for name, (value, _) in pairs)
        return f"{word} {listed} {text}{where}{tail}", [(name, kind) for name, (_, kind) in pairs]

    def _grouped(
        self, scope: _Scope, wanted: Sequence[str], key: str | None, *, has_groups: bool
    ) -> tuple[_Columns, str]:
        """The results of a SELECT with groups, and what comes after its WHERE."""
        plain, names = replace(scope, depth=0), [name for name, _ in scope.columns]
        groups = [
            (self.value(kind, plain, 1), kind) for kind in wanted[: self._random.randint(1, 2)]
        ]
        # A constant means a result.
        groups = [
            (text, kind) if any(name in text for name in names) else scope.columns[0]
            for text, kind in groups
        ]
        if key and self.chance(0.4):
            groups[0] = (key, "int")
        kinds = (wanted[len(groups) :] or ["int"]) if has_groups else wanted
        results = [(self.aggregate(kind, scope), kind) for kind in kinds]
        by = f" GROUP BY {', '.join(text for text, _ in groups)}"
        return [*groups, *results] if has_groups else results, by + self._having(scope, 0.3)

    def _having(self, scope: _Scope, share: float) -> str:
        return f" HAVING {self.aggregate('bool', scope)}" if self.chance(share) else ""

    def _window(self, scope: _Scope, key: str | None) -> str:
        first = scope.columns[0][0]
        part = self._random.choice([key or first, first, ""])
        frame = f"PARTITION BY {part}" if part else ""
        plain = replace(scope, depth=0)
        # DuckDB 2.0.0 crashed over ranks of rows with neither.
        if not part or self.chance(0.5):
            frame += f" ORDER BY {self.value('int', plain, 0)}{self._direction()}"
        return self._filled(self._random.choice(_WINDOWS).replace("{}", frame), plain, 0)

    def _direction(self) -> str:
        return self._random.choice(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])

    def query(self) -> str:
        """A statement; one with LIMIT is ordered by all of its columns."""
        form = self._random.random()
        if form < 0.15:
            kinds = self._random.choices(["int", "text", "bool"], k=2)
            one, other = (self.select(1, kinds=kinds)[0] for _ in range(2))
            text, count = f"{one} {self._random.choice(_SETS)} {other}", 2
        elif form < 0.3:
            text, count = self._with(), 1
        else:
            text, columns = self.select(2)
            count = len(columns)
        if self.chance(0.3):
            keys = [f"{number}{self._direction()}" for number in range(1, count + 1)]
            self._random.shuffle(keys)
            text += f" ORDER BY {', '.join(keys)}"
            if self.chance(0.6):
                offset = self._random.choice(["", f" OFFSET {self._random.randint(0, 4)}"])
                text += f" LIMIT {self._random.randint(0, 6)}{offset}"
        return text

    def _with(self) -> str:
        """A query over a CTE, which it reads once or twice."""
        inner, columns = self.select(1, keeps_key=True)
        name = columns[0][0]
        scope = _Scope([(f"q0.{column}", kind) for column, kind in columns], depth=0)
        uses = (
            "",
            f" JOIN z AS q00 ON q0.{name} = q00.{name}",
            f" WHERE q0.{name} IN (SELECT {name} FROM z WHERE {name} IS NOT NULL)",
        )
        value, use = self.aggregate("int", scope), self._random.choice(uses)
        return f"WITH z AS ({inner}) SELECT {value} AS a FROM z AS q0{use}"


def random_query(seed: int) -> str:
    """Return a query; the same one for a seed."""
    return _Writer(random.Random(seed)).query()
