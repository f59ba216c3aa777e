"""What a server rejects, limits, retries and reports about itself."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from elkyn import ElkynStore
from elkyn.cli import main
from elkyn.server.app import elkyn_app
from elkyn.server.asgi import DIRECT_SEND, send_response
from elkyn.server.cors import Origins
from elkyn.server.limits import Rate
from elkyn.server.request import Response
from sennit_core.errors import Busy


def test_a_page_of_an_allowed_origin_may_read_answers() -> None:
    some = Origins(["https://app.example"])
    page = {"origin": "https://app.example"}
    assert dict(some.headers(page))["access-control-allow-origin"] == "https://app.example"
    assert some.headers({"origin": "https://evil.example"}) == ()
    assert dict(Origins(["*"]).headers(page))["access-control-allow-origin"] == "*"
    assert Origins().headers(page) == ()


def test_a_preflight_lists_methods_and_headers() -> None:
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "PUT",
        "access-control-request-headers": "x-firebase-etag,if-match",
    }
    answer = Origins(["*"]).preflight(preflight)
    headers = dict(answer.headers)
    assert (answer.status, headers["access-control-allow-origin"]) == (204, "*")
    assert "PATCH" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"] == "x-firebase-etag,if-match"
    assert "access-control-allow-methods" not in dict(Origins().preflight(preflight).headers)


@pytest.mark.slow
def test_a_browser_can_preflight_a_served_tree(emulator: Any) -> None:
    headers = {"Origin": "http://localhost:3000", "StoreAuth-Control-Request-Method": "PATCH"}
    answer = httpx.options(f"{emulator.url}/a.json", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    got = emulator.client.get("/a.json", headers={"Origin": "http://localhost:3000"})
    assert got.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_page_of_another_origin_may_read_event_streams(emulator: Any) -> None:
    origin = "http://localhost:3000"
    headers = {"Origin": origin, "Accept": "text/event-stream"}
    for path in ("/a.json", "/a/.watch"):
        with emulator.client.stream("GET", path, headers=headers) as answer:
            assert answer.headers["access-control-allow-origin"] == origin
            assert next(answer.iter_lines())


def test_a_client_may_ask_so_often_and_no_more() -> None:
    rate = Rate(2.0)
    rate.consume("a", 0.0)
    rate.consume("a", 0.0)
    with pytest.raises(Busy):
        rate.consume("a", 0.1)
    rate.consume("b", 0.1)
    rate.consume("a", 0.6)
    Rate(None).consume("a", 0.0)


@pytest.mark.slow
def test_over_the_rate_the_answer_is_429(start_server: Callable[..., Any]) -> None:
    served = start_server("--emulator", "--rate", "5")
    codes = [served.client.get("/a.json").status_code for _ in range(12)]
    assert set(codes) == {200, 429}
    refused = served.client.get("/a.json")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


@pytest.mark.nightly
def test_a_user_over_the_rate_is_refused_or_waits_wherever_they_ask_from(
    start_server: Callable[..., Any],
) -> None:
    served = start_server("--user-rate", "4")
    rules = {".read": "auth.uid != null", ".write": "auth.uid != null"}
    served.rules("default", rules)
    tokens = [
        served.client.post("/auth/token", json={"uid": uid}).json()["token"] for uid in ("a", "b")
    ]
    codes = [httpx.get(f"{served.url}/n.json?auth={tokens[0]}").status_code for _ in range(12)]
    assert set(codes) == {200, 429}
    assert httpx.get(f"{served.url}/n.json?auth={tokens[1]}").status_code == 200
    assert [served.client.get("/n.json").status_code for _ in range(12)] == [200] * 12
    with served.wire("default") as wire:
        assert wire.ask("auth", cred=tokens[1])["s"] == "ok"
        started = time.monotonic()
        numbers = [wire.send("p", p="/n", d=number) for number in range(12)]
        assert {wire.answer(number)["s"] for number in numbers} == {"ok"}
        assert time.monotonic() - started > 1  # 12 at 4 a second, some of them at once


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET /n.json HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_a_request_whose_head_does_not_arrive_is_closed(
    start_server: Callable[..., Any], sent: bytes
) -> None:
    served = start_server("--head-timeout", "1")
    address = ("127.0.0.1", int(served.port))
    with (
        socket.create_connection(address) as slow,
        socket.create_connection(address) as kept,
        served.stream("/n.json") as events,
        served.wire("default") as wire,
    ):
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        kept.settimeout(20)
        assert b"200 OK" in kept.recv(4096)
        slow.settimeout(20)
        slow.sendall(sent)
        answer = b"".join(iter(lambda: slow.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 408")
        assert next(events)[0] == "put"
        served.client.put("/n.json", json=1)
        assert next(events)[1] == {"path": "/", "data": 1}
        assert wire.ask("s", c={})["s"] == "ok"
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")  # it is no half request
        assert b"200 OK" in kept.recv(4096)


@pytest.mark.nightly
def test_a_body_that_trickles_is_closed_and_a_steady_one_is_not(
    start_server: Callable[..., Any],
) -> None:
    served = start_server("--emulator", "--head-timeout", "1")
    head = b"PUT /%b.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer owner\r\nContent-Length: %d\r\n\r\n"
    address = ("127.0.0.1", int(served.port))
    with socket.create_connection(address) as slow, socket.create_connection(address) as good:
        slow.sendall(head % (b"slow", 5000) + b'"')
        good.sendall(head % (b"good", 6000) + b'"')
        for _part in range(10):
            with suppress(OSError):
                slow.sendall(b"x")
            good.sendall(b"x" * 500)
            time.sleep(0.25)
        good.sendall(b"x" * 998 + b'"')
        good.settimeout(20)
        assert good.recv(4096).startswith(b"HTTP/1.1 200")
        slow.settimeout(20)
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
    assert len(served.client.get("/good.json").json()) == 5998
    assert served.client.get("/slow.json").json() is None


def test_a_push_sent_again_under_its_key_is_not_done_again(emulator: Any) -> None:
    def push(number: int) -> str:
        headers = {"Idempotency-Key": f"k{number % 4}"}
        answer = emulator.client.post("/log.json?ns=retry", json=number % 4, headers=headers)
        assert answer.status_code == 200
        return str(answer.json()["name"])

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(push, range(40)))
    assert len(names) == 4
    assert sorted(emulator.client.get("/log.json?ns=retry").json().values()) == [0, 1, 2, 3]
    headers = {"Idempotency-Key": "k0"}
    other = emulator.client.post("/log.json?ns=retry", json="else", headers=headers)
    assert (other.status_code, "another body" in other.json()["error"]) == (400, True)


def test_a_refused_write_leaves_its_key_free(emulator: Any) -> None:
    emulator.client.put("/a.json?ns=free", json=1)
    headers = {"Idempotency-Key": "k", "if-match": "wrong"}
    url = "/a.json?ns=free"
    assert emulator.client.put(url, json=2, headers=headers).status_code == 412
    assert emulator.client.put(url, json=2, headers={"Idempotency-Key": "k"}).status_code == 200
    assert emulator.client.get(url).json() == 2


def test_health_and_metrics(emulator: Any) -> None:
    anonymous = {"Authorization": ""}
    for path in ("/healthz", "/readyz"):
        assert emulator.client.get(path, headers=anonymous).status_code == 200
    assert emulator.client.get("/metrics", headers=anonymous).status_code == 401
    emulator.client.put("/a.json?ns=metrics", json=1)
    page = emulator.client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'elkyn_position{ns="metrics"} 1' in page.text
    assert 'elkyn_requests_total{method="PUT",status="200"}' in page.text
    assert "# TYPE elkyn_waiting_writes gauge" in page.text


def test_rules_are_for_admins_and_bad_ones_change_nothing(emulator: Any) -> None:
    url = "/.settings/rules.json?ns=upload"
    assert emulator.client.get(url).json() == {"rules": {".read": True, ".write": True}}
    assert emulator.client.get(url, headers={"Authorization": ""}).status_code == 401
    text = '{"rules": {".read": "auth != null" /* all who are known */}}'
    assert emulator.client.put(url, content=text).json() == {"status": "ok"}
    assert emulator.client.get(url).text == text
    strict = emulator.client.get(f"{url}&format=strict").json()
    assert strict == {"rules": {".read": "auth != null"}}
    bad = emulator.client.put(url, content='{"rules": {".read": "auht != null"}}')
    assert (bad.status_code, "line 1" in bad.json()["error"]) == (400, True)
    assert emulator.client.get(url).text == text
    assert emulator.client.delete(url).status_code == 405


@pytest.mark.slow
def test_a_slow_read_ends_at_its_timeout() -> None:
    value = {f"k{number}": {"x": "y" * 50} for number in range(30_000)}

    async def ask(store: ElkynStore) -> list[httpx.Response]:
        app = elkyn_app({"default": store}, authorize=lambda *_: None)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers = [await client.get(f"/a.json?timeout={time}") for time in ("1ms", "1min")]
        app.close()
        return answers

    with ElkynStore(mode="memory") as store:
        store.set("/a", value)
        timed_out, whole = asyncio.run(ask(store))
    assert (timed_out.status_code, whole.status_code) == (400, 200)
    assert timed_out.json() == {"error": "the read did not finish within 0.001 s"}


def test_an_identity_from_the_hook_is_checked_by_rules() -> None:
    from elkyn.auth.principal import Principal

    def authorize(scope: Any, namespace: str, path: str, write: bool) -> Principal:
        names = dict(scope["headers"])
        return Principal(uid=names.get(b"x-user", b"").decode() or None)

    async def ask(store: ElkynStore) -> list[int]:
        app = elkyn_app({"default": store}, authorize=authorize)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers = [
                await client.put("/users/ann.json", json=1, headers={"x-user": name})
                for name in ("ann", "bob", "")
            ]
        app.close()
        return [answer.status_code for answer in answers]

    with ElkynStore(mode="memory") as store:
        store.setup_default_rules()
        assert asyncio.run(ask(store)) == [200, 401, 401]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "refusing to listen on 0.0.0.0 without TLS"),
        (["--tls-cert", "cert.pem"], "TLS needs"),
        (["--keep-alive", "31"], "at most 30 s"),
        (["--keep-alive", "0"], "more than 0"),
    ],
)
def test_settings_that_are_mistakes_are_refused(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["serve", "--data", str(tmp_path / "d"), "--port", "0", *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_requests_are_logged_as_json_with_their_ids(start_server: Callable[..., Any]) -> None:
    served = start_server("--emulator", "--log-level", "info")
    answer = served.client.get("/a.json?auth=secret", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    served.client.put("/a.json", json=1)
    code, logged = served.stop()
    lines = [json.loads(line) for line in logged.splitlines()]
    requests = [json.loads(x["message"]) for x in lines if x["logger"] == "elkyn.access"]
    assert code == 0
    assert requests[0] | {"ms": 0} == {
        "id": "abc-1",
        "method": "GET",
        "path": "/a.json",
        "ns": "default",
        "status": 200,
        "ms": 0,
        "client": "127.0.0.1",
    }
    assert "secret" not in logged


def test_a_head_without_end_is_refused(emulator: Any) -> None:
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"GET /a.json HTTP/1.1\r\nHost: localhost\r\n")
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(b"x-filler: " + b"x" * 1000 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 431")


def test_one_connection_too_many_is_answered_with_429() -> None:
    from elkyn.server.http.protocol import bounded_protocol
    from elkyn.server.limits import Limits

    class Transport:
        sent = b""
        closing = False

        def write(self, data: bytes) -> None:
            self.sent += data

        def close(self) -> None:
            self.closing = True

        def is_closing(self) -> bool:
            return self.closing

    made = bounded_protocol(Limits(connections=0))
    protocol = made.__new__(made)
    protocol.connections = set()
    transport = Transport()
    protocol.connection_made(transport)
    protocol.data_received(b"GET / HTTP/1.1")
    protocol.connection_lost(None)
    assert (transport.sent[:12], transport.closing) == (b"HTTP/1.1 429", True)


def test_pipelined_requests_are_answered_byte_for_byte_in_order(emulator: Any) -> None:
    emulator.client.put("/a.json?ns=pipe", json="x")
    host, port = emulator.url.removeprefix("http://").split(":")
    lines = b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer owner\r\n"
    put = b"PUT /b.json?ns=pipe" + lines + b"Content-Length: 1\r\n\r\n7"
    requests = [
        b"GET /a.json?ns=pipe",
        b"HEAD /a.json?ns=pipe",
        b"GET /b.json?ns=pipe&print=silent",
    ]
    last = b"GET /b.json?ns=pipe" + lines + b"Connection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(put + b"".join(one + lines + b"\r\n" for one in requests) + last)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head = b"content-type: application/json; charset=utf-8\r\ncache-control: no-cache\r\n"
    assert answer == (
        b"HTTP/1.1 200 OK\r\n" + head + b"content-length: 1\r\nx-elkyn-position: 2\r\n\r\n7"
        b"HTTP/1.1 200 OK\r\n" + head + b'content-length: 3\r\n\r\n"x"'
        b"HTTP/1.1 200 OK\r\n" + head + b"content-length: 3\r\n\r\n"
        b"HTTP/1.1 204 No Content\r\ncache-control: no-cache\r\n\r\n"
        b"HTTP/1.1 200 OK\r\n" + head + b"content-length: 1\r\nconnection: close\r\n\r\n7"
    )


def test_a_header_cannot_end_its_line() -> None:
    async def send(_message: Any) -> None:
        raise AssertionError("nothing is to be sent")

    direct = SimpleNamespace(whole=lambda _head, _body: pytest.fail("nothing is to be sent"))
    scope = {"method": "GET", "extensions": {DIRECT_SEND: direct}}
    answer = Response(200, b"x", (("etag", "a\r\nset-cookie: b"),))
    with pytest.raises(ValueError, match="line break"):
        asyncio.run(send_response(answer, scope, send))
