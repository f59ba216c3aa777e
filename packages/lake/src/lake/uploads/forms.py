"""Read multipart/form-data as a stream: no part is held in memory or copied to a second file.

The format is RFC 7578; `python-multipart` parses it, this module enforces size limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from sennit_core.errors import TooLarge, UsageError
from sennit_core.units import KIB

__all__ = ["FORM_FIELDS_BYTES_MAX", "FormPart", "FormReader"]

_FIELD_BYTES_MAX = 64 * KIB
_PARTS_MAX = 32
FORM_FIELDS_BYTES_MAX = 2 * _PARTS_MAX * _FIELD_BYTES_MAX
"""Upper bound of the size of a form's fields, with their headers and boundaries."""


@dataclass(slots=True)
class FormPart:
    """One part of a form; its bytes can be read only until the next part is requested.

    Args:
        name: The field's name.
        filename: The file's name; None for a plain field.
    """

    name: str
    filename: str | None
    _form: FormReader = field(repr=False)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the part as they arrive."""
        while (piece := await self._form.next_piece()) is not None:
            yield piece

    async def text(self) -> str:
        """Read a plain field; TooLarge beyond 64 KiB."""
        collected = bytearray()
        async for piece in self.pieces():
            collected += piece
            if len(collected) > _FIELD_BYTES_MAX:
                raise TooLarge(what=f"form field {self.name}", limit_bytes=_FIELD_BYTES_MAX)
        try:
            return collected.decode()
        except UnicodeDecodeError as problem:
            raise UsageError(f"form field {self.name} is not UTF-8") from problem


class FormReader:
    """Iterates over the parts of a form.

    Args:
        content_type: The request's Content-Type, with the boundary.
        body: The request's body.

    Raises:
        UsageError: It is not a multipart form, or is malformed.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UsageError("the body is not multipart/form-data with a boundary")
        self._body = body
        self._parts = 0
        self._events: deque[tuple[str, bytes]] = deque()
        self._header = (bytearray(), bytearray())
        try:
            self._parser = self._open_parser(options[b"boundary"])
        except FormParserError as problem:
            raise UsageError(f"the form's boundary is not valid: {problem}") from problem

    def _open_parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": lambda: self._events.append(("begin", b"")),
                "on_header_field": lambda data, start, end: self._grow(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._grow(1, data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": lambda: self._events.append(("headers", b"")),
                "on_part_data": lambda data, start, end: self._events.append(
                    ("data", data[start:end])
                ),
                "on_part_end": lambda: self._events.append(("end", b"")),
                "on_end": lambda: self._events.append(("finished", b"")),
            },
        )

    async def __aiter__(self) -> AsyncIterator[FormPart]:
        open_part = False
        disposition = b""
        while True:
            name, value = await self._next()
            if name == "begin":
                open_part, disposition = True, b""
                self._count()
            elif name == "header":
                disposition = value
            elif name == "headers":
                yield self._part(disposition)
            elif name == "end":
                open_part = False
            elif name == "finished" and not open_part:
                return

    async def next_piece(self) -> bytes | None:
        """Return the next bytes of the current part, None at its end."""
        if self._events and self._events[0][0] == "end":
            return None
        name, value = await self._next()
        if name == "end":
            self._events.appendleft((name, value))
            return None
        return value

    async def _next(self) -> tuple[str, bytes]:
        while not self._events:
            data = await anext(self._body, None)
            if data is None:
                raise UsageError("the multipart form ends before its closing boundary")
            try:
                self._parser.write(data)
            except MultipartParseError as problem:
                raise UsageError(f"the multipart form is malformed: {problem}") from problem
        return self._events.popleft()

    def _part(self, disposition: bytes) -> FormPart:
        kind, options = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in options:
            raise UsageError("a part of the form has no name")
        filename = options.get(b"filename")
        return FormPart(
            options[b"name"].decode(errors="replace"),
            None if filename is None else filename.decode(errors="replace"),
            self,
        )

    def _grow(self, which: int, data: bytes) -> None:
        self._header[which].extend(data)  # the parser bounds the size of a header

    def _end_header(self) -> None:
        field_name, value = (bytes(side) for side in self._header)
        if field_name.lower() == b"content-disposition":
            self._events.append(("header", value))
        for side in self._header:
            side.clear()

    def _count(self) -> None:
        self._parts += 1
        if self._parts > _PARTS_MAX:
            raise UsageError(f"the form has more than {_PARTS_MAX} parts")
