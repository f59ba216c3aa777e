"""Convert steps to a plan: each verb extends the pipeline of the preceding steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar

from emsqrt.documents.errors import BadDocument
from emsqrt.documents.tree import Node
from emsqrt.documents.verbs import OTHER_KEYS, SYNONYMS, VERBS, Verb
from emsqrt.expr import Agg, BadExpression, Column, Expr, parse_expr, parse_named, parse_order
from emsqrt.expr.type_names import parse_type
from emsqrt.pipeline import Grouped, Pipeline, scan
from emsqrt.plan import DatasetRef, Scan, SortKey, check, window_call
from emsqrt.plan.tree import scans_of
from sennit_core.errors import SennitError, UsageError
from sennit_core.schema import DataType, Field, Schema
from sennit_core.text import nearest

Members: TypeAlias = dict[str, Node]
T = TypeVar("T")
_AS_NAME = re.compile(r"\s*(.+\S)\s+as\s+(\w+)\s*", re.IGNORECASE | re.DOTALL)


class NamedInputs:
    """The named inputs of a document, each built on first use."""

    def __init__(self, named: Mapping[str, Node]) -> None:
        self._named = dict(named)
        self._built: dict[str, Pipeline] = {}
        self._building: list[str] = []

    def of(self, node: Node) -> Pipeline:
        """Return the rows that `node` refers to: an input's name, one step, or a list of steps."""
        if not isinstance(node.value, str):
            return build(node, self)
        name = node.value
        if name not in self._named:
            guess = nearest(name, tuple(self._named))
            known = f"there are {', '.join(self._named)}" if self._named else "there are none"
            node.fail(
                f"no input is called {name!r}", f'did you mean "{guess}"?' if guess else known
            )
        if name in self._building:
            node.fail(f"the input {name!r} reads from itself: {' -> '.join(self._building)}")
        if name not in self._built:
            self._building.append(name)
            self._built[name] = build(self._named[name], self)
            self._building.pop()
        return self._built[name]


def build(steps: Node, inputs: NamedInputs) -> Pipeline:
    """Return the pipeline of a list of steps, or of a single one.

    Raises:
        BadDocument: a step is not understood; the message names the position and the nearest word.
    """
    pipeline: Pipeline | None = None
    for step in steps.items():
        verb, members = open_step(step)
        if (verb in ("scan", "from")) != (pipeline is None):
            step.fail("steps begin with one scan, or with from and an input's name")
        pipeline = _at(step, partial(_VERBS[verb], pipeline, members, inputs))
        _check_types(step, pipeline)
    if pipeline is None:
        steps.fail("there is no step here: begin with a scan")
    return pipeline


def open_step(step: Node) -> tuple[str, Members]:
    """Return a step's verb and its keys, in either of the two notations."""
    members = step.members()
    if "op" in members:
        named = members["op"]
        word = named.text()
        verb = _verb(named, word)
        body = Node({key: each for key, each in members.items() if key != "op"}, step.place)
    elif len(members) == 1:
        ((word, body),) = members.items()
        verb = _verb(body if body.place.line == 0 else step, word)
    else:
        step.fail("a step is one verb with its keys, or has a key op", "such as `- filter: a > 1`")
    return verb, _keys(verb, VERBS[verb], _respelled(word, body))


def _respelled(word: str, body: Node) -> Node:
    """Return a step's keys under their names here; documents of other engines may use others."""
    others = OTHER_KEYS.get(word, {})
    if not isinstance(body.value, dict) or others.keys().isdisjoint(body.value):
        return body
    members: Members = {}
    for key, each in body.value.items():
        name = others.get(key, key)
        if name in members:
            each.fail(f"{word} has {key!r} and {name!r}, which are the same key; keep one of them")
        members[name] = each
    return Node(members, body.place)


def _verb(node: Node, word: str) -> str:
    verb = SYNONYMS.get(word, word)
    if verb not in VERBS:
        guess = nearest(word, (*VERBS, *SYNONYMS))
        hint = f'did you mean "{guess}"?' if guess else f"there are {', '.join(VERBS)}"
        node.fail(f"there is no verb {word!r}", hint)
    return verb


def _keys(name: str, verb: Verb, body: Node) -> Members:
    bare_object = verb.bare in ("names", "columns") and name in ("project", "rename")
    if isinstance(body.value, dict) and not (bare_object and verb.bare not in body.value):
        members = body.only(verb.keys, name)
    elif body.value is None and not verb.required:
        members = {}
    elif verb.bare is not None and body.value is not None:
        members = {verb.bare: body}
    else:
        body.fail(f"{name} needs keys with values, found {body.kind}")
    for key in verb.required:
        if key not in members:
            body.fail(f"{name} needs {key!r}")
    return {key: each for key, each in members.items() if each.value is not None}


def _at(node: Node, compute: Callable[[], T]) -> T:
    """Return what `compute` returns; locate a usage error at `node`."""
    try:
        return compute()
    except BadDocument:
        raise
    except UsageError as error:
        raise BadDocument(str(node.place), str(error), hint=error.hint) from error


def _check_types(step: Node, pipeline: Pipeline) -> None:
    """Check the plan's types so far, once the schemas of all its scans are known."""
    if any(not isinstance(each, Scan) or each.schema is None for each in scans_of(pipeline.plan)):
        return
    try:
        check(pipeline.plan)
    except SennitError as error:
        raise BadDocument(str(step.place), str(error), hint=error.hint) from error


# Texts within a document ------------------------------------------------------------------------


def _parsed(node: Node, read: Callable[[str], T]) -> T:
    """Return what `read` returns for a text; locate a parse error within the document."""
    text = node.text()
    try:
        return read(text)
    except BadExpression as error:
        place = node.place.moved(error.column - 1) if error.line == 1 else node.place
        shown = "\n".join(str(error).splitlines()[1:])
        raise BadDocument(str(place), f"{error.reason}\n{shown}", hint=error.hint) from None
    except UsageError as error:
        raise BadDocument(str(node.place), str(error), hint=error.hint) from error


def _expr(node: Node) -> Expr:
    if isinstance(node.value, bool):
        return parse_expr(str(node.value).lower())
    return _parsed(node, parse_expr)


def _listed(node: Node) -> list[Node]:
    """Return the items of a list; a text is split at its commas."""
    items: list[Node] = []
    for item in node.items():
        if not isinstance(item.value, str):
            items.append(item)
            continue
        parts = _split(item.value)
        several = len(parts) > 1
        items += [Node(part, item.place.moved(at)) for at, part in parts] if several else [item]
    return items


def _split(text: str) -> list[tuple[int, str]]:
    """Return the parts between commas outside of quotes and brackets, each with its position."""
    parts: list[tuple[int, str]] = []
    depth, quote, start = 0, "", 0
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and not depth:
            parts.append((start, text[start:at]))
            start = at + 1
    return [*parts, (start, text[start:])]


def _named(node: Node) -> list[tuple[str, Expr]]:
    """Read output columns: texts, possibly with `AS`, or names with expressions."""
    made: list[tuple[str, Expr]] = []
    for item in _listed(node):
        if isinstance(item.value, dict):
            made += [(name, _expr(each)) for name, each in item.value.items()]
        else:
            made.append(_parsed(item, parse_named))
    return made


def _aggregates(node: Node) -> tuple[list[Agg], dict[str, Agg]]:
    """Read aggregates: unnamed ones, whose names are derived, and named ones."""
    bare: list[Agg] = []
    named: dict[str, Agg] = {}
    for item in _listed(node):
        if isinstance(item.value, dict):
            named |= {name: _aggregate(each, _expr(each)) for name, each in item.value.items()}
            continue
        try:
            name, expr = parse_named(item.text())
        except BadExpression:
            bare.append(_aggregate(item, _expr(item)))
        else:
            named[name] = _aggregate(item, expr)
    return bare, named


def _aggregate(node: Node, expr: Expr) -> Agg:
    if not isinstance(expr, Agg):
        node.fail(f"{expr!s} is not an aggregate", "such as SUM(amount) or COUNT(*)")
    return expr


def _order(node: Node) -> list[SortKey]:
    keys = []
    for item in _listed(node):
        if isinstance(item.value, dict):
            members = item.only(("expr", "descending", "nulls_first"), "a sort key")
            if "expr" not in members:
                item.fail("a sort key needs 'expr'")
            down, first = members.get("descending"), members.get("nulls_first")
            keys.append(
                SortKey(
                    _expr(members["expr"]), bool(down and down.flag()), bool(first and first.flag())
                )
            )
        else:
            expr, descending, nulls_first = _parsed(item, _marked_order)
            keys.append(SortKey(expr, descending, bool(nulls_first)))
    return keys


def _marked_order(text: str) -> tuple[Expr, bool, bool | None]:
    """Read a sort key; `amount:desc` means `amount desc`."""
    for mark in (":desc", ":asc"):
        if text.lower().endswith(mark):
            return parse_order(f"{text[: -len(mark)]} {mark[1:]}")
    return parse_order(text)


def _pairs(node: Node) -> list[tuple[str, str]]:
    """Read pairs of names: {old: new}, or "old AS new", or a name that is kept."""
    pairs: list[tuple[str, str]] = []
    for item in _listed(node):
        if isinstance(item.value, dict):
            pairs += [(old, new.text()) for old, new in item.value.items()]
            continue
        name, expr = _parsed(item, parse_named)
        if not isinstance(expr, Column):
            item.fail(f"{expr!s} is no column's name", "use with_column or project for expressions")
        pairs.append((expr.name, name))
    return pairs


# Verbs ------------------------------------------------------------------------------------------


def _scan(_: Any, step: Members, __: NamedInputs) -> Pipeline:
    schema = None if "schema" not in step else _schema(step["schema"])
    if "dataset" in step:
        snapshot = step["snapshot"].text() if "snapshot" in step else None
        rows = Pipeline(Scan(DatasetRef(step["dataset"].text(), snapshot), schema))
    elif "source" in step:
        options = step["options"].data() if "options" in step else {}
        kind = step["format"].text() if "format" in step else None
        rows = scan(*step["source"].texts(), format=kind, schema=schema, **options)
    else:
        raise UsageError("scan needs 'source' or 'dataset'")
    return rows if "columns" not in step else rows.select(*step["columns"].texts())


def _schema(node: Node) -> Schema:
    if isinstance(node.value, dict):
        return Schema(tuple(Field(name, _type(each)) for name, each in node.value.items()))
    fields = []
    for item in node.items():
        members = item.only(("name", "type", "nullable"), "a column")
        for key in ("name", "type"):
            if key not in members:
                item.fail(f"a column needs {key!r}")
        nullable = "nullable" not in members or members["nullable"].flag()
        fields.append(Field(members["name"].text(), _type(members["type"]), nullable))
    return Schema(tuple(fields))


def _type(node: Node) -> DataType:
    return _parsed(node, parse_type)


def _from(_: Any, step: Members, inputs: NamedInputs) -> Pipeline:
    return inputs.of(step["input"])


def _filter(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    return rows.filter(_expr(step["expr"]))


def _project(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    return rows.select(**dict(_unique(step["columns"], _named(step["columns"]))))


def _unique(node: Node, pairs: list[tuple[str, T]]) -> list[tuple[str, T]]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            node.fail(f"two columns would be called {name!r}")
    return pairs


def _with_column(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    made = _named(step["columns"]) if "columns" in step else []
    if "name" in step and "expr" in step:
        made.append((step["name"].text(), _expr(step["expr"])))
    if not made:
        raise UsageError("with_column needs 'name' and 'expr', or 'columns'")
    return rows.with_columns(**dict(made))


def _aggregate_step(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    keys = _unique(step["group_by"], _named(step["group_by"])) if "group_by" in step else []
    bare, named = _aggregates(step["aggs"])
    return Grouped(rows.plan, tuple(keys)).agg(*bare, **named)


def _join(rows: Pipeline, step: Members, inputs: NamedInputs) -> Pipeline:
    other = inputs.of(step["with"])
    on = _pairs(step["on"]) if "on" in step else []
    options: dict[str, Any] = {key: step[key].text() for key in ("how", "suffix") if key in step}
    return rows.join(other, on, **options)


def _union(rows: Pipeline, step: Members, inputs: NamedInputs) -> Pipeline:
    others = [inputs.of(each) for each in step["with"].items()]
    return rows.union(*others, by_name="by_name" in step and step["by_name"].flag())


def _window(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    parts = (
        [_parsed(each, parse_expr) for each in _listed(step["partition_by"])]
        if ("partition_by" in step)
        else []
    )
    order = _order(step["order_by"]) if "order_by" in step else []
    functions = {
        name: _parsed(each, window_call) for name, each in _window_functions(step["functions"])
    }
    return rows.window(parts, order, **functions)


def _window_functions(node: Node) -> list[tuple[str, Node]]:
    """Read window functions by name: {n: "row_number()"}, or "row_number() AS n"."""
    if isinstance(node.value, dict):
        return list(node.value.items())
    found = []
    for item in _listed(node):
        named = _AS_NAME.fullmatch(item.text()) if isinstance(item.value, str) else None
        if named is None:
            item.fail("a window function needs a name", "functions: {n: row_number()}")
        found.append((named[2], Node(named[1], item.place)))
    return _unique(node, found)


def _explode(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    position = step["position"].text() if "position" in step else None
    as_name = step["as"].text() if "as" in step else None
    outer = "outer" in step and step["outer"].flag()
    return rows.explode(step["column"].text(), as_name, outer=outer, position=position)


def _sample(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    fraction = step["fraction"].number() if "fraction" in step else None
    count = step["count"].count() if "count" in step else None
    seed = step["seed"].count() if "seed" in step else 0
    return rows.sample(fraction, count=count, seed=seed)


def _expect(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    unique, not_null = (step[key].texts() if key in step else [] for key in ("unique", "not_null"))
    return rows.expect(
        unique=unique, not_null=not_null, rows=step["rows"].text() if "rows" in step else None
    )


def _sink(rows: Pipeline, step: Members, _: NamedInputs) -> Pipeline:
    options = step["options"].data() if "options" in step else {}
    kind = step["format"].text() if "format" in step else None
    return rows.sink(step["destination"].text(), kind, **options)


def _count(step: Members, key: str) -> int:
    return step[key].count() if key in step else 0


_VERBS: dict[str, Callable[[Any, Members, NamedInputs], Pipeline]] = {
    "scan": _scan,
    "from": _from,
    "filter": _filter,
    "project": _project,
    "rename": lambda rows, step, _: rows.rename(dict(_pairs(step["names"]))),
    "with_column": _with_column,
    "aggregate": _aggregate_step,
    "sort": lambda rows, step, _: rows.sort(*_order(step["by"])),
    "top_k": lambda rows, step, _: rows.top_k(
        step["count"].count(), *_order(step["by"]), offset=_count(step, "offset")
    ),
    "distinct": lambda rows, step, _: rows.distinct(
        *(step["columns"].texts() if "columns" in step else ())
    ),
    "limit": lambda rows, step, _: rows.limit(step["count"].count(), _count(step, "offset")),
    "sample": _sample,
    "explode": _explode,
    "join": _join,
    "union": _union,
    "window": _window,
    "expect": _expect,
    "sink": _sink,
}
