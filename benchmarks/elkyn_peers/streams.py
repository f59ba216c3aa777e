"""Clients that stay, in a process of their own: event streams, and sockets that listen.

    python streams.py sse PORT PATH COUNT       python streams.py ws PORT COUNT LISTENS

Prints `open` when all are connected. Then each line of standard input is answered with how many events
have come so far and when the last one did (`time.monotonic`), until it ends. Sockets are spoken to by
hand: a library would take more of the machine than the server does.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

_OPENED_AT_ONCE = 200


class Heard:
    """What all clients together have heard."""

    def __init__(self, wanted: int) -> None:
        self.count = 0
        self.last = 0.0
        self.all_open = asyncio.Event()
        self._missing = wanted

    def opened(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self.all_open.set()

    def events(self, count: int) -> None:
        self.count += count
        self.last = time.monotonic()


class Stream(asyncio.Protocol):
    """An event stream."""

    def __init__(self, path: str, heard: Heard) -> None:
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer owner\r\n"
            "Accept: text/event-stream\r\n\r\n"
        ).encode()
        self._heard = heard
        self._first = True

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        found = data.count(b"event: put")
        if self._first and found:
            self._first = False
            self._heard.opened()
            found -= 1
        if found:
            self._heard.events(found)

    def connection_lost(self, error: Exception | None) -> None:
        if self._first:
            raise SystemExit(f"a stream was refused: {error}")


class Socket(asyncio.Protocol):
    """A WebSocket that listens to `/many/s<number>/l0` and so on."""

    def __init__(self, number: int, listens: int, heard: Heard) -> None:
        self._number = number
        self._unanswered = listens
        self._heard = heard
        self._left = b""
        self._shaken = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(
            b"GET /.ws?v=5&ns=default HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        if not self._shaken:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._left = head
                return
            if b" 101 " not in head:
                raise SystemExit(f"a socket was refused: {head.decode()}")
            self._shaken = True
            self._transport.write(b"".join(map(self._listen, range(self._unanswered))))
        self._left = self._take(data)

    def _listen(self, index: int) -> bytes:
        body = {"p": f"/many/s{self._number}/l{index}", "h": ""}
        return _frame(json.dumps({"t": "d", "d": {"r": index + 1, "a": "q", "b": body}}).encode())

    def _take(self, data: bytes) -> bytes:
        """Read whole frames; returns what is left."""
        at, events = 0, 0
        while len(data) >= at + 4:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if len(data) < start + size:
                break
            payload = data[start : start + size]
            if data[at] == 0x89:
                self._transport.write(_frame(payload, 0x8A))
            elif b'"r":' in payload:
                self._answered()
            elif self._unanswered == 0 and b'"a":"d"' in payload:
                events += 1
            at = start + size
        if events:
            self._heard.events(events)
        return data[at:]

    def _answered(self) -> None:
        self._unanswered -= 1
        if self._unanswered == 0:
            self._heard.opened()


def _frame(payload: bytes, kind: int = 0x81) -> bytes:
    """Return a client's frame; its mask is zero, which changes nothing."""
    size = len(payload)
    head = (
        bytes((kind, 0x80 | size)) if size < 126 else bytes((kind, 0xFE)) + size.to_bytes(2, "big")
    )
    return head + bytes(4) + payload


async def _open(arguments: list[str]) -> Heard:
    port, count = int(arguments[1]), int(arguments[3] if arguments[0] == "sse" else arguments[2])
    loop, heard = asyncio.get_running_loop(), Heard(count)
    for start in range(0, count, _OPENED_AT_ONCE):
        opening = []
        for number in range(start, min(start + _OPENED_AT_ONCE, count)):
            make: Callable[[], asyncio.Protocol]
            if arguments[0] == "sse":
                make = partial(Stream, arguments[2], heard)
            else:
                make = partial(Socket, number, int(arguments[3]), heard)
            opening.append(loop.create_connection(make, "127.0.0.1", port))
        await asyncio.gather(*opening)
    await heard.all_open.wait()
    return heard


async def main(arguments: list[str]) -> None:
    heard = await _open(arguments)
    print("open", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(heard.count, heard.last, flush=True)


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(sys.argv[1:]))
