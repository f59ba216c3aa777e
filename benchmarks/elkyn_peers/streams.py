"""Clients that stay, in a process of their own: event streams, and sockets that listen.

    python streams.py sse PORT PATH COUNT       python streams.py ws PORT COUNT LISTENS

Prints `open` when all are connected; then counts events until its standard input ends, and prints
how many there were and when the last one came (`time.monotonic`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from websockets.asyncio.client import connect


class _Heard:
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


class _Stream(asyncio.Protocol):
    def __init__(self, path: str, heard: _Heard) -> None:
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


async def _open_streams(port: int, path: str, count: int) -> _Heard:
    loop, heard = asyncio.get_running_loop(), _Heard(count)
    for start in range(0, count, 200):
        opening = [
            loop.create_connection(lambda: _Stream(path, heard), "127.0.0.1", port)
            for _number in range(start, min(start + 200, count))
        ]
        await asyncio.gather(*opening)
    await heard.all_open.wait()
    return heard


async def _listen(port: int, number: int, listens: int, heard: _Heard) -> None:
    async with connect(f"ws://127.0.0.1:{port}/.ws?v=5&ns=default", max_size=None) as socket:
        for index in range(listens):
            body = {"p": f"/many/s{number}/l{index}", "h": ""}
            message = {"t": "d", "d": {"r": index + 1, "a": "q", "b": body}}
            await socket.send(json.dumps(message))
        answered = 0
        async for frame in socket:
            if '"r":' in str(frame):
                answered += 1
                if answered == listens:
                    heard.opened()
            elif '"a":"d"' in str(frame) and answered == listens:
                heard.events(1)


async def _serve_until_input_ends(arguments: list[str]) -> _Heard:
    port, rest = int(arguments[1]), arguments[2:]
    if arguments[0] == "sse":
        heard = await _open_streams(port, rest[0], int(rest[1]))
    else:
        count, listens = map(int, rest)
        heard = _Heard(count)
        sockets = [asyncio.create_task(_listen(port, n, listens, heard)) for n in range(count)]
        opened = asyncio.create_task(heard.all_open.wait())
        done, _pending = await asyncio.wait([*sockets, opened], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return heard


async def main(arguments: list[str]) -> None:
    heard = await _serve_until_input_ends(arguments)
    print(heard.count, heard.last, flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:]))
