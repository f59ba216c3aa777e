"""JSON request bodies: read up to a size limit, then validated."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from sennit_core.errors import TooLarge, UsageError
from sennit_core.units import MIB, parse_bytes

__all__ = ["Bytes", "Document", "check_document", "parse_json", "read_document"]

DOCUMENT_BYTES_MAX = MIB

Bytes = Annotated[int, BeforeValidator(lambda value: parse_bytes(value))]
"""A size: a number of bytes, or a string such as "64MiB"."""


class Document(BaseModel):
    """Base class of request bodies: camelCase names, unknown members refused."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


D = TypeVar("D", bound=Document)


async def read_document(request: Request, kind: type[D]) -> D:
    """Read a JSON body.

    Raises:
        TooLarge: It is over 1 MiB.
        UsageError: It is not JSON, or not a valid document of this kind.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > DOCUMENT_BYTES_MAX:
            raise TooLarge(what="the JSON document", limit_bytes=DOCUMENT_BYTES_MAX)
    return check_document(parse_json(body), kind)


def parse_json(text: bytes | bytearray) -> Any:
    """Parse JSON; UsageError when the text is not JSON."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"this is not JSON: {problem}") from None


def check_document(document: Any, kind: type[D]) -> D:
    """Validate a parsed document; UsageError names the first invalid member."""
    try:
        return kind.model_validate(document)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        member = ".".join(str(part) for part in first["loc"]) or "the document"
        raise UsageError(f"{member}: {first['msg']}") from None
