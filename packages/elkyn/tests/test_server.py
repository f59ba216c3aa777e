"""A real server on loopback: `elkyn serve` as users start it, called with httpx."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_server import Served

from elkyn import ElkynStore


class Running(Served):
    """A served folder, whose events are read without ids."""

    @contextmanager
    def events(self, path: str) -> Iterator[Iterator[tuple[str, Any]]]:
        with self.stream(path) as found:
            yield ((name, data) for name, data, _id in found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("served"))
    yield running
    running.stop()


@pytest.mark.slow
def test_the_whole_round_over_http(server: Running) -> None:
    client = server.client
    assert client.put("/round.json", json={"a": [1, 2], "b": "é"}).json() == {
        "a": [1, 2],
        "b": "é",
    }
    name = client.post("/round/log.json", json="x").json()["name"]
    assert client.patch("/round.json", json={"a/0": None, "b": None}).status_code == 200
    assert client.get("/round.json").json() == {"a": [None, 2], "log": {name: "x"}}
    assert client.delete("/round.json?print=silent").status_code == 204
    assert client.get("/round.json").json() is None


def test_no_token_or_a_wrong_one_is_refused_and_owner_too(server: Running) -> None:
    unread = "Could not parse auth token."
    for token, text in (
        (b"", "Permission denied"),
        (b"Bearer wrong", unread),
        (b"Bearer owner", unread),
        (b"Bearer \xff", unread),
    ):
        answer = httpx.get(f"{server.url}/a.json", headers={b"Authorization": token})
        assert (answer.status_code, answer.json()) == (401, {"error": text})
    shown = server.headers["Authorization"].removeprefix("Bearer ")
    assert httpx.get(f"{server.url}/a.json", params={"auth": shown}).status_code == 200


def test_the_token_file_belongs_to_its_owner_alone(server: Running) -> None:
    assert (server.data / "admin.token").stat().st_mode & 0o777 == 0o600


def test_a_namespace_that_does_not_exist_is_not_made(server: Running) -> None:
    answer = server.client.put("/a.json?ns=other", json=1)
    assert (answer.status_code, (server.data / "other").exists()) == (404, False)


@pytest.mark.slow
def test_transactions_by_etag_lose_no_increment(server: Running) -> None:
    url = "/counter.json"

    def add(_number: int) -> None:
        answer = server.client.get(url, headers={"X-Firebase-ETag": "true"})
        while True:
            headers = {"if-match": answer.headers["etag"]}
            answer = server.client.put(url, json=(answer.json() or 0) + 1, headers=headers)
            if answer.status_code == 200:
                return
            assert answer.status_code == 412

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert server.client.get(url).json() == 40


def test_a_stream_starts_with_the_value_and_follows_every_write(server: Running) -> None:
    server.client.put("/live.json", json={"n": 0})
    with server.events("/live.json") as stream:
        assert next(stream) == ("put", {"path": "/", "data": {"n": 0}})
        for number in range(1, 50):
            server.client.put("/live/n.json", json=number)
        got = [next(stream) for _ in range(1, 50)]
        assert got == [("put", {"path": "/n", "data": number}) for number in range(1, 50)]
        server.client.patch("/live.json", json={"n": None, "m/k": 1})
        assert next(stream) == ("patch", {"path": "/", "data": {"n": None, "m/k": 1}})
        server.client.delete("/.json")
        assert next(stream) == ("put", {"path": "/", "data": None})


def test_a_large_value_comes_whole(server: Running) -> None:
    value = {f"k{number}": "x" * 900 for number in range(2000)}
    assert server.client.put("/large.json", json=value).status_code == 200
    assert server.client.get("/large.json").json() == value
    with server.events("/large.json") as stream:
        assert next(stream) == ("put", {"path": "/", "data": value})
    server.client.delete("/large.json")


def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    import asyncio

    from elkyn.server.app import elkyn_app

    async def ask() -> int:
        with ElkynStore(mode="memory") as store:
            app = elkyn_app({"default": store}, authorize=lambda *_: None, body_bytes_max=1000)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                answer = await client.put("/a.json", content=b'"' + b"x" * 2000 + b'"')
            assert store.get("/") is None
            app.close()
        return answer.status_code

    assert asyncio.run(ask()) == 413


def test_a_hook_that_grants_full_access_still_needs_the_indexes_of_the_rules() -> None:
    import asyncio

    from elkyn.server.app import elkyn_app

    async def ask(store: ElkynStore) -> httpx.Response:
        app = elkyn_app({"default": store}, authorize=lambda *_: None)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answer = await client.get("/users.json", params={"orderBy": '"age"'})
        app.close()
        return answer

    with ElkynStore(mode="memory") as store:
        store.set_rules({"rules": {"users": {".indexOn": ["name"]}}})
        answer = asyncio.run(ask(store))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Index not defined")


def test_a_client_that_goes_leaves_no_subscription_behind() -> None:
    import asyncio

    from elkyn.server.app import elkyn_app

    async def listen(store: ElkynStore) -> list[bytes]:
        app = elkyn_app({"default": store}, authorize=lambda *_: None, keep_alive_seconds=0.01)
        sent: list[bytes] = []
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if sent.count(b"event: keep-alive\ndata: null\n\n") >= 2:
                gone.set()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))
            if len(sent) > 5:
                gone.set()

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/a.json",
            "headers": [(b"accept", b"text/event-stream")],
        }
        await app(scope, receive, send)
        app.close()
        return sent

    with ElkynStore(mode="memory") as store:
        sent = asyncio.run(listen(store))
        assert not store._watchers.concerned(())
    assert sent[1].startswith(b'event: put\ndata: {"path":"/","data":null}')
    assert b"event: keep-alive\ndata: null\n\n" in sent


def test_a_reader_that_loses_its_permission_is_cancelled() -> None:
    import asyncio

    from elkyn.server.app import elkyn_app
    from sennit_core.errors import Denied

    checks: list[str] = []

    def authorize(_scope: Any, namespace: str, path: str, write: bool) -> None:
        checks.append(f"{namespace}:{path}:{write}")
        if len(checks) > 2:
            raise Denied("reading", "reader")

    async def listen(store: ElkynStore) -> str:
        app = elkyn_app({"sys": store}, authorize=authorize, keep_alive_seconds=0.01)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            headers = {"accept": "text/event-stream"}
            answer = await client.get("/a.json?ns=sys", headers=headers)
        app.close()
        return answer.text

    with ElkynStore(mode="memory") as store:
        assert asyncio.run(listen(store)).endswith("event: cancel\ndata: null\n\n")
    assert checks[0] == "sys:/a:False"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_with_open_streams_and_keeps_the_data(
    tmp_path: Path, stop: signal.Signals
) -> None:
    running = Running(tmp_path / "data")
    running.client.put("/a.json", json=1)
    with running.events("/a.json") as reading, running.events("/.json") as stalled:
        assert next(reading)[0] == next(stalled)[0] == "put"
        running.process.send_signal(stop)
        assert list(reading) == []
        assert running.process.wait(timeout=20) == 0
    running.stop()
    with ElkynStore(tmp_path / "data" / "default") as store:
        assert store.get("/a") == 1


@pytest.mark.nightly
def test_a_client_that_does_not_read_cannot_hold_the_stop_up(tmp_path: Path) -> None:
    import socket

    running = Running(tmp_path / "data", "--emulator")
    running.client.put("/a.json", json=["x" * 9_000_000] * 2)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as deaf:
        deaf.sendall(
            b"GET /.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer owner\r\n"
            b"Accept: text/event-stream\r\n\r\n"
        )
        assert deaf.recv(10)
        assert running.stop()[0] == 0


@pytest.mark.slow
def test_the_emulator_knows_owner_makes_namespaces_and_keeps_web_pages_out(tmp_path: Path) -> None:
    running = Running(tmp_path / "data", "--emulator")
    client = running.client
    assert client.put("/a.json?ns=demo-app", json=1).status_code == 200
    anonymous = {"Authorization": ""}
    assert client.get("/a.json?ns=demo-app", headers=anonymous).json() == 1
    rules = {"rules": {".read": "auth != null"}}
    assert client.put("/.settings/rules.json?ns=demo-app", json=rules).json() == {"status": "ok"}
    assert client.get("/a.json?ns=demo-app", headers=anonymous).status_code == 401
    assert client.get("/a.json?ns=demo-app").json() == 1
    evil = {"Origin": "https://evil.example"}
    assert client.get("/a.json", headers=evil).status_code == 403
    assert client.get("/a.json", headers={"Host": "evil.example:9000"}).status_code == 403
    assert client.get("/a.json", headers={"Origin": "http://localhost:3000"}).status_code == 200
    running.stop()


@pytest.mark.slow
def test_a_port_in_use_is_named(server: Running, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "elkyn.cli", "serve", "--data", str(tmp_path), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert f"port {port} cannot be used" in done.stderr


ANSWERS_ALREADY = """
import os, signal, socket, sys
from pathlib import Path
from elkyn.server.serve import Serving, serve

def ready(url, token_file):
    host, _, port = url.removeprefix("http://").partition(":")
    socket.create_connection((host, int(port)), timeout=20).close()
    os.kill(os.getpid(), signal.SIGTERM)

serve(Serving(Path(sys.argv[1]), port=0), ready)
"""


@pytest.mark.slow
def test_it_accepts_connections_once_it_reports_ready(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ANSWERS_ALREADY, str(tmp_path / "data")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


@pytest.mark.nightly
def test_a_slow_reader_does_not_grow_the_server(server: Running) -> None:
    def memory() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    server.client.put("/warm.json", json="x" * 100_000)
    with server.events("/slow.json") as slow:
        assert next(slow)[0] == "put"
        before = memory()
        for number in range(400):
            server.client.put("/slow.json?print=silent", json=f"{number:05}" * 40_000)
        assert memory() - before < 60_000
        last = None
        while last is None or not last.startswith("00399"):
            last = next(slow)[1]["data"]


@pytest.mark.slow
def test_many_clients_write_at_once_and_nothing_is_lost(server: Running) -> None:
    def put(number: int) -> int:
        return server.client.put(f"/many/n{number}.json", json=number).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(put, range(300))) == {200}
    assert server.client.get("/many.json").json() == {f"n{n}": n for n in range(300)}


@pytest.mark.crash
def test_every_write_that_was_answered_survives_kill_9(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    answered: list[int] = []
    failed = threading.Event()

    def write(start: int) -> None:
        with httpx.Client(base_url=running.url, headers=running.headers) as client:
            for number in range(start, 1_000_000, 4):
                try:
                    if client.put(f"/n{number}.json", json=number).status_code == 200:
                        answered.append(number)
                except httpx.TransportError:
                    failed.set()
                    return

    writers = [threading.Thread(target=write, args=(start,)) for start in range(4)]
    for writer in writers:
        writer.start()
    while len(answered) < 300:
        time.sleep(0.01)
    os.kill(running.process.pid, signal.SIGKILL)
    for writer in writers:
        writer.join()
    assert failed.is_set()
    running.stop()
    with ElkynStore(tmp_path / "data" / "default") as store:
        kept = store.get("/")
    assert all(kept[f"n{number}"] == number for number in answered)
