"""Builds the trie of a rules file: structure first, then expressions; reports all problems."""

from __future__ import annotations

import re

from elkyn.rules.checker import check_rule
from elkyn.rules.compiler import compile_expression
from elkyn.rules.document import Constant, Elements, Members, Part, Text
from elkyn.rules.kinds import VARIABLES, Kind
from elkyn.rules.nodes import Name, walk
from elkyn.rules.parser import parse
from elkyn.rules.problems import PROBLEMS_MAX, BadRules, ExpressionError, Lines, Problem
from elkyn.rules.trie import Rule, RuleNode
from elkyn.tree.paths import DEPTH_MAX, key_problem
from sennit_core.text import nearest

__all__ = ["build"]

_VARIABLE = re.compile(r"\$[A-Za-z0-9_]+")
_RULES = {".read": "read", ".write": "write", ".validate": "validate"}
_DOTTED = (*_RULES, ".indexOn")
_FREE_INDEXES = (".key", ".priority")


def build(document: Part, source: str) -> RuleNode:
    """Build the trie of `{"rules": …}`.

    Args:
        document: the parsed `source`.
        source: the text of the file, for lines and columns.

    Raises:
        BadRules: with every problem found.
    """
    builder = _Builder(source)
    rules = builder.top(document)
    root = RuleNode() if rules is None else builder.node(rules, ())
    if builder.problems:
        raise BadRules(sorted(builder.problems))
    return root


class _Builder:
    def __init__(self, source: str) -> None:
        self.lines = Lines(source)
        self.problems: list[Problem] = []

    def refuse(self, offset: int, path: tuple[str, ...], text: str) -> None:
        # Collected, not raised: a user sees every problem of the file at once.
        if len(self.problems) < PROBLEMS_MAX:
            shown = "/" + "/".join(path) if path else ""
            self.problems.append(Problem(*self.lines.place(offset), shown, text))

    def top(self, document: Part) -> Members | None:
        if not isinstance(document, Members):
            self.refuse(
                document.at, (), 'a rules file must be an object with the single member "rules"'
            )
            return None
        rules = None
        for key, part in document.parts:
            if key.value != "rules":
                self.refuse(key.at, (), f'unexpected {key.value[:80]!r} next to "rules"')
            elif isinstance(part, Members):
                rules = part
            else:
                self.refuse(part.at, (), '"rules" must be an object')
        if not any(key.value == "rules" for key, _part in document.parts):
            self.refuse(document.at, (), 'the member "rules" is missing')
        return rules

    def node(self, members: Members, path: tuple[str, ...]) -> RuleNode:
        node = RuleNode()
        for key, part in members.parts:
            name = key.value
            if name.startswith("."):
                self.dotted(node, key, part, path)
            elif not isinstance(part, Members):
                self.refuse(part.at, (*path, name), "the rules of a path must be an object")
            elif name.startswith("$"):
                self.variable(node, key, part, path)
            elif problem := key_problem(name):
                self.refuse(key.at, path, problem)
            elif self.fits(key, path):
                node.children[name] = self.node(part, (*path, name))
        below = [*node.children.values(), *([node.wildcard] if node.wildcard else [])]
        node.validates_below = any(child.validate or child.validates_below for child in below)
        return node

    def fits(self, key: Text, path: tuple[str, ...]) -> bool:
        if len(path) == DEPTH_MAX:
            self.refuse(key.at, path, f"a tree is at most {DEPTH_MAX} levels deep")
        return len(path) < DEPTH_MAX

    def variable(self, node: RuleNode, key: Text, part: Members, path: tuple[str, ...]) -> None:
        name = key.value
        if not _VARIABLE.fullmatch(name):
            self.refuse(
                key.at, path, f"{name[:80]!r} is not a valid name: use $ and letters, digits or _"
            )
        elif node.wildcard is not None:
            self.refuse(key.at, path, f"a second variable at one level: {name}")
        elif name in path:
            self.refuse(key.at, path, f"a level above is already named {name}")
        elif self.fits(key, path):
            node.wildcard = self.node(part, (*path, name))

    def dotted(self, node: RuleNode, key: Text, part: Part, path: tuple[str, ...]) -> None:
        name = key.value
        place = (*path, name)
        if name == ".indexOn":
            node.index_on = self.index_on(part, place)
        elif name not in _RULES:
            guess = nearest(name[:80], _DOTTED)
            hint = f"; did you mean {guess}?" if guess else f"; use one of {', '.join(_DOTTED)}"
            self.refuse(key.at, path, f"unknown key {name[:80]!r}{hint}")
        elif isinstance(part, Constant) and type(part.value) is bool:
            text = "true" if part.value else "false"
            rule = self.rule(name, Text(text, part.at, (part.at,) * (len(text) + 1)), path)
            setattr(node, _RULES[name], rule)
        elif isinstance(part, Text):
            setattr(node, _RULES[name], self.rule(name, part, path))
        else:
            self.refuse(part.at, place, "a rule must be an expression in a string, true or false")

    def index_on(self, part: Part, place: tuple[str, ...]) -> tuple[str, ...]:
        parts = part.parts if isinstance(part, Elements) else (part,)
        names: list[str] = []
        for item in parts:
            if not isinstance(item, Text):
                self.refuse(item.at, place, "an index must be a string, or a list of strings")
                continue
            keys = [key for key in item.value.split("/") if key]
            if item.value == ".value" or item.value in _FREE_INDEXES:
                keys = [item.value]
            elif not keys or any(map(key_problem, keys)):
                self.refuse(item.at, place, f'{item.value[:80]!r} is neither a path nor ".value"')
                continue
            if keys[0] not in _FREE_INDEXES and "/".join(keys) not in names:
                names.append("/".join(keys))
        return tuple(names)

    def rule(self, kind: str, text: Text, path: tuple[str, ...]) -> Rule | None:
        levels = {key: level for level, key in enumerate(path) if key.startswith("$")}
        variables = VARIABLES | dict.fromkeys(levels, Kind.STRING)
        # A read writes nothing, so `newData` is not in scope.
        if kind == ".read":
            del variables["newData"]
        try:
            tree = parse(text.value)
            check_rule(tree, variables)
        except ExpressionError as error:
            self.refuse(text.place(error.at), (*path, kind), error.text)
            return None
        run = compile_expression(tree, len(path), levels)
        place = "/" + "/".join(path)
        line, column = self.lines.place(text.at)
        timed = any(isinstance(node, Name) and node.name == "now" for node in walk(tree))
        return Rule(kind, place, len(path), text.value, line, column, run, tree, timed)
