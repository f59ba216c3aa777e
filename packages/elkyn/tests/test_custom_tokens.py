"""Custom tokens, exchanged for ID tokens: three forms, and which are refused."""

from __future__ import annotations

from collections.abc import Iterator

import jwt
import pytest
from toolkit_server import ACCOUNTS, SECRET, Server, cheap_accounts

from elkyn.auth.jws import unsigned_token
from elkyn.auth.tokens import TokenSigner

# As Firebase documents it; a token with it names the service account in `sub`, the user in `uid`.
CUSTOM_TOKEN_AUDIENCE = (
    "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit"
)


@pytest.fixture(autouse=True, scope="module")
def cheap() -> Iterator[None]:
    with cheap_accounts():
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.auth:
        yield made


@pytest.fixture(scope="module")
def emulator() -> Iterator[Server]:
    made = Server(emulator=True, secret=None, admin_token=None)
    with made.auth:
        yield made


def test_a_custom_token_is_exchanged(server: Server) -> None:
    path = f"{ACCOUNTS}:signInWithCustomToken"
    text = TokenSigner(SECRET, server.clock).sign("u7", {"level": 3})
    first = server.ok(path, {"token": text, "returnSecureToken": True})
    assert first["isNewUser"] is True
    assert server.ok(path, {"token": text})["isNewUser"] is False
    principal = server.auth.authenticate_token_sync(first["idToken"])
    assert (principal.uid, principal.provider, principal.custom) == ("u7", "custom", ("level",))
    again = server.refresh(first["refreshToken"])[1]
    assert server.auth.authenticate_token_sync(again["id_token"]).claims["level"] == 3


def test_a_legacy_token_is_exchanged(server: Server) -> None:
    claims = {"v": 0, "iat": int(server.clock.now()), "d": {"uid": "old", "level": 1}}
    text = jwt.encode(claims, SECRET, "HS256")
    answer = server.ok(f"{ACCOUNTS}:signInWithCustomToken", {"token": text})
    assert server.auth.authenticate_token_sync(answer["idToken"]).uid == "old"


def test_custom_tokens_of_other_signers_are_refused(server: Server, emulator: Server) -> None:
    path = f"{ACCOUNTS}:signInWithCustomToken"
    foreign = TokenSigner("another secret", server.clock).sign("u")
    assert server.error(path, {"token": foreign}).startswith("INVALID_CUSTOM_TOKEN : ")
    unsigned = unsigned_token({"uid": "u"})
    assert server.error(path, {"token": unsigned}).startswith("INVALID_CUSTOM_TOKEN : ")
    assert server.error(path, {"token": '{"uid":"u"}'}).startswith("INVALID_CUSTOM_TOKEN : ")
    assert server.error(path, {}) == "MISSING_CUSTOM_TOKEN"
    emulator.ok(path, {"token": unsigned})
    emulator.ok(path, {"token": '{"uid":"u"}'})
    for claims in ({"uid": 7}, {"uid": "u", "claims": {"sub": 1}}, {"uid": "u", "claims": 1}):
        text = unsigned_token(claims)
        assert emulator.error(path, {"token": text}).startswith("INVALID_CUSTOM_TOKEN : ")


def test_a_service_accounts_custom_token_names_its_user_in_uid(server: Server) -> None:
    path = f"{ACCOUNTS}:signInWithCustomToken"
    now = int(server.clock.now())
    claims = {
        "aud": CUSTOM_TOKEN_AUDIENCE,
        "iss": "signer@app.iam.gserviceaccount.com",
        "sub": "signer@app.iam.gserviceaccount.com",
        "iat": now,
        "exp": now + 3600,
    }
    text = jwt.encode(claims, SECRET, "HS256")
    assert server.error(path, {"token": text}).startswith("INVALID_CUSTOM_TOKEN : ")
    signed = server.ok(path, {"token": jwt.encode({**claims, "uid": "ann"}, SECRET, "HS256")})
    assert server.auth.authenticate_token_sync(signed["idToken"]).uid == "ann"


def test_a_custom_token_cannot_make_an_administrator(server: Server) -> None:
    text = TokenSigner(SECRET, server.clock).sign("u", {"roles": {"admin": True}})
    answer = server.ok(f"{ACCOUNTS}:signInWithCustomToken", {"token": text})
    principal = server.auth.authenticate_token_sync(answer["idToken"])
    assert not principal.admin
    assert "roles" not in principal.claims


def test_a_custom_token_that_was_revoked_is_not_exchanged(server: Server) -> None:
    path = f"{ACCOUNTS}:signInWithCustomToken"
    text = server.admin("/auth/token", {"uid": "u", "expiresSeconds": 10**6})["token"]
    server.ok(path, {"token": text})
    server.clock.advance(1)
    server.admin("/auth/revoke", {"uid": "u"})
    assert server.error(path, {"token": text}).startswith("INVALID_CUSTOM_TOKEN")
