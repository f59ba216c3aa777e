"""Convert plans to JSON and back, and to the canonical text whose SHA-256 identifies a plan.

`{"v": 1, "op": "filter", "input": {…}, "predicate": {…}}`: the version is a member of the root
only; a member with its default value is omitted when written and optional when read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emsqrt.expr.document import Entry, Json, open_document
from emsqrt.plan.nodes import Plan
from emsqrt.plan.reading import read_plan
from emsqrt.plan.writing import write_plan
from sennit_core.errors import Unsupported
from sennit_core.hashing import canonical_json, sha256_hex

VERSION = 1


def plan_to_json(plan: Plan) -> Json:
    """Return the JSON object of `plan`.

    Raises:
        BadPlan: more operators or a deeper expression than a reader accepts.
    """
    return {"v": VERSION, **write_plan(plan)}


def canonical_plan(plan: Plan) -> bytes:
    """Return the canonical text of `plan`: RFC 8785 JSON, UTF-8."""
    return canonical_json(plan_to_json(plan))


def plan_hash(plan: Plan) -> str:
    """Return the lower-case hex SHA-256 of `canonical_plan(plan)`."""
    return sha256_hex(canonical_plan(plan))


def plan_from_json(source: str | bytes | Mapping[str, Any]) -> Plan:
    """Parse a plan from untrusted JSON; nothing is resolved or typed yet.

    Raises:
        BadPlan: not a plan; the error's `pointer` is the position.
        Unsupported: it names an operator, function or type that is reserved for later.
        TooLarge: over the limits of `open_document`.
    """
    root = open_document(source)
    if not isinstance(root.value, dict) or "v" not in root.value:
        root.fail("member 'v', the version of the plan format, is missing", hint='begin {"v": 1,')
    if root.value["v"] != VERSION or isinstance(root.value["v"], bool):
        raise Unsupported(f"plan version {root.value['v']!r}: this engine reads version {VERSION}")
    body = {key: value for key, value in root.value.items() if key != "v"}
    return read_plan(Entry(body))
