"""Rules that would be accepted and are probably not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from elkyn.rules.nodes import Literal
from elkyn.rules.problems import Problem
from elkyn.rules.trie import Rule, RuleNode

__all__ = ["advise"]


def advise(root: RuleNode) -> list[Problem]:
    """Return what is dubious about rules, in the order of the file."""
    found = [*_open_to_all(root), *_never_asked(root, {})]
    return sorted(found)


def _open_to_all(root: RuleNode) -> Iterator[Problem]:
    for rule, verb in ((root.read, "read"), (root.write, "write")):
        if rule is not None and _always(rule):
            yield _about(rule, f"anybody may {verb} everything, signed in or not")


def _never_asked(node: RuleNode, above: dict[str, Rule]) -> Iterator[Problem]:
    granting = dict(above)
    for rule in (node.read, node.write):
        if rule is None:
            continue
        if rule.kind in above:
            granted = above[rule.kind]
            yield _about(
                rule, f"never asked: {granted.kind} of {granted.place} grants all below it"
            )
        elif _always(rule):
            granting[rule.kind] = rule
    below = [*node.children.values(), *([node.wildcard] if node.wildcard else [])]
    for child in below:
        yield from _never_asked(child, granting)


def _always(rule: Rule) -> bool:
    return isinstance(rule.tree, Literal) and rule.tree.value is True


def _about(rule: Rule, text: str) -> Problem:
    return Problem(rule.line, rule.column, f"{rule.place.rstrip('/')}/{rule.kind}", text)
