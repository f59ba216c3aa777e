"""Forms are read as streams: every cut of the body has the same fields and the same file."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.uploads.forms import FormReader
from sennit_core.errors import TooLarge, UsageError

TYPE = "multipart/form-data; boundary=X"


def form(*parts: tuple[bytes, bytes], end: bytes = b"--X--\r\n") -> bytes:
    body = b""
    for disposition, data in parts:
        body += (
            b"--X\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + data + b"\r\n"
        )
    return body + end


def read(pieces: list[bytes], content_type: str = TYPE) -> list[tuple[str | bytes, ...]]:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[tuple[str | bytes, ...]]:
        found: list[tuple[str | bytes, ...]] = []
        async for part in FormReader(content_type, stream()):
            if part.filename is None:
                found.append((part.name, await part.text()))
            else:
                data = b"".join([piece async for piece in part.pieces()])
                found.append((part.name, part.filename, data))
        return found

    return asyncio.run(collect())


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(body) + 1) for place in places}), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


@pytest.mark.slow
@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=20))
def test_any_cut_of_the_body_returns_the_same_form(data: bytes, places: list[int]) -> None:
    if b"\r\n--X" in b"\r\n" + data:
        return
    body = form((b'name="index"', b"7"), (b'name="file"; filename="a.csv"', data))

    assert read(cut(body, places)) == [("index", "7"), ("file", "a.csv", data)]


def test_a_part_that_is_left_unread_is_skipped() -> None:
    async def names() -> list[str]:
        async def stream() -> AsyncIterator[bytes]:
            yield form((b'name="a"; filename="x"', b"x" * 1000), (b'name="b"', b"2"))

        return [part.name async for part in FormReader(TYPE, stream())]

    assert asyncio.run(names()) == ["a", "b"]


def test_a_form_that_breaks_off_is_an_error() -> None:
    body = form((b'name="file"; filename="a"', b"data"))
    for length in range(len(body) - 4):
        with pytest.raises(UsageError, match=r"ends before|malformed"):
            read([body[:length]])


@pytest.mark.parametrize(
    ("body", "content_type", "about"),
    [
        (b"", "text/csv", "not multipart"),
        (b"", "multipart/form-data", "boundary"),
        (b"", f"multipart/form-data; boundary={'b' * 999}", "boundary"),
        (b"nonsense\r\n", TYPE, "malformed"),
        (form((b"", b"1")), TYPE, "no name"),
        (form((b'name="a"', b"\xff")), TYPE, "UTF-8"),
        (form(*[(b'name="a"', b"1")] * 40), TYPE, "more than 32"),
    ],
)
def test_a_malformed_form_is_refused(body: bytes, content_type: str, about: str) -> None:
    with pytest.raises(UsageError, match=about):
        read([body], content_type)


def test_a_field_cannot_fill_memory() -> None:
    with pytest.raises(TooLarge, match="form field a"):
        read([form((b'name="a"', b"x" * 70_000))])
    with pytest.raises(UsageError, match="malformed"):
        read([form((b'name="' + b"x" * 20_000 + b'"', b"1"))])
