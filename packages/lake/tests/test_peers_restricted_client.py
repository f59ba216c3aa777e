"""What one statement receives of other nodes' restricted datasets has a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lake.distributed.remote_shards import RestrictedColumns
from lake.peers.queries.fragments import FragmentPiece
from lake.peers.queries.restricted_client import RestrictedClient
from lake.peers.transport.session import Piece
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import SennitError, TooLarge
from sennit_core.schema import Schema

TABLE = RestrictedColumns("d", "writer", Requester("ann"), "s", Schema.of(a="Int64"), secret=False)


class Writer:
    """A node that answers each query with so many bytes, in pieces of 100."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self.claims = SimpleNamespace(sign=lambda *_arguments: None)

    def wall(self) -> float:
        return 0.0

    async def session(self, _node: str) -> Any:
        return self

    async def stream(self, _query: object, **_options: object) -> AsyncGenerator[Piece, None]:
        for _ in range(0, self.size, 100):
            self.sent += 100
            yield FragmentPiece(), bytes(100)


def client(writer: Any, bytes_max: int) -> RestrictedClient:
    def submit(work: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(asyncio.run(work))
        except SennitError as error:
            done.set_exception(error)
        return done

    space: Any = SimpleNamespace(check_disk=lambda _what, _size: None)
    return RestrictedClient(submit, lambda: writer, space, bytes_max)


def test_an_answer_ends_at_the_limit(tmp_path: Path) -> None:
    writer = Writer(10**9)
    with pytest.raises(TooLarge, match="other nodes send"):
        client(writer, 1000).query("SELECT 1", {"t": TABLE}, tmp_path / "0", 60, Stop())
    assert writer.sent == 1100


def test_the_tables_of_a_statement_count_together(tmp_path: Path) -> None:
    writer = Writer(600)
    reading = client(writer, 1000)
    reading.read(TABLE, tmp_path / "one", None)
    with pytest.raises(TooLarge, match="other nodes send"):
        reading.read(TABLE, tmp_path / "two", None)
    client(writer, 0).read(TABLE, tmp_path / "three", None)
    assert (tmp_path / "three").stat().st_size == 600
