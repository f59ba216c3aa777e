"""Split JSON text (an array, or a sequence of objects) into blocks of whole values.

A file of any size is read in bounded memory: blocks of about a MiB are split at the ends of values,
found by counting brackets outside of strings. numpy does that for a whole block at once, because a
loop over the characters would need a minute per gigabyte; the contents of the brackets are left to
the parser. A block's text is that of the file, byte for byte, except that commas between an array's
elements become spaces, so line numbers are preserved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from lake.ingest.source import RECORD_BYTES_MAX, TextBlock, TextSource, mend
from sennit_core.errors import BadInput
from sennit_core.units import MIB, format_bytes

__all__ = ["JSON_ENDINGS", "JsonDocument", "is_json_document"]

JSON_ENDINGS = (".json", ".geojson")

_QUOTE, _BACKSLASH, _COMMA, _SPACE = b'"\\, '
_OPEN, _CLOSE = b"[{", b"]}"
# An array's first element or an object's first field; does not match a CSV header like
# `[id],[name]`.
_BEGIN = re.compile(rb'\s*(\[\s*([\[{\]]|"|-?\d|true|false|null)|\{\s*("(?:[^"\\]|\\.)*"\s*:|\}))')
_ARRAY_OF_NAMES = re.compile(rb"\s*\[[^\[\]{}\"]*\]\s*[,;\t|]")
_LIST_FIELD = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{')

# Indexed by byte value, so that one array operation classifies a whole block.
_STEP = np.zeros(256, np.int8)
_STEP[list(_OPEN)] = 1
_STEP[list(_CLOSE)] = -1
_MARK = _STEP != 0
_MARK[_COMMA] = True


def is_json_document(head: bytes, name: str) -> bool:
    """Return whether a text is a JSON array or object, by its beginning and its name.

    Args:
        head: The file's first bytes, decoded to UTF-8, without byte order mark.
        name: The file's name.
    """
    if name.lower().endswith(JSON_ENDINGS):
        return head.lstrip()[:1] in (b"[", b"{")
    return _BEGIN.match(head) is not None and _ARRAY_OF_NAMES.match(head) is None


class JsonDocument:
    """The values of one JSON text.

    Args:
        text: The source of the text; its CSV dialect is not used.
        what: The file's name, for errors.
        block_bytes: Bytes to read at a time.
        value_bytes_max: Longest accepted value.
    """

    def __init__(
        self,
        text: TextSource,
        *,
        what: str,
        block_bytes: int = MIB,
        value_bytes_max: int = RECORD_BYTES_MAX,
    ) -> None:
        self._text = text
        self._what = what
        self._block_bytes = block_bytes
        self._value_bytes_max = value_bytes_max

    def blocks(self, start: int, stop: int) -> Iterator[TextBlock]:
        """Yield the values as text: a sequence of objects.

        If the first element of an array is not an object, all elements are wrapped in objects with
        one field, `value`.

        Raises:
            BadInput: A value is too long, is missing between commas, or follows the end.
        """
        cutter = _Cutter(self._what)
        with self._text.open_stream(start, stop) as stream:
            pending, wanted, final = b"", self._block_bytes, False
            while pending or not final:
                piece = b"" if final else stream.read(wanted)
                final = not piece
                pending += piece
                block, used = cutter.cut(pending, final=final)
                if block is not None:
                    yield block
                pending = pending[used:]
                if len(pending) > self._value_bytes_max:
                    raise self._too_long(pending, cutter.line)
                # A value longer than the buffer is scanned again from its beginning: doubling the
                # amount to read each time keeps the total linear.
                wanted = max(self._block_bytes, len(pending))
            cutter.check_ended()

    def _too_long(self, pending: bytes, line: int) -> BadInput:
        field = _LIST_FIELD.search(pending[: self._block_bytes])
        name = field[1].decode(errors="replace") if field else "rows"
        return BadInput(
            what=self._what,
            line=line + len(pending[: len(pending) - len(pending.lstrip())].splitlines()),
            reason=f"one JSON value is longer than {format_bytes(self._value_bytes_max)}",
            hint="each object becomes one row; to use a list inside of it as rows: "
            f"jq -c '.{name}[]' file.json > {name}.jsonl",
        )


class _Cutter:
    """Tracks the position in the text: before an array, inside it, or after it."""

    def __init__(self, what: str) -> None:
        self.line = 1
        self._what = what
        self._offset = 0
        self._cut_values: Callable[[bytes, bool], tuple[int, bytes]] | None = None
        self._begun = False  # a value of the array has been read
        self._wants_value = True  # at the start of the array or after a comma
        self._ended = False

    def cut(self, text: bytes, *, final: bool) -> tuple[TextBlock | None, int]:
        """Return the whole values at the start of the text, and the number of bytes consumed.

        Args:
            text: Starts after the bytes consumed by the last call.
            final: Whether the file ends with this text.
        """
        if self._cut_values is None:
            return None, self._pass(text[: self._open(text, final=final)])
        if self._ended:
            if text.strip():
                raise self._fault(text, 0, "text follows the end of the array")
            return None, self._pass(text)
        used, data = self._cut_values(text, final)
        block = None
        if data.strip():
            clean, mended = mend(data)
            block = TextBlock(clean, self._offset, self._offset + used, self.line, mended)
        return block, self._pass(text[:used])

    def check_ended(self) -> None:
        """Refuse an array that consists only of its opening bracket."""
        if self._cut_values not in (None, self._cut_sequence) and not self._ended:
            raise self._fault(b"", 0, "the array is never closed")

    def _open(self, text: bytes, *, final: bool) -> int:
        """Read the first characters; return the number consumed."""
        begun = text.lstrip()
        if not begun.removeprefix(b"[").lstrip() and not final:
            return 0
        if not begun.startswith(b"["):
            self._cut_values = self._cut_sequence
            return len(text) - len(begun)
        of_objects = begun[1:].lstrip()[:1] in (b"{", b"]", b"")
        self._cut_values = self._cut_objects if of_objects else self._cut_others
        return len(text) - len(begun) + 1

    def _cut_sequence(self, text: bytes, final: bool) -> tuple[int, bytes]:
        """Cut a sequence of values without an array."""
        if final:
            return len(text), text
        marks, steps, depths = _scan(text)
        closed = marks[(depths == 0) & (steps < 0)]
        used = int(closed[-1]) + 1 if len(closed) else 0
        return used, text[:used]

    def _cut_objects(self, text: bytes, final: bool) -> tuple[int, bytes]:
        """Cut an array of objects, where closing brackets and commas must alternate."""
        marks, steps, depths = _scan(text)
        ended = self._end(text, depths, marks, final=final)
        at_top = (depths == 0) & (steps <= 0)
        if ended is not None:
            at_top &= marks < ended
        events, closes = marks[at_top], steps[at_top] < 0
        # Events at the top level alternate between the end of an object and a comma. Which one
        # comes first depends on where the last block ended.
        expected = np.arange(len(events)) % 2 == (0 if self._wants_value else 1)
        wrong = np.flatnonzero(closes != expected)
        if len(wrong):
            self._raise_order(text, events, int(wrong[0]), closed=bool(closes[wrong[0]]))
        if len(events):
            self._wants_value = not closes[-1]
            self._begun = True
        used = int(events[-1]) + 1 if len(events) else 0
        if ended is not None:
            if self._wants_value and (self._begun or text[used:ended].strip()):
                raise self._fault(text, used, _reason(text[used:ended]))
            used, self._ended = ended, True
        plain = np.frombuffer(text[:used], np.uint8).copy()
        # A sequence of objects of the same length, so that positions in it are those of the file.
        plain[events[~closes]] = _SPACE
        return used + self._ended, plain.tobytes()

    def _raise_order(self, text: bytes, events: Any, index: int, *, closed: bool) -> NoReturn:
        """Raise the error for a missing comma, or for a comma without an object before it."""
        before = int(events[index - 1]) + 1 if index else 0
        if closed:
            raise self._fault(text, before, "two values of the array have no comma between them")
        raise self._fault(text, before, _reason(text[before : int(events[index])]))

    def _cut_others(self, text: bytes, final: bool) -> tuple[int, bytes]:
        """Cut an array of other elements, each wrapped in an object with one field."""
        marks, steps, depths = _scan(text)
        ended = self._end(text, depths, marks, final=final)
        commas = marks[(depths == 0) & (steps == 0)].tolist()
        if ended is not None:
            self._ended = True
            edges = [-1, *(comma for comma in commas if comma < ended), ended]
        else:
            edges = [-1, *commas]
        pieces = []
        for left, right in pairwise(edges):
            piece = text[left + 1 : right]
            if not piece.strip():
                raise self._fault(text, left + 1, _reason(piece))
            pieces.append(b'{"value":%b}' % piece)
        return edges[-1] + 1, b" ".join(pieces)

    def _end(self, text: bytes, depths: Any, marks: Any, *, final: bool) -> int | None:
        """Return the position of the array's closing bracket; None if it is not in this text."""
        below = np.flatnonzero(depths < 0)
        if len(below):
            return int(marks[below[0]])
        if final:
            raise self._fault(text, len(text.rstrip()), "the array is never closed")
        return None

    def _pass(self, text: bytes) -> int:
        self.line += text.count(b"\n")
        self._offset += len(text)
        return len(text)

    def _fault(self, text: bytes, at: int, reason: str) -> BadInput:
        at += len(text[at:]) - len(text[at:].lstrip())
        return BadInput(what=self._what, line=self.line + text.count(b"\n", 0, at), reason=reason)


def _reason(between: bytes) -> str:
    if between.strip():
        return "an element of the array is not an object, but the first one is"
    return "a comma of the array has no value before or after it"


def _scan(text: bytes) -> tuple[Any, Any, Any]:
    """Return the positions of brackets and commas outside of strings, their depth change and depth.

    Args:
        text: Starts outside of a string.
    """
    codes = np.frombuffer(text, np.uint8)
    quotes = codes == _QUOTE
    if b"\\" in text:
        quotes[_escaped(codes)] = False
    # A position is inside of a string if the number of quotes before it is odd.
    in_string = np.bitwise_xor.accumulate(quotes.view(np.uint8)).view(np.bool_)
    marks = np.flatnonzero(_MARK[codes] & ~in_string)
    steps = _STEP[codes[marks]]
    return marks, steps, np.cumsum(steps, dtype=np.int32)


def _escaped(codes: Any) -> Any:
    """Return the positions of characters after an odd number of backslashes."""
    slashes = np.flatnonzero(codes == _BACKSLASH)
    starts = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(slashes))
    after = slashes[starts] + lengths
    after = after[lengths % 2 == 1]
    return after[after < len(codes)]
