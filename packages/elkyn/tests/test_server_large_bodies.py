"""What large bodies and messages may cost a server, and that it refuses them before it reads them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_server import Served, until
from websockets.exceptions import ConnectionClosed

from elkyn.cli import main
from elkyn.server.limits import Limits

RECORDS = {f"r{number}": {"name": "x" * 50, "age": number} for number in range(3000)}
RULES = {
    "open": {".read": True, ".write": True},
    "mine": {"$uid": {".write": "auth.uid === $uid && newData.exists()"}},
    "checked": {".write": "newData.hasChild('ok')"},
    "named": {".write": "root.child('open/key').val() === 'yes'"},
    "listed": {"$id": {".write": True, ".validate": "newData.hasChild('age')"}},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose rules allow writes at a few places only."""
    found = Served(tmp_path_factory.mktemp("served"))
    found.rules("default", RULES)
    yield found
    code, logged = found.stop()
    assert code == 0
    assert "Traceback" not in logged


@contextmanager
def half_sent(served: Served, line: str, *, chunked: bool = False) -> Iterator[socket.socket]:
    """Send the head of a request for 60 MiB, and no more of the body than makes it a large one."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {60 * 1024 * 1024}"
    with socket.create_connection(("127.0.0.1", int(served.port)), timeout=20) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        if chunked:
            connection.sendall(b"%x\r\n[%b\r\n" % (80_001, b"0," * 40_000))
        yield connection


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "PUT /shut.json",
        "POST /shut.json",
        "PATCH /shut.json",
        "PATCH /mine/ann/deep.json",
        "PUT /mine/ann.json",
        "PUT /named.json",
        "PUT /shut/.priority.json",
    ],
)
def test_a_body_that_no_rule_allows_is_refused_before_it_arrives(
    served: Served, line: str, chunked: bool
) -> None:
    with half_sent(served, line, chunked=chunked) as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize("line", ["PUT /checked.json", "PATCH /mine.json", "POST /listed.json"])
def test_a_body_that_a_rule_has_to_see_is_read(served: Served, line: str) -> None:
    with half_sent(served, line) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(12)


@pytest.mark.slow
def test_rules_check_large_bodies_as_small_ones(served: Served) -> None:
    def status(method: str, path: str, value: Any) -> int:
        return httpx.request(method, f"{served.url}{path}", json=value, timeout=60).status_code

    assert status("PUT", "/checked.json", RECORDS) == 401
    assert status("PUT", "/checked.json", {**RECORDS, "ok": True}) == 200
    assert status("PATCH", "/listed.json", RECORDS) == 200
    assert status("PATCH", "/listed.json", {**RECORDS, "z": {"name": "x" * 70_000}}) == 401
    assert served.client.get("/listed.json").json() == RECORDS


@pytest.mark.slow
def test_large_bodies_are_written_and_answered_as_small_ones(served: Served) -> None:
    value = {"list": [[number, None, {"x": "é"}] for number in range(9000)], "map": RECORDS}
    assert served.client.put("/a/b.json", json=value).json() == value
    assert served.client.get("/a/b.json").json() == value
    assert served.client.patch("/a.json", json={"b/map": RECORDS, "c": 1}).json()["c"] == 1
    name = served.client.post("/a/all.json", json=RECORDS).json()["name"]
    assert served.client.get(f"/a/all/{name}.json").json() == RECORDS
    pretty = served.client.put("/a.json?print=pretty", json=RECORDS)
    assert (pretty.json(), pretty.text[:5]) == (RECORDS, '{\n  "')
    assert served.client.put("/a.json?print=silent", json=RECORDS).status_code == 204
    for broken in (b'{"a":' + b"[0," * 40_000, b'["' + b"x" * 70_000 + b'"}'):
        assert served.client.put("/a.json", content=broken).status_code == 400
    assert served.client.patch("/a.json", json=["x" * 70_000]).status_code == 400
    assert served.client.get("/a.json").json() == RECORDS


def test_events_transactions_and_retries_see_large_writes(served: Served) -> None:
    served.client.put("/seen.json", json={"a": 1})
    etag = served.client.get("/seen.json", headers={"X-Firebase-ETag": "true"}).headers["etag"]
    with served.stream("/seen.json?auth=" + served.token) as events:
        assert next(events)[1]["data"] == {"a": 1}
        headers = {"if-match": etag, "Idempotency-Key": "k", "X-Firebase-ETag": "true"}
        answers = [served.client.put("/seen.json", json=RECORDS, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert next(events)[1] == {"path": "/", "data": RECORDS}
    again = served.client.get("/seen.json", headers={"X-Firebase-ETag": "true"}).headers["etag"]
    assert answers[0].headers["etag"] == again


def test_a_message_that_no_rule_allows_is_refused_after_its_first_frame(served: Served) -> None:
    with served.wire("default") as wire:
        put = '{"t":"d","d":{"r":7,"a":"p","b":{"p":"/shut/x","d":"'
        wire.socket.send("3")
        wire.socket.send(put + "x" * (16384 - len(put)))
        assert wire.answer(7)["s"] == "permission_denied"
        wire.socket.send("x" * 16384)
        wire.socket.send('"}}}')
        assert wire.ask("p", p="/open/x", d=RECORDS)["s"] == "ok"
        assert wire.ask("m", p="/open/x", d={"r0": None, "n": "x" * 70_000})["s"] == "ok"
        assert wire.ask("m", p="/open/x", d=["x" * 70_000])["s"] == "failure"
        assert wire.ask("o", p="/open/x", d="x" * 70_000)["s"] == "too_big"
        assert wire.ask("p", p="/shut", d="x" * 900_000)["s"] == "permission_denied"
    stored = httpx.get(f"{served.url}/open/x.json", timeout=20).json()
    expected = {**RECORDS, "n": "x" * 70_000}
    del expected["r0"]
    assert stored == expected


def test_a_write_before_it_on_its_socket_may_allow_a_message(served: Served) -> None:
    with served.wire("default") as wire:
        first = wire.send("p", p="/open/key", d="yes")
        second = wire.send("p", p="/named", d=RECORDS)
        assert [wire.answer(number)["s"] for number in (first, second)] == ["ok", "ok"]


def over_body_limit(served: Served) -> Any:
    return served.client.put("/a.json", json="x" * 5000).status_code


def over_node_limit(served: Served) -> Any:
    refused = served.client.put("/a.json", json=[0] * 40_000)
    assert "more than 1,000 values" in refused.json()["error"]
    with served.wire("default") as wire:
        assert wire.ask("auth", cred=served.token)["s"] == "ok"
        assert wire.ask("p", p="/a", d=[0] * 40_000)["s"] == "too_big"
    return refused.status_code


def over_body_memory(served: Served) -> Any:
    with half_sent(served, f"PUT /a.json?auth={served.token}") as connection:
        connection.sendall(b"[" + b" " * 10_000)
        until(lambda: served.client.put("/a.json", json="x" * 10_000).status_code == 429)
        connection.sendall(b" " * 10_000)
        return int(connection.recv(12)[9:])


def over_message_limit(served: Served) -> Any:
    with served.wire("default") as wire:
        wire.socket.send("x" * 5000)
        return wire.read()["d"]["t"]


def over_listen_limit(served: Served) -> Any:
    with served.wire("default") as wire:
        assert wire.ask("auth", cred=served.token)["s"] == "ok"
        return [wire.ask("q", p=path)["s"] for path in ("/a", "/b")]


def over_stream_limit(served: Served) -> Any:
    with served.stream("/a.json?auth=" + served.token):
        headers = {"Accept": "text/event-stream"}
        return served.client.get("/b.json", headers=headers).status_code


def over_socket_limit(served: Served) -> Any:
    with (
        served.wire("default"),
        pytest.raises(ConnectionClosed) as closed,
        served.wire("default"),
    ):
        pass
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def over_connection_limit(served: Served) -> Any:
    with socket.create_connection(("127.0.0.1", int(served.port))) as first:
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 200"
        return httpx.get(f"{served.url}/healthz").status_code


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("option", "value", "ask", "answer"),
    [
        ("--body-limit", "4KiB", over_body_limit, 413),
        ("--node-limit", "1000", over_node_limit, 413),
        ("--body-memory", "100KiB", over_body_memory, 429),
        ("--message-limit", "4KiB", over_message_limit, "e"),
        ("--listen-limit", "1", over_listen_limit, ["ok", "failure"]),
        ("--socket-limit", "1", over_socket_limit, 1013),
        ("--stream-limit", "1", over_stream_limit, 429),
        ("--connection-limit", "1", over_connection_limit, 429),
    ],
)
def test_each_bound_has_an_option(
    tmp_path: Path,
    option: str,
    value: str,
    ask: Callable[[Served], Any],
    answer: Any,
) -> None:
    served = Served(tmp_path / "data", option, value)
    try:
        assert ask(served) == answer
    finally:
        served.stop()


@pytest.mark.nightly
def test_every_bound_can_be_set_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("elkyn.server.serve.serve", lambda serving, _ready: started.append(serving))
    monkeypatch.setattr("sennit_core.logs.configure_logging", lambda *_: None)
    words = {
        "requests_per_second": "--rate",
        "user_requests_per_second": "--user-rate",
        "head_seconds": "--head-timeout",
        "send_seconds": "--send-timeout",
        "body_bytes": "--body-limit",
        "body_nodes": "--node-limit",
        "body_memory_bytes": "--body-memory",
        "message_bytes": "--message-limit",
        "unsent_bytes": "--unsent-limit",
        "client_unsent_bytes": "--client-unsent-limit",
        "connections": "--connection-limit",
        "requests": "--request-limit",
        "streams": "--stream-limit",
        "sockets": "--socket-limit",
        "listens": "--listen-limit",
    }
    line = ["serve", "--data", "d"]
    for number, field in enumerate(fields(Limits), 7):
        line += [words[field.name], str(number)]
    assert main(line) == 0
    assert list(asdict(started[0].limits).values()) == list(range(7, 7 + len(words)))


@pytest.mark.nightly
def test_a_follower_passes_large_messages_on(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    leader = start_server()
    leader.rules("default", RULES)
    token = str(leader.data / "admin.token")
    follower = start_server(
        *("--follow", leader.url, "--follow-token-file", token), data=tmp_path / "follower"
    )
    until(lambda: httpx.get(f"{follower.url}/open.json").status_code == 200)
    with follower.wire("default") as wire:
        assert wire.ask("p", p="/open/x", d=RECORDS)["s"] == "ok"
        assert wire.ask("p", p="/shut/x", d=RECORDS)["s"] == "permission_denied"
    assert httpx.put(f"{follower.url}/open/y.json", json=RECORDS, timeout=60).status_code == 200
    for served in (leader, follower):
        stored = httpx.get(f"{served.url}/open.json", timeout=60).json()
        assert stored == {"x": RECORDS, "y": RECORDS}


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_large_body_needs_no_more_than_six_times_its_size(served: Served) -> None:
    body = json.dumps({f"-N{n:08}": {"name": f"user {n}", "age": n % 90} for n in range(500_000)})
    before, peak, done = anonymous_bytes(served), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_bytes(served))

    watching = threading.Thread(target=watch)
    watching.start()
    answer = httpx.put(f"{served.url}/open/all.json", content=body, timeout=500)
    done.set()
    watching.join()
    assert answer.status_code == 200
    assert peak - before < 6 * len(body)


def anonymous_bytes(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024
