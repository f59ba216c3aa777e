"""Lint of rules: valid rules that are probably not intended."""

from __future__ import annotations

from collections.abc import Iterator

from elkyn.rules.nodes import Call, Items, Literal, Member, Node, walk
from elkyn.rules.problems import Problem
from elkyn.rules.snapshots import split_path
from elkyn.rules.trie import Rule, RuleNode
from elkyn.tree.paths import key_problem

__all__ = ["advise"]


def advise(root: RuleNode) -> list[Problem]:
    """Return warnings about rules, in the order of the file."""
    found = [*_open_to_all(root), *_never_asked(root, {}), *_illegal_paths(root)]
    return sorted(found)


def _open_to_all(root: RuleNode) -> Iterator[Problem]:
    for rule, verb in ((root.read, "read"), (root.write, "write")):
        if rule is not None and _always(rule):
            yield _about(rule, f"every client, even unauthenticated, may {verb} everything")


def _never_asked(node: RuleNode, above: dict[str, Rule]) -> Iterator[Problem]:
    granting = dict(above)
    for rule in (node.read, node.write):
        if rule is None:
            continue
        if rule.kind in above:
            granted = above[rule.kind]
            yield _about(
                rule,
                f"never evaluated: {granted.kind} of {granted.place} grants everything below it",
            )
        elif _always(rule):
            granting[rule.kind] = rule
    for child in _below(node):
        yield from _never_asked(child, granting)


def _illegal_paths(node: RuleNode) -> Iterator[Problem]:
    for rule in (node.read, node.write, node.validate):
        if rule is None:
            continue
        for path in _constant_paths(rule.tree):
            steps = split_path(path)
            if steps is not None and steps.illegal is not None:
                problem = key_problem(steps.keys[steps.illegal])
                yield _about(rule, f"no data can exist at {path[:80]!r}: {problem}")
    for child in _below(node):
        yield from _illegal_paths(child)


def _constant_paths(tree: Node) -> Iterator[str]:
    """Yield the constant arguments of `child`, `hasChild` and `hasChildren`."""
    for call in walk(tree):
        if not (isinstance(call, Call) and isinstance(call.method, Member)):
            continue
        if call.method.name not in ("child", "hasChild", "hasChildren"):
            continue
        for argument in call.arguments:
            for item in argument.items if isinstance(argument, Items) else [argument]:
                if isinstance(item, Literal) and isinstance(item.value, str):
                    yield item.value


def _below(node: RuleNode) -> list[RuleNode]:
    return [*node.children.values(), *([node.wildcard] if node.wildcard else [])]


def _always(rule: Rule) -> bool:
    return isinstance(rule.tree, Literal) and rule.tree.value is True


def _about(rule: Rule, text: str) -> Problem:
    return Problem(rule.line, rule.column, f"{rule.place.rstrip('/')}/{rule.kind}", text)
