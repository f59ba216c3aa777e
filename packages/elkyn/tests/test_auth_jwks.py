"""Keys of other issuers, from a real server on loopback that rotates, fails and misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from elkyn.auth import jwks
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.errors import BadToken
from elkyn.auth.jwks import Issuer, JwksSource, KeysMissing
from elkyn.auth.jws import PrivateKey, sign_token
from sennit_core.errors import Unavailable, UsageError
from sennit_core.testing import ManualClock

NOW = 1_700_000_000
KEYS = {kid: PrivateKey.generate(kid) for kid in ("k1", "k2")}


class IssuerServer(ThreadingHTTPServer):
    """Issues keys at `/keys`; `answer` is what it does next."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kids = ["k1"]
        self.mode = "ok"
        self.request_count = 0
        self.pause = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/keys"


class _Handler(BaseHTTPRequestHandler):
    server: IssuerServer

    def do_GET(self) -> None:
        self.server.request_count += 1
        time.sleep(self.server.pause)
        keys = [KEYS[kid].to_jwk() for kid in self.server.kids]
        body = json.dumps({"keys": [{"kty": "oct"}, 7, *keys]}).encode()
        mode = self.server.mode
        if mode == "huge":
            body = b" " * 300_000
        elif mode == "nested":
            body = b"[" * 100_000
        elif mode != "ok" and not mode.isdecimal():
            body = mode.encode()
        self.send_response(int(mode) if mode.isdecimal() else 200)
        self.send_header("Location", "/moved")
        self.send_header("Cache-Control", "public, max-age=600")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[IssuerServer]:
    with IssuerServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def authenticator(server: IssuerServer, clock: ManualClock, **fields: Any) -> Authenticator:
    issuer = Issuer("https://id.test", ("app",), server.url, **fields)
    return Authenticator(AuthSettings(issuers=(issuer,)), clock=clock)


def token(kid: str, **more: Any) -> str:
    claims = {"iss": "https://id.test", "aud": "app", "sub": "u", "iat": NOW, "exp": NOW + 10**6}
    return sign_token({**claims, **more}, KEYS[kid])


def fault(auth: Authenticator, text: str) -> str:
    with pytest.raises(BadToken) as caught:
        auth.authenticate_token_sync(text)
    return caught.value.fault


def test_keys_are_fetched_when_the_first_token_comes(
    server: IssuerServer, clock: ManualClock
) -> None:
    with authenticator(server, clock, uid_prefix="x:") as auth:
        assert server.request_count == 0
        principal = auth.authenticate_token_sync(token("k1"))
        assert (principal.uid, principal.provider) == ("x:u", "https://id.test")
        auth.authenticate_token_sync(token("k1", n=2))
        assert server.request_count == 1


def test_a_rotated_key_is_found(server: IssuerServer, clock: ManualClock) -> None:
    with authenticator(server, clock) as auth:
        auth.authenticate_token_sync(token("k1"))
        server.kids = ["k1", "k2"]
        clock.advance(31)
        assert auth.authenticate_token_sync(token("k2")).uid == "u"
        server.kids = ["k2"]
        clock.advance(601)
        assert fault(auth, token("k1", n=3)) == "signature"


def test_unknown_keys_cannot_make_it_fetch_all_the_time(
    server: IssuerServer, clock: ManualClock
) -> None:
    with authenticator(server, clock) as auth:
        auth.authenticate_token_sync(token("k1"))
        for number in range(20):
            assert fault(auth, token("k2", n=number)) == "signature"
        assert server.request_count == 1
        clock.advance(31)
        for number in range(20):
            fault(auth, token("k2", n=number))
        assert server.request_count == 2


def test_an_outage_is_bridged_for_a_day(server: IssuerServer, clock: ManualClock) -> None:
    with authenticator(server, clock) as auth:
        auth.authenticate_token_sync(token("k1"))
        server.mode = "503"
        clock.advance(3600)
        for number in range(5):
            assert auth.authenticate_token_sync(token("k1", n=number)).uid == "u"
        assert server.request_count == 2
        clock.advance(24 * 3600)
        with pytest.raises(Unavailable):
            auth.authenticate_token_sync(token("k1", n=9))
        server.mode = "ok"
        clock.advance(120)
        assert auth.authenticate_token_sync(token("k1", n=9)).uid == "u"


@pytest.mark.parametrize(
    "mode", ["500", "302", "404", "huge", "nested", "not json", "{}", '{"keys": [{"kty": "oct"}]}']
)
def test_bad_answers_return_no_keys(server: IssuerServer, clock: ManualClock, mode: str) -> None:
    server.mode = mode
    with authenticator(server, clock) as auth, pytest.raises(Unavailable):
        auth.authenticate_token_sync(token("k1"))
    assert server.request_count == 1


def test_a_slow_issuer_is_abandoned(
    server: IssuerServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_TIMEOUT_SECONDS", 0.1)
    server.pause = 0.5
    with authenticator(server, clock) as auth, pytest.raises(Unavailable):
        auth.authenticate_token_sync(token("k1"))


def test_many_at_once_fetch_once(server: IssuerServer, clock: ManualClock) -> None:
    server.pause = 0.2
    with authenticator(server, clock) as auth, ThreadPoolExecutor(8) as pool:
        texts = [token("k1", n=number) for number in range(8)]
        assert {principal.uid for principal in pool.map(auth.authenticate_token_sync, texts)} == {
            "u"
        }
    assert server.request_count == 1


def test_the_event_loop_runs_while_keys_are_fetched(
    server: IssuerServer, clock: ManualClock
) -> None:
    server.pause = 0.3

    async def work() -> int:
        refreshes = 0
        pending = asyncio.create_task(auth.authenticate_token(token("k1")))
        while not pending.done():
            refreshes += 1
            await asyncio.sleep(0.01)
        assert pending.result().uid == "u"
        return refreshes

    with authenticator(server, clock) as auth:
        assert asyncio.run(work()) > 5


def test_keys_may_come_from_a_file(tmp_path: Path, clock: ManualClock) -> None:
    file = tmp_path / "keys.json"
    source = JwksSource(str(file), clock)
    with pytest.raises(KeysMissing):
        source.find("k1", "RS256")
    source.refresh()
    with pytest.raises(Unavailable):
        source.find("k1", "RS256")
    file.write_text(json.dumps({"keys": [KEYS["k1"].to_jwk()]}))
    clock.advance(61)
    with pytest.raises(KeysMissing):
        source.find("k1", "RS256")
    source.refresh()
    assert [key.kid for key in source.find("k1", "RS256")] == ["k1"]
    assert source.find(None, "ES256") == []


@pytest.mark.parametrize(
    "place", ["http://example.com/keys", "ftp://127.0.0.1/x", "file:///etc/passwd", "https://"]
)
def test_unsafe_places_are_refused(place: str) -> None:
    with pytest.raises(UsageError):
        JwksSource(place)


@pytest.mark.parametrize(
    "issuer",
    [
        Issuer("", ("a",), "keys"),
        Issuer("i", (), "keys"),
        Issuer("i", ("",), "keys"),
        Issuer("i", ("a",), "keys", ("HS256",)),
    ],
)
def test_issuers_that_trust_too_much_are_refused(issuer: Issuer) -> None:
    with pytest.raises(UsageError):
        issuer.trust()


def test_a_firebase_project_is_an_issuer() -> None:
    issuer = Issuer.firebase("my-app")
    assert issuer.issuer == "https://securetoken.google.com/my-app"
    assert issuer.audience == ("my-app",)
    assert issuer.trust().algorithms == {"RS256"}
