"""Bulk streams between real nodes: chunks that do not pass the event loop, and everything that ends them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.peers.codec import peer_codec
from lake.peers.copies.bandwidth import CopyBandwidth
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListRequest
from lake.peers.joined import JoinedNetwork
from lake.peers.transport import bulk_client, bulk_frames, bulk_server
from lake.peers.transport.bulk_client import BulkClient
from lake.peers.transport.bulk_frames import PREFACE
from lake.peers.transport.identity import Identity
from lake.peers.transport.messages import Message
from lake.peers.transport.session import ErrorReply
from lake.peers.transport.traffic import Traffic
from sennit_core.hashing import CHUNK_BYTES

from .peers_world import identity
from .real_offices import Office, office
from .test_peers_service import eventually

CODEC = peer_codec()
CHUNKS = 9


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Office]]:
    """Oslo has a dataset of one shard with nine chunks that Rome sees, and one that is private."""
    folder = tmp_path_factory.mktemp("bulk")
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(office(folder, name, capacity=0)) for name in ("oslo", "rome")
        }
        found["rome"].peers.join(found["oslo"].peers.invite())
        for name in ("big", "private"):
            values = pa.array(memoryview(os.urandom(CHUNKS * CHUNK_BYTES - 65536)).cast("q"))
            found["oslo"].lake.append(name, pa.table({"value": values}))
        found["oslo"].peers.share("big", None)
        eventually(lambda: "big" in found["rome"].names())
        yield found


def network(at: Office) -> JoinedNetwork:
    found = at.peers._network
    assert found is not None
    return found


def in_loop(at: Office, compute: Callable[[], Any]) -> Any:
    async def work() -> Any:
        return compute()

    return at.peers._call(work())


def shard(at: Office, dataset: str = "big") -> str:
    (found,) = at.lake.catalog.manifest(dataset).snapshot.shards
    return found.object


def fetch_again(two: dict[str, Office]) -> int:
    """Fetch the shard of Rome, which it has not then; return how many answers came by a stream."""
    rome, name = two["rome"], shard(two["oslo"])
    rome.lake.retention.drop_copies([name], set)
    client = network(rome).bulk_client
    in_loop(rome, client._retry_at.clear)
    before = client.answers
    rome.peers.fetch([name])
    rome.lake.objects.verify(name)
    return client.answers - before


def streams(at: Office) -> int:
    server = network(at).bulk_server
    assert server is not None
    return int(in_loop(at, lambda: len(server._streams)))


def dialed(port: int, *, host: str = "127.0.0.1", preface: bytes = PREFACE) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(host, 0))
    with suppress(OSError):  # it may be refused by then
        made.sendall(preface)
    return made


def opened(port: int, own: Identity | None, folder: Path) -> ssl.SSLSocket:
    """A stream of a node, or of one without a certificate."""
    context = (own or identity(folder, "none")).client_context(anonymous=own is None)
    return context.wrap_socket(dialed(port))


def is_refused(connection: socket.socket) -> bool:
    try:
        while connection.recv(100):  # an alert of TLS
            pass
    except OSError as error:
        return not isinstance(error, TimeoutError)
    return True


def has_stream(two: dict[str, Office]) -> bool:
    streams = network(two["rome"]).bulk_client._streams
    return bool(in_loop(two["rome"], lambda: any(each.is_open for each in streams.values())))


def asked(stream: ssl.SSLSocket, request: Message) -> tuple[Message | None, memoryview]:
    bulk_frames.send(stream, CODEC, request, seconds=10)
    return bulk_frames.receive(stream, CODEC, seconds=10)


# Transfers


def test_chunks_come_by_a_stream(two: dict[str, Office]) -> None:
    fetch_again(two)  # opens it, and is done by the session or by both
    eventually(lambda: has_stream(two))
    received = in_loop(two["rome"], lambda: traffic(two).received_bytes)

    assert fetch_again(two) == CHUNKS
    assert in_loop(two["rome"], lambda: traffic(two).received_bytes) - received > 8 * CHUNK_BYTES


def traffic(two: dict[str, Office]) -> Traffic:
    return network(two["rome"]).sessions.traffic(two["oslo"].peers.identity.id)


def test_a_stream_that_is_lost_sends_no_verified_chunk_again(
    two: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = network(two["oslo"]).exchange.chunks._copies  # type: ignore[union-attr]
    send, sent = copies.chunk, []
    fetch_again(two)
    eventually(lambda: has_stream(two))

    def chunk(request: ChunkRequest) -> tuple[Chunk, bytes]:
        sent.append(request.index)
        if len(sent) == 4:
            for stream in network(two["oslo"]).bulk_server._streams:  # type: ignore[union-attr]
                bulk_frames.end(stream.connection)
        return send(request)

    monkeypatch.setattr(copies, "chunk", chunk)
    assert fetch_again(two) < CHUNKS
    assert set(sent) == set(range(CHUNKS))
    # At most the window of four was under way.
    assert len(sent) <= CHUNKS + 4


def test_a_wrong_chunk_of_a_stream_is_doubted_and_then_blamed(
    two: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_again(two)
    eventually(lambda: has_stream(two))
    copies = network(two["oslo"]).exchange.chunks._copies  # type: ignore[union-attr]
    wrong = network(two["rome"]).exchange._downloads.copies.transfers.wrong  # type: ignore[union-attr]
    send, doubted = copies.chunk, []

    def chunk(request: ChunkRequest) -> tuple[Chunk, bytes]:
        reply, data = send(request)
        doubted.extend([request.index] * request.doubted)
        return reply, data if request.doubted else bytes([data[0] ^ 1]) + data[1:]

    monkeypatch.setattr(copies, "chunk", chunk)
    assert fetch_again(two) == 2 * CHUNKS
    assert sorted(doubted) == list(range(CHUNKS))
    assert not wrong


def test_a_node_without_the_feature_is_asked_by_its_session(two: dict[str, Office]) -> None:
    rome, oslo = two["rome"], two["oslo"].peers.identity.id
    sessions = network(rome).sessions
    hello = in_loop(rome, lambda: sessions.greeting(oslo))
    assert in_loop(rome, lambda: sessions.stream_addresses(oslo)) != []
    sessions._peer(oslo).hello = replace(hello, features=("chunks",))
    try:
        assert in_loop(rome, lambda: sessions.stream_addresses(oslo)) == []
    finally:
        sessions._peer(oslo).hello = hello


# Hostile nodes


def test_only_members_get_a_stream(two: dict[str, Office], tmp_path: Path) -> None:
    port = two["oslo"].peers.port
    for own in (None, identity(tmp_path, "mallory")):
        with pytest.raises(OSError), opened(port, own, tmp_path) as stream:  # noqa: PT011 - of TLS or TCP
            asked(stream, ChunkRequest(shard(two["oslo"]), 0))
    assert fetch_again(two) >= 0


def test_a_revoked_member_gets_no_stream_and_no_more_of_one(
    two: dict[str, Office], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo, own = two["oslo"], two["rome"].peers.identity
    request = ChunkRequest(shard(oslo), 0, oslo.lake.catalog.get("big").id)
    with opened(oslo.peers.port, own, tmp_path) as stream:
        assert isinstance(asked(stream, request)[0], Chunk)
        # TLS goes on to accept its certificate.
        monkeypatch.setattr(network(oslo).bulk_server, "_is_member", lambda _node: False)
        with pytest.raises(OSError), opened(oslo.peers.port, own, tmp_path) as other:  # noqa: PT011 - of TLS or TCP
            asked(other, request)
        reply, _ = asked(stream, ChunkRequest(request.object, 1, "d"))
    assert isinstance(reply, ErrorReply)
    assert reply.error["code"] == "denied"


def test_a_member_gets_what_its_session_would_get(two: dict[str, Office], tmp_path: Path) -> None:
    oslo, rome = two["oslo"], two["rome"]
    dataset = oslo.lake.catalog.get("big").id
    hidden = oslo.lake.catalog.get("private").id
    with opened(oslo.peers.port, rome.peers.identity, tmp_path) as stream:
        _, data = asked(stream, ChunkRequest(shard(oslo), 1, dataset))
        assert bytes(data) == oslo.lake.objects.read_chunk(shard(oslo), CHUNK_BYTES)
        refused = [
            asked(stream, ChunkRequest(shard(oslo, "private"), 0, hidden))[0],
            asked(stream, ChunkRequest(shard(oslo, "private"), 0, dataset))[0],
            asked(stream, ChunkRequest(shard(oslo), 99, dataset))[0],
            asked(stream, ListRequest(shard(oslo), dataset))[0],
        ]
        assert all(isinstance(each, ErrorReply) for each in refused)
        codes = [each.error["code"] for each in refused if isinstance(each, ErrorReply)]
        assert codes == ["not-found"] * 3 + ["unsupported"]


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 64, b"\x00" * 8, b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"\xc1" * 16]
)
def test_garbage_ends_its_stream(two: dict[str, Office], tmp_path: Path, garbage: bytes) -> None:
    with opened(two["oslo"].peers.port, two["rome"].peers.identity, tmp_path) as stream:
        stream.sendall(garbage)
        assert is_refused(stream)


@pytest.mark.parametrize("preface", [b"\x00", b"\x00sennit-bulk-9\n", PREFACE + b"\x00" * 300])
def test_a_wrong_preface_ends_its_connection(two: dict[str, Office], preface: bytes) -> None:
    with dialed(two["oslo"].peers.port, preface=preface) as connection:
        assert is_refused(connection)


def test_a_member_has_two_streams_at_most(two: dict[str, Office], tmp_path: Path) -> None:
    oslo, rome = two["oslo"], two["rome"]
    request = ChunkRequest(shard(oslo), 0, oslo.lake.catalog.get("big").id)
    eventually(lambda: streams(oslo) <= 1)
    with ExitStack() as stack:
        answers = 0
        for _ in range(bulk_server.STREAMS_PER_PEER_MAX + 2):
            stream = stack.enter_context(opened(oslo.peers.port, rome.peers.identity, tmp_path))
            with suppress(OSError):
                answers += isinstance(asked(stream, request)[0], Chunk)
        assert 1 <= answers <= bulk_server.STREAMS_PER_PEER_MAX
    eventually(lambda: streams(oslo) <= 1)


def test_a_flood_of_unknown_streams_is_bounded_and_ends(
    two: dict[str, Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo = two["oslo"]
    monkeypatch.setattr(bulk_server, "_HANDSHAKE_SECONDS", 0.5)
    server = network(oslo).bulk_server
    assert server is not None
    with ExitStack() as stack:
        for number in range(40):
            host = f"127.0.0.{2 + number % 8}"
            stack.enter_context(dialed(oslo.peers.port, host=host))
        assert streams(oslo) <= bulk_server.HANDSHAKES_MAX + 2
        fetch_again(two)
    eventually(lambda: streams(oslo) <= 1)
    eventually(lambda: oslo.peers.counters().unverified == 0)


# A hostile serving side


def served(folder: Path, own: Identity, answer: Callable[[ssl.SSLSocket], object]) -> int:
    """Serve one stream as a node would not; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = own.server_context([identity(folder, "rome").certificate])

    def run() -> None:
        with listener, suppress(OSError):
            accepted, _ = listener.accept()
            assert accepted.recv(len(PREFACE)) == PREFACE
            with context.wrap_socket(accepted, server_side=True) as stream:
                answer(stream)

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


def answers_of(folder: Path, port: int, peer: str) -> list[Any]:
    """Ask for chunks until a stream has come and ended; return the answers of the stream."""

    async def run() -> list[Any]:
        client = BulkClient(
            identity(folder, "rome"), CODEC, lambda _: [f"127.0.0.1:{port}"], lambda _: Traffic()
        )
        found = []
        try:
            while not client._retry_at:
                piece = await client.call(peer, ChunkRequest("a" * 64, 0))
                if piece is not None:
                    found.append(piece)
                await asyncio.sleep(0.005)
            return found
        finally:
            await client.stop()

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_another_node_at_the_address_gets_no_request(tmp_path: Path) -> None:
    read: list[bytes] = []
    port = served(tmp_path, identity(tmp_path, "mallory"), lambda tls: read.append(tls.recv(100)))

    assert answers_of(tmp_path, port, identity(tmp_path, "oslo").id) == []
    assert read in ([], [b""])


def trickle(stream: ssl.SSLSocket) -> None:
    for _ in range(1000):
        stream.sendall(b"\x00")
        stream.recv(1)


HOSTILE = {
    "stalls": lambda stream: stream.recv(100) and threading.Event().wait(5),
    "trickles": trickle,
    "garbage": lambda stream: stream.sendall(b"\xff" * 100),
    "ends": lambda stream: stream.recv(100),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_node_that_does_not_answer_loses_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(bulk_client, "ANSWER_SECONDS", 0.3)
    oslo = identity(tmp_path, "oslo")

    assert answers_of(tmp_path, served(tmp_path, oslo, HOSTILE[name]), oslo.id) == []


# Bandwidth


def test_each_chunk_of_a_stream_counts_for_the_bandwidth(
    two: dict[str, Office], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oslo, rome = two["oslo"], two["rome"]
    copies = network(oslo).exchange.chunks._copies  # type: ignore[union-attr]
    request = ChunkRequest(shard(oslo), 0, oslo.lake.catalog.get("big").id, background=True)
    eventually(lambda: streams(oslo) <= 1)
    monkeypatch.setattr(copies, "bandwidth", CopyBandwidth(1))  # one chunk in each twelve days
    with opened(oslo.peers.port, rome.peers.identity, tmp_path) as stream:
        assert isinstance(asked(stream, request)[0], Chunk)
        reply, _ = asked(stream, request)
    assert isinstance(reply, ErrorReply)
    assert reply.error["code"] == "busy"


def test_the_threads_of_streams_end_with_their_node(tmp_path: Path) -> None:
    with ExitStack() as stack:
        made = stack.enter_context(office(tmp_path, "bern", capacity=0))
        made.peers.invite()
        stack.enter_context(dialed(made.peers.port))
        eventually(lambda: streams(made) == 1)
        server = network(made).bulk_server
        assert server is not None
        threads = [each.thread for each in server._streams]
        made.peers.close()
        assert not any(each.is_alive() for each in threads if each is not None)
