"""Records out of a node's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from sennit_core.records import Record
from sennit_core.text import camel_case

R = TypeVar("R", bound=Record)


def read_record(kind: type[R], document: Mapping[str, Any]) -> R:
    """Read a record, leaving out members that this version does not know.

    Routes add members to records, and so do newer nodes.

    Raises:
        UsageError: A member is missing or of the wrong type.
    """
    this: type = kind
    known = _known(this)
    return kind.from_json({name: value for name, value in document.items() if name in known})


@cache
def _known(kind: type) -> frozenset[str]:
    return frozenset(camel_case(field.name) for field in fields(kind))
