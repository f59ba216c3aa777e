"""Parse YAML to a tree with positions, by PyYAML's parser and YAML 1.2's core schema.

Only plain data is accepted: `yes` and `on` are texts, as in YAML 1.2, and tags other than the core
ones are refused. Aliases are followed and counted each time, so that they cannot blow up a
document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from emsqrt.documents.errors import BadDocument
from emsqrt.documents.tree import DEPTH_MAX, VALUES_MAX, Node, Place, Scalar
from sennit_core.errors import Unsupported
from sennit_core.extras import install_hint

_TAGS = ("str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge", "value")
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_yaml(text: str, source: str) -> Node:
    """Return the tree of one YAML document.

    Args:
        text: the document.
        source: the file's name, for positions.

    Raises:
        Unsupported: PyYAML is not installed.
        BadDocument: not YAML, two equal keys, a tag, too deep or too large.
    """
    try:
        import yaml
    except ImportError:
        hint = f"{install_hint('sennit-emsqrt', 'PyYAML')}, or write the document as JSON"
        raise Unsupported("reading YAML needs PyYAML", hint=hint) from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(yaml.parse(text, Loader=loader), source)
        root = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        raise BadDocument(str(place), f"not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadDocument(source, f"not YAML: {error}") from None
    return _Reader(source).node(root, 1)


def _check_depth(events: Iterable[Any], source: str) -> None:
    """Refuse deep nesting before PyYAML composes it, which recurses once per level."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name in ("SequenceStartEvent", "MappingStartEvent")
        depth -= name in ("SequenceEndEvent", "MappingEndEvent")
        if depth > DEPTH_MAX:
            place = Place(source, event.start_mark.line + 1, event.start_mark.column + 1)
            raise BadDocument(str(place), f"nested deeper than {DEPTH_MAX} levels")


class _Reader:
    """Convert PyYAML's nodes; their kind is identified by `id`, so PyYAML need not be imported."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.left = VALUES_MAX

    def node(self, node: Any, depth: int) -> Node:
        if node is None:
            return Node(None, Place(self.source, 1, 1))
        place = Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)
        self.left -= 1
        if depth > DEPTH_MAX:
            raise BadDocument(str(place), f"nested deeper than {DEPTH_MAX} levels")
        if self.left < 0:
            raise BadDocument(str(place), f"more than {VALUES_MAX:,} values")
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
            raise BadDocument(
                str(place), f"the tag {node.tag} is not supported: only plain data is"
            )
        match node.id:
            case "scalar":
                return self.scalar(node, place)
            case "sequence":
                return Node([self.node(each, depth + 1) for each in node.value], place)
        return Node(self.members(node, depth), place)

    def scalar(self, node: Any, place: Place) -> Node:
        plain = not node.style
        if not plain or (node.tag.endswith(":str") and node.value in _WORDS and node.value):
            return Node(node.value, place.moved(1) if node.style in ("'", '"') else place)
        return Node(resolve(node.value), place, plain=True)

    def members(self, node: Any, depth: int) -> dict[str, Node]:
        members: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            place = Place(self.source, key.start_mark.line + 1, key.start_mark.column + 1)
            if key.id != "scalar":
                raise BadDocument(str(place), "a key is a plain text")
            read = self.node(value, depth + 1)
            if key.value == "<<" and not key.style:
                for each in read.items():
                    merged = {**each.members(), **merged}
            elif key.value in members:
                raise BadDocument(str(place), f"the key {key.value!r} occurs twice")
            else:
                members[key.value] = read
        return {**merged, **members}


def resolve(text: str) -> Scalar:
    """Resolve an unquoted scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
