"""Rules against a naive evaluator, on random rules, trees and writes; and against any text."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elkyn.auth.principal import Principal
from elkyn.rules import BadRules, Problem, parse_rules
from elkyn.rules.memory import MemoryReader
from elkyn.tree.reader import Overlay
from elkyn.tree.values import prepare

Expression: TypeAlias = tuple[Any, ...]
ANN = Principal(
    "a", claims={"n": 1, "yes": True, "deep": {"a": "b"}, "email": "a@b.c"}, custom=("n", "yes")
)
AUTH = {"uid": "a", "provider": "custom", "n": 1, "yes": True, "token": dict(ANN.claims)}

KEYS = st.sampled_from(["a", "b", "c"])
SCALARS = st.sampled_from([1, 2, 1.5, True, False, "a", "b", "ab"])
TREES = st.recursive(
    SCALARS, lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=8
)
ROOTS = st.dictionaries(KEYS, TREES, min_size=1, max_size=3)

# expressions as tuples: the text is made by `render`, the meaning by `evaluate`

LITERALS = st.sampled_from([None, True, 1, 0, 2, "a", "b", ""]).map(lambda value: ("lit", value))
CLAIMS = st.sampled_from([("uid",), ("n",), ("none",), ("none", "x"), ("token", "deep", "a")])
ILLEGAL = (("lit", "x.y"), ("lit", "a/x#y"), ("lit", "$x/b"), ("auth", "token", "email"))
TEXTS = st.sampled_from(
    [("lit", "a"), ("lit", "b"), ("lit", "a/b"), ("auth", "uid"), ("var",), *ILLEGAL]
)


def snapshots(new: bool) -> st.SearchStrategy[Expression]:
    names = ["root", "data", "newData"] if new else ["root", "data"]
    roots = st.sampled_from([(name,) for name in names])
    return st.recursive(
        roots,
        lambda inner: (
            st.tuples(st.just("child"), inner, TEXTS) | st.tuples(st.just("parent"), inner)
        ),
        max_leaves=3,
    )


def values(new: bool) -> st.SearchStrategy[Expression]:
    leaves = (
        LITERALS
        | CLAIMS.map(lambda names: ("auth", *names))
        | st.tuples(st.just("val"), snapshots(new))
    )
    return leaves | st.tuples(st.sampled_from("+-*/%"), leaves, leaves)


def booleans(new: bool) -> st.SearchStrategy[Expression]:
    value = values(new)
    checks = ["exists", "isNumber", "isString", "isBoolean", "hasChildren"]
    leaves = (
        st.tuples(st.sampled_from(["===", "!==", "<", "<=", ">", ">="]), value, value)
        | st.tuples(st.sampled_from(checks), snapshots(new))
        | st.tuples(st.just("has"), snapshots(new), st.lists(TEXTS, min_size=1, max_size=2))
        | st.tuples(st.sampled_from(["contains", "beginsWith", "endsWith"]), TEXTS, value)
        | st.sampled_from([("lit", True), ("lit", True), ("lit", False)])
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.tuples(st.just("!"), inner)
            | st.tuples(st.sampled_from(["&&", "||"]), inner, inner)
            | st.tuples(st.just("?"), inner, inner, inner)
        ),
        max_leaves=4,
    )


def render(node: Expression) -> str:  # noqa: C901 - one case a kind of node
    match node:
        case ("lit", value):
            return json.dumps(value)
        case ("auth", *names):
            return ".".join(["auth", *names])
        case ("var",):
            return "$k"
        case ("child", inner, text):
            return f"{render(inner)}.child({render(text)})"
        case ("has", inner, items):
            return f"{render(inner)}.hasChildren([{', '.join(map(render, items))}])"
        case ("contains" | "beginsWith" | "endsWith" as name, text, value):
            return f"{render(text)}.{name}({render(value)})"
        case ("!", inner):
            return f"!({render(inner)})"
        case ("?", test, yes, no):
            return f"({render(test)} ? {render(yes)} : {render(no)})"
        case (name, inner):
            return f"{render(inner)}.{name}()"
        case (operator, left, right):
            return f"({render(left)} {operator} {render(right)})"
        case (name,):
            return str(name)
    raise AssertionError(node)


class Wrong(Exception):
    """The naive evaluator cannot go on."""


def look(tree: Any, keys: list[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def kind(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (str, dict)):
        return type(value).__name__
    return "number"


def evaluate(node: Expression, world: dict[str, Any]) -> Any:  # noqa: C901 - likewise
    match node:
        case ("lit", value):
            return value
        case ("var",):
            return world["$k"]
        case ("auth", *names):
            return look(AUTH, names)
        case ("root" | "data" | "newData" as name,):
            return (world[name], [] if name == "root" else list(world["keys"]))
        case ("child", inner, text):
            tree, keys = evaluate(inner, world)
            return (tree, [*keys, *evaluate(text, world).split("/")])
        case ("parent", inner):
            tree, keys = evaluate(inner, world)
            if not keys:
                raise Wrong
            return (tree, keys[:-1])
        case ("val", inner):
            return look(*evaluate(inner, world))
        case ("has", inner, items):
            tree, keys = evaluate(inner, world)
            return all(
                look(tree, [*keys, *evaluate(item, world).split("/")]) is not None for item in items
            )
        case ("exists" | "isNumber" | "isString" | "isBoolean" | "hasChildren" as name, inner):
            found = kind(look(*evaluate(inner, world)))
            wanted = {"isNumber": "number", "isString": "str", "isBoolean": "bool"}
            if name == "exists":
                return found != "NoneType"
            return found == wanted.get(name, "dict")
        case ("!", inner):
            return not evaluate(inner, world)
        case ("&&", left, right):
            return evaluate(left, world) and evaluate(right, world)
        case ("||", left, right):
            return evaluate(left, world) or evaluate(right, world)
        case ("?", test, yes, no):
            return evaluate(yes if evaluate(test, world) else no, world)
        case (operator, left, right):
            return operate(operator, evaluate(left, world), evaluate(right, world))
    raise AssertionError(node)


def operate(operator: str, left: Any, right: Any) -> Any:
    kinds = (kind(left), kind(right))
    if operator in ("===", "!=="):
        same = kinds[0] == kinds[1] and left == right
        return same is (operator == "===")
    if operator in ("contains", "beginsWith", "endsWith"):
        if kinds != ("str", "str"):
            raise Wrong
        found = {"contains": right in left, "beginsWith": left.startswith(right)}
        return found.get(operator, left.endswith(right))
    if operator in ("<", "<=", ">", ">="):
        if kinds not in (("str", "str"), ("number", "number")):
            raise Wrong
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[
            operator
        ]
    if operator == "+" and "str" in kinds and set(kinds) <= {"str", "number"}:
        return "".join(f"{float(v):g}" if kind(v) == "number" else v for v in (left, right))
    if kinds != ("number", "number"):
        raise Wrong
    if operator in ("/", "%"):
        return math.nan if right == 0 else left / right if operator == "/" else left % right
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def holds(rule: Expression, world: dict[str, Any]) -> bool:
    try:
        return evaluate(rule, world) is True
    except Wrong:
        return False


def may_be_read(rule: Expression, tree: Any, key: str) -> bool | None:
    """Evaluate a `.read` of `/$k`; None when the static check refuses it."""
    try:
        rules = parse_rules({"rules": {"$k": {".read": render(rule)}}})
    except BadRules:
        return None
    return rules.may_read(MemoryReader(tree), (key,), ANN, 0)


@pytest.mark.slow
@given(booleans(new=False), ROOTS, KEYS)
def test_an_expression_equals_the_naive_evaluator(rule: Expression, tree: Any, key: str) -> None:
    decision = may_be_read(rule, tree, key)
    world = {"root": tree, "data": tree, "keys": [key], "$k": key}
    assert decision is None or decision is holds(rule, world)


RULE = st.sampled_from([("lit", True), ("lit", True), ("lit", False)]) | booleans(new=True)
NODES = st.recursive(
    st.fixed_dictionaries({}, optional={".write": RULE, ".validate": RULE}),
    lambda inner: st.fixed_dictionaries(
        {}, optional={".write": RULE, ".validate": RULE, "a": inner, "b": inner, "$k": inner}
    ),
    max_leaves=6,
)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(tuple)
WRITES = st.dictionaries(PATHS, st.none() | TREES, min_size=1, max_size=3).filter(
    lambda places: not any(a != b and b[: len(a)] == a for a in places for b in places)
)


def rendered(node: Any, bound: bool = False) -> Any:
    """Make uploadable rules: `$k` is used only where it is bound, and bound once."""
    made: dict[str, Any] = {}
    for key, inner in node.items():
        if key.startswith("."):
            text = render(inner)
            made[key] = text if bound or "$k" not in text else "false"
        elif key != "$k" or not bound:
            made[key] = rendered(inner, bound or key == "$k")
    return made


def rules_on(node: Any, keys: tuple[str, ...], name: str) -> list[tuple[int, Any, str | None]]:
    """List the rules called `name` on the way to `keys`: depth, expression, `$k`."""
    found: list[tuple[int, Any, str | None]] = []
    variable: str | None = None
    for depth in range(len(keys) + 1):
        if name in node:
            text = render(node[name])
            bound = variable is not None or "$k" not in text
            found.append((depth, node[name] if bound else ("lit", False), variable))
        if depth == len(keys):
            break
        if keys[depth] in node:
            node = node[keys[depth]]
        elif "$k" in node and variable is None:
            node, variable = node["$k"], keys[depth]
        else:
            break
    return found


def written(tree: Any, keys: tuple[str, ...], value: Any) -> Any:
    if not keys:
        return copy.deepcopy(value)
    made = dict(tree) if isinstance(tree, dict) else {}
    child = written(made.get(keys[0]), keys[1:], value)
    made.pop(keys[0], None)
    if child is not None:
        made[keys[0]] = child
    if not made:
        return None if isinstance(tree, dict) or value is not None else tree
    return made if isinstance(tree, dict) or value is not None else tree


def below(value: Any, keys: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [keys]
    return [keys, *(path for key, inner in value.items() for path in below(inner, (*keys, key)))]


def naive_may_write(node: Any, tree: Any, places: dict[tuple[str, ...], Any]) -> bool:
    after = tree
    for keys, value in places.items():
        after = written(after, keys, value)

    def true(keys: tuple[str, ...], found: tuple[int, Any, str | None]) -> bool:
        depth, rule, variable = found
        world = {"root": tree, "data": tree, "newData": after, "keys": keys[:depth]}
        return holds(rule, {**world, "$k": variable})

    for keys, value in places.items():
        if not any(true(keys, found) for found in rules_on(node, keys, ".write")):
            return False
        if value is None:
            continue
        for path in below(value, keys):
            if not all(true(path, found) for found in rules_on(node, path, ".validate")):
                return False
    return True


@pytest.mark.slow
@given(NODES, ROOTS, WRITES)
def test_a_write_is_checked_as_the_naive_evaluator_does(
    node: Any, tree: Any, places: dict[tuple[str, ...], Any]
) -> None:
    try:
        rules = parse_rules({"rules": rendered(node)})
    except BadRules:
        return
    before = MemoryReader(tree)
    stored = [(keys, prepare(value).value) for keys, value in places.items()]
    decision = rules.may_write(before, Overlay(before, stored), stored, ANN, 0)
    assert decision is naive_may_write(node, tree, places)


WORDS = st.text(
    "root data.val() auth newData now $k $z true null query child exists", max_size=9
) | (
    st.sampled_from(["root", "newData", "auth", "now", "query", "$k", "$z", "true", "null", "'a'"])
    | st.sampled_from(
        [".val()", ".child(", ".exists()", ".length", ".matches(/", "/", "/i", "[", "]"]
    )
    | st.sampled_from(
        ["&&", "||", "!", "==", "!==", "<", "+", "-", "%", "?", ":", ",", "(", ")", "1"]
    )
)


@pytest.mark.slow
@given(st.lists(WORDS | st.text(max_size=3), max_size=25).map(" ".join))
@example("'" + "\\" * 99)
@example("/" * 99)
def test_any_text_is_a_rule_or_is_refused(text: str) -> None:
    try:
        rules = parse_rules(json.dumps({"rules": {"$k": {".write": text}}}))
    except BadRules:
        return
    reader = MemoryReader({"a": 1})
    rules.may_write(reader, reader, [(("a",), 1)], ANN, 0)


@pytest.mark.slow
@given(st.text('{}[]",:.$/*\\ \n', max_size=40) | st.text(max_size=40) | st.binary(max_size=40))
def test_any_file_is_rules_or_is_refused(source: str | bytes) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        parse_rules(source)
    except BadRules as refused:
        problems = tuple(refused.problems)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


@pytest.mark.slow
@pytest.mark.sample(6)
@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000 + "true",
        "!" * 50_000 + "true",
        "-" + "- " * 30_000 + "1 == 1",
        "true ? " * 9_000,
        "true ? true : " * 4_000 + "true",
        "root" + ".child('a')" * 5_000 + ".exists()",
        "root" + ".parent()" * 7_000 + ".exists()",
        "1" + " + 1" * 16_000 + " == 1",
        "[" * 50_000,
        "auth" + ".a" * 30_000 + " == 1",
        "auth" + "[auth" * 10_000,
        "auth.uid.matches(/" + "(" * 50_000 + "/)",
        "auth.uid.matches(/" + "[" * 50_000,
        "auth.uid.matches(/" + "a{1,1000}" * 5_000 + "/)",
        "/*" * 30_000,
        "'" + "\\'" * 30_000,
        "a" * 60_000 + " == 1",
        " " * 60_000,
        "true" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_deep_and_long_rules_are_refused_in_few_steps(text: str) -> None:
    def upload() -> None:
        with pytest.raises(BadRules):
            parse_rules({"rules": {".read": text}})

    assert steps_of(upload) < 10_000 + 40 * len(text)


def steps_of(action: Callable[[], object]) -> int:
    """Count the calls that `action` makes."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["true" + " && true" * 8_000, "false" + " || true" * 8_000, "!" * 70 + "true"]
)
def test_long_chains_are_fine(text: str) -> None:
    rules = parse_rules({"rules": {".read": text}})
    assert rules.may_read(MemoryReader(), (), ANN, 0)
    assert rules.explain_read(MemoryReader(), (), ANN, 0).allowed


@pytest.mark.parametrize("source", ['{"a":' * 100_000, "[" * 100_000, "//" * 99, '{"rules": ' * 99])
def test_deep_files_are_refused(source: str) -> None:
    with pytest.raises(BadRules):
        parse_rules(source)


def test_the_highest_tree_that_is_accepted_runs_where_the_stack_is_deep() -> None:
    text = "(" * 35 + "!" * 70 + "true" + ")" * 35
    rules = parse_rules({"rules": {".read": text}})

    def deep(level: int) -> bool:
        if level:
            return deep(level - 1)
        return rules.explain_read(MemoryReader(), (), ANN, 0).allowed

    assert deep(400)
