"""Replace `${name}` and `${name:-default}` in the values of a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from emsqrt.documents.tree import Node
from emsqrt.documents.yaml_text import resolve
from sennit_core.text import nearest

_REFERENCE = re.compile(r"\$(\$\{)|\$\{(?:(env):)?([A-Za-z_]\w*)(?::-([^}]*))?\}|\$\{")


def fill_in(
    root: Node, overrides: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> Node:
    """Return the document without its `vars`, and with each reference replaced.

    An unquoted value that consists of one reference has the type of its replacement: `count: ${n}`
        is a number. `$${` stays a literal `${`.

    Args:
        root: the document; its member `vars` holds defaults.
        overrides: values that override the document's.
        environment: the values of `${env:NAME}`; None refuses such references.

    Raises:
        BadDocument: a name without a value, or the environment where it is not allowed.
    """
    members = dict(root.members())
    declared = members.pop("vars", None)
    values: dict[str, str] = {}
    if declared is not None:
        values = {
            name: _replaced(each, {}, environment).text()
            for name, each in declared.members().items()
        }
    values.update(overrides)
    return Node(
        {key: _walk(each, values, environment) for key, each in members.items()}, root.place
    )


def _walk(node: Node, values: Mapping[str, str], environment: Mapping[str, str] | None) -> Node:
    match node.value:
        case dict():
            below = {key: _walk(each, values, environment) for key, each in node.value.items()}
            return replace(node, value=below)
        case list():
            return replace(node, value=[_walk(each, values, environment) for each in node.value])
        case str() if "$" in node.value:
            return _replaced(node, values, environment)
    return node


def _replaced(node: Node, values: Mapping[str, str], environment: Mapping[str, str] | None) -> Node:
    if not isinstance(node.value, str):
        return node

    def value_of(match: re.Match[str]) -> str:
        escaped, scope, name, default = match.groups()
        if escaped:
            return "${"
        if name is None:
            node.fail("a reference is written ${name} or ${name:-default}", "$${ is ${ itself")
        if scope and environment is None:
            node.fail(f"${{env:{name}}}: the environment is not read", "allow it, or use --var")
        known = environment if scope and environment is not None else values
        if name in known:
            return known[name]
        if default is None:
            missing(name, known)
        return default

    def missing(name: str, known: Mapping[str, str]) -> NoReturn:
        guess = nearest(name, tuple(known))
        node.fail(
            f"the variable {name!r} has no value",
            f'did you mean "{guess}"?' if guess else f"use --var {name}=… or a default under vars",
        )

    made = _REFERENCE.sub(value_of, node.value)
    whole = _REFERENCE.fullmatch(node.value) is not None and not node.value.startswith("$$")
    return replace(node, value=resolve(made) if whole and node.plain else made)
