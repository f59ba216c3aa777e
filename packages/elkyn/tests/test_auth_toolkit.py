"""The Identity Toolkit, the Secure Token service and `/auth/…`, without a network."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from toolkit_server import ACCOUNTS, ADMIN, PROJECT, TOKEN, Server, cheap_accounts

from elkyn.auth import passwords
from elkyn.auth.audit import AUDIT_LOGGER
from elkyn.auth.endpoints import BODY_BYTES_MAX, AuthRequest
from elkyn.auth.errors import BadToken
from elkyn.auth.jws import PublicKey, unsigned_token
from elkyn.auth.revocations import Revoked


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


def test_signing_up_returns_tokens_that_the_tree_accepts(server: Server) -> None:
    answer = server.sign_up("Ann@B.c")
    assert answer["email"] == "ann@b.c"
    assert answer["expiresIn"] == "3600"
    principal = server.auth.authenticate_token_sync(answer["idToken"])
    assert (principal.uid, principal.provider) == (answer["localId"], "password")
    assert principal.claims["email_verified"] is False
    assert principal.custom == ()
    shown = server.ok(f"{ACCOUNTS}:lookup", {"idToken": answer["idToken"]})["users"][0]
    assert shown["lastLoginAt"] == shown["createdAt"] == str(int(server.clock.now() * 1000))


def test_the_id_token_can_be_verified_with_the_published_keys(server: Server) -> None:
    text = server.sign_up()["idToken"]
    jwks = server.ok("/.well-known/jwks.json", method="GET")
    kid = jwt.get_unverified_header(text)["kid"]
    key = next(jwt.PyJWK(entry).key for entry in jwks["keys"] if entry["kid"] == kid)
    claims = jwt.decode(text, key, ["RS256"], audience="app", options={"verify_exp": False})
    assert claims["iss"] == "https://securetoken.google.com/app"
    assert claims["firebase"]["identities"] == {"email": ["a@b.c"]}
    assert PublicKey.from_jwk(jwks["keys"][0]).kid == kid


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"email": "a@b.c", "password": "secret1"}, "EMAIL_EXISTS"),
        ({"email": "A@B.C", "password": "secret1"}, "EMAIL_EXISTS"),
        ({"email": "x@b.c", "password": "12345"}, "WEAK_PASSWORD : Password should be at least 6"),
        ({"email": "x@b.c", "password": "x" * 4097}, "PASSWORD_DOES_NOT_MEET_REQUIREMENTS"),
        ({"email": "x@b.c"}, "MISSING_PASSWORD"),
        ({"password": "secret1"}, "MISSING_EMAIL"),
        ({"email": "unknown", "password": "secret1"}, "INVALID_EMAIL"),
        ({"email": "a@b\n.c", "password": "secret1"}, "INVALID_EMAIL"),
        ({"email": "x" * 400 + "@b.c", "password": "secret1"}, "INVALID_EMAIL"),
        ({"email": 7, "password": "secret1"}, "INVALID_ARGUMENT"),
        ({"localId": "u"}, "UNEXPECTED_PARAMETER : User ID"),
        ({"idToken": "x.y.z", "email": "a@b.c", "password": "secret1"}, "INVALID_ID_TOKEN"),
    ],
)
def test_refused_sign_ups(server: Server, body: dict[str, Any], message: str) -> None:
    server.sign_up()
    assert server.error(f"{ACCOUNTS}:signUp", body).startswith(message)


def test_signing_in_with_a_password(server: Server) -> None:
    uid = server.sign_up()["localId"]
    path = f"{ACCOUNTS}:signInWithPassword"
    answer = server.ok(path, {"email": "A@b.c", "password": "secret1"})
    assert (answer["localId"], answer["registered"]) == (uid, True)
    for body in ({"email": "a@b.c", "password": "wrong1"}, {"email": "n@b.c", "password": "x"}):
        assert server.error(path, body) == "INVALID_LOGIN_CREDENTIALS"
    server.admin(f"{PROJECT}:update", {"localId": uid, "disableUser": True})
    assert server.error(path, {"email": "a@b.c", "password": "secret1"}) == "USER_DISABLED"


def test_an_emulator_distinguishes_emails_and_passwords(emulator: Server) -> None:
    emulator.sign_up("known@b.c")
    path = f"{ACCOUNTS}:signInWithPassword"
    assert emulator.error(path, {"email": "known@b.c", "password": "no"}) == "INVALID_PASSWORD"
    assert emulator.error(path, {"email": "no@b.c", "password": "no"}) == "EMAIL_NOT_FOUND"
    methods = emulator.ok(f"{ACCOUNTS}:createAuthUri", {"identifier": "known@b.c"})
    assert methods["signinMethods"] == ["password"]


def test_email_privacy_hides_registered_users(server: Server) -> None:
    server.sign_up()
    for email in ("a@b.c", "no@b.c"):
        answer = server.ok(f"{ACCOUNTS}:createAuthUri", {"identifier": email})
        assert "registered" not in answer


def test_guessing_is_slowed_down_and_the_right_password_waits_too(server: Server) -> None:
    server.sign_up()
    path = f"{ACCOUNTS}:signInWithPassword"
    for _ in range(10):
        assert server.error(path, {"email": "a@b.c", "password": "guess1"}).startswith("INVALID")
    right = {"email": "a@b.c", "password": "secret1"}
    assert server.error(path, right).startswith("TOO_MANY_ATTEMPTS_TRY_LATER")
    assert server.ask(path, right)[0] == 429
    server.clock.advance(60)
    server.ok(path, right)


def test_anonymous_users_can_set_a_password(server: Server) -> None:
    anonymous = server.ok(f"{ACCOUNTS}:signUp", {"returnSecureToken": True})
    assert server.auth.authenticate_token_sync(anonymous["idToken"]).provider == "anonymous"
    body = {"idToken": anonymous["idToken"], "email": "a@b.c", "password": "secret1"}
    linked = server.ok(f"{ACCOUNTS}:signUp", body)
    assert linked["localId"] == anonymous["localId"]
    assert server.auth.authenticate_token_sync(linked["idToken"]).provider == "password"


def test_ways_to_sign_up_can_be_closed() -> None:
    closed = Server(sign_up=False, anonymous=False)
    with closed.auth:
        body = {"email": "a@b.c", "password": "secret1"}
        assert closed.error(f"{ACCOUNTS}:signUp", body) == "OPERATION_NOT_ALLOWED"
        assert closed.error(f"{ACCOUNTS}:signUp", {}) == "ADMIN_ONLY_OPERATION"
        closed.admin(PROJECT, body)


def test_one_address_makes_a_bounded_number_of_accounts() -> None:
    bounded = Server(sign_ups_max=3)
    with bounded.auth:
        for _ in range(3):
            bounded.ok(f"{ACCOUNTS}:signUp", {})
        assert bounded.error(f"{ACCOUNTS}:signUp", {}).startswith("TOO_MANY_ATTEMPTS_TRY_LATER")
        bounded.admin(PROJECT, {})
        bounded.clock.advance(3600)
        bounded.ok(f"{ACCOUNTS}:signUp", {})


def test_a_refresh_token_gets_new_id_tokens_until_it_ends(server: Server) -> None:
    signed = server.sign_up()
    server.clock.advance(4000)
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(signed["idToken"])
    status, answer = server.refresh(signed["refreshToken"])
    assert status == 200
    assert answer["user_id"] == signed["localId"]
    assert answer["refresh_token"] == signed["refreshToken"]
    principal = server.auth.authenticate_token_sync(answer["access_token"])
    assert principal.claims["auth_time"] == int(server.clock.now()) - 4000
    user = {"localId": signed["localId"]}
    server.admin(f"{PROJECT}:update", {**user, "disableUser": True})
    assert server.refresh(signed["refreshToken"])[1]["error"]["message"] == "USER_DISABLED"
    server.admin(f"{PROJECT}:update", {**user, "disableUser": False})
    assert server.refresh(signed["refreshToken"])[0] == 200
    server.admin("/auth/revoke", {"uid": signed["localId"]})
    assert server.refresh(signed["refreshToken"])[1]["error"]["message"] == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "MISSING_GRANT_TYPE"),
        ({"grant_type": "password"}, "INVALID_GRANT_TYPE"),
        ({"grant_type": "refresh_token"}, "MISSING_REFRESH_TOKEN"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "INVALID_REFRESH_TOKEN"),
        ({"grant_type": "refresh_token", "refresh_token": "x" * 2000}, "INVALID_REFRESH_TOKEN"),
        ({"grant_type": "refresh_token", "refresh_token": "x" * 64}, "TOKEN_EXPIRED"),
    ],
)
def test_refused_refresh_tokens(server: Server, body: dict[str, Any], message: str) -> None:
    assert server.error(TOKEN, body) == message


def test_a_new_password_ends_all_sessions_and_opens_one(server: Server) -> None:
    signed = server.sign_up()
    notified: list[Revoked] = []
    server.auth.revocations.subscribe(notified.append)
    server.clock.advance(2)
    body = {"idToken": signed["idToken"], "password": "secret2"}
    answer = server.ok(f"{ACCOUNTS}:update", body)
    assert notified == [Revoked(uid=signed["localId"])]
    assert server.refresh(signed["refreshToken"])[0] == 400
    assert server.error(f"{ACCOUNTS}:lookup", {"idToken": signed["idToken"]}) == "TOKEN_EXPIRED"
    assert server.refresh(answer["refreshToken"])[0] == 200
    assert server.auth.authenticate_token_sync(answer["idToken"]).uid == signed["localId"]
    right = {"email": "a@b.c", "password": "secret2"}
    server.ok(f"{ACCOUNTS}:signInWithPassword", right)


def test_users_change_their_own_profile_and_nothing_more(server: Server) -> None:
    signed = server.sign_up()
    body = {
        "idToken": signed["idToken"],
        "displayName": "Ann",
        "photoUrl": "http://x/y",
        "customAttributes": '{"admin":true}',
        "roles": ["admin"],
        "emailVerified": True,
        "localId": "another-user",
    }
    answer = server.ok(f"{ACCOUNTS}:update", body)
    assert (answer["displayName"], answer["localId"]) == ("Ann", signed["localId"])
    found = server.ok(f"{ACCOUNTS}:lookup", {"idToken": signed["idToken"]})["users"][0]
    assert found["emailVerified"] is False
    assert "customAttributes" not in found
    status, fresh = server.refresh(signed["refreshToken"])
    assert status == 200
    principal = server.auth.authenticate_token_sync(fresh["id_token"])
    assert not principal.admin
    assert principal.claims["name"] == "Ann"
    gone = {"idToken": fresh["id_token"], "deleteAttribute": ["DISPLAY_NAME", "X"]}
    assert "displayName" not in server.ok(f"{ACCOUNTS}:update", gone)


def test_an_account_that_ended_is_gone(server: Server) -> None:
    signed = server.sign_up()
    server.ok(f"{ACCOUNTS}:delete", {"idToken": signed["idToken"]})
    assert server.error(f"{ACCOUNTS}:lookup", {"idToken": signed["idToken"]}) == "USER_NOT_FOUND"
    assert server.refresh(signed["refreshToken"])[0] == 400
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(signed["idToken"])
    assert server.sign_up()["localId"] != signed["localId"]


def test_an_old_sign_in_cannot_change_a_password() -> None:
    strict = Server(recent_seconds=300)
    with strict.auth:
        signed = strict.sign_up()
        strict.clock.advance(301)
        body = {"idToken": signed["idToken"], "password": "secret2"}
        assert strict.error(f"{ACCOUNTS}:update", body) == "CREDENTIAL_TOO_OLD_LOGIN_AGAIN"
        assert strict.error(f"{ACCOUNTS}:delete", body) == "CREDENTIAL_TOO_OLD_LOGIN_AGAIN"
        linked = {**body, "email": "x@b.c"}
        assert strict.error(f"{ACCOUNTS}:signUp", linked) == "CREDENTIAL_TOO_OLD_LOGIN_AGAIN"
        less = {"idToken": signed["idToken"], "deleteProvider": ["password"]}
        assert strict.error(f"{ACCOUNTS}:update", less) == "CREDENTIAL_TOO_OLD_LOGIN_AGAIN"
        strict.ok(f"{ACCOUNTS}:update", {"idToken": signed["idToken"], "displayName": "x"})


def test_the_role_of_a_user_makes_an_administrator_until_it_is_removed(server: Server) -> None:
    signed = server.sign_up()
    uid = signed["localId"]
    server.admin(f"{PROJECT}:update", {"localId": uid, "roles": ["admin", "reader"]})
    fresh = server.refresh(signed["refreshToken"])[1]["id_token"]
    assert server.auth.authenticate_token_sync(fresh).admin
    server.clock.advance(1)
    server.admin(f"{PROJECT}:update", {"localId": uid, "roles": ["reader"]})
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(fresh)
    status, answer = server.ask(f"{PROJECT}:update", {"localId": uid, "roles": ["king"]}, **ADMIN)
    assert (status, answer["error"]["message"].split(" : ")[0]) == (400, "INVALID_ROLE")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PROJECT),
        ("POST", f"{PROJECT}:update"),
        ("POST", f"{PROJECT}:lookup"),
        ("GET", f"{PROJECT}:batchGet"),
        ("POST", "/auth/token"),
        ("POST", "/auth/keys"),
        ("POST", "/auth/signing/rotate"),
    ],
)
def test_administration_needs_an_administrator(
    server: Server, method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    signed = server.sign_up()
    assert server.ask(path, {}, method=method)[0] == 401
    assert server.ask(path, {}, method=method, authorization="Bearer owner")[0] == 401
    user = f"Bearer {signed['idToken']}"
    assert server.ask(path, {}, method=method, authorization=user)[0] == 403
    assert f"user {signed['localId']}" in caplog.text


def test_administrators_of_users(server: Server) -> None:
    body = {"localId": "u1", "email": "x@y.z", "password": "secret1", "phoneNumber": "+4930123"}
    assert server.admin(PROJECT, body)["localId"] == "u1"
    for invalid, message in (
        ({"localId": "u1"}, "DUPLICATE_LOCAL_ID"),
        ({"email": "X@y.z"}, "EMAIL_EXISTS"),
        ({"phoneNumber": "+4930123"}, "PHONE_NUMBER_EXISTS"),
        ({"phoneNumber": "0301"}, "INVALID_PHONE_NUMBER"),
        ({"localId": "x" * 129}, "INVALID_LOCAL_ID"),
        ({"customAttributes": '{"sub":1}'}, "FORBIDDEN_CLAIM"),
        ({"customAttributes": "[1]"}, "INVALID_CLAIMS"),
        ({"customAttributes": json.dumps({"a": "x" * 1000})}, "CLAIMS_TOO_LARGE"),
    ):
        assert server.error(PROJECT, invalid, **ADMIN).split(" : ")[0] == message
    for identifier in ({"localId": ["u1"]}, {"email": ["x@y.z"]}, {"phoneNumber": ["+4930123"]}):
        assert server.admin(f"{PROJECT}:lookup", identifier)["users"][0]["localId"] == "u1"
    assert "users" not in server.admin(f"{PROJECT}:lookup", {"localId": ["u2"]})
    server.admin(f"{PROJECT}:update", {"localId": "u1", "customAttributes": '{"level":3}'})
    body = {"email": "x@y.z", "password": "secret1"}
    signed = server.ok(f"{ACCOUNTS}:signInWithPassword", body)
    assert server.auth.authenticate_token_sync(signed["idToken"]).custom == ("level",)
    assert server.error(f"{PROJECT}:update", {"localId": "u9"}, **ADMIN) == "USER_NOT_FOUND"
    assert server.error(f"{PROJECT}:delete", {"localId": "u9"}, **ADMIN) == "USER_NOT_FOUND"
    server.admin(f"{PROJECT}:delete", {"localId": "u1"})


def test_users_are_listed_by_page_and_deleted_in_batches(server: Server) -> None:
    for number in range(5):
        server.admin(PROJECT, {"localId": f"u{number}", "disabled": number > 2})
    seen, token = [], ""
    while True:
        path = f"{PROJECT}:batchGet?maxResults=2&nextPageToken={token}"
        page = server.admin(path, method="GET")
        seen += [user["localId"] for user in page.get("users", [])]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert seen == [f"u{number}" for number in range(5)]
    answer = server.admin(f"{PROJECT}:batchDelete", {"localIds": ["u0", "u3", "u9"]})
    assert [error["localId"] for error in answer["errors"]] == ["u0"]
    assert server.admin(f"{PROJECT}:batchDelete", {"localIds": seen, "force": True}) == {}


def test_users_are_imported_without_foreign_hashes(server: Server) -> None:
    users = [{"localId": "u1", "email": "a@b.c"}, {"localId": "u2", "passwordHash": "x"}, {}]
    answer = server.admin(f"{PROJECT}:batchCreate", {"users": users})
    assert [error["index"] for error in answer["error"]] == [1, 2]
    server.admin(f"{PROJECT}:batchCreate", {"users": [{"localId": "u1", "displayName": "x"}]})


def test_a_session_cookie_has_its_own_issuer(server: Server) -> None:
    signed = server.sign_up()
    path = "/identitytoolkit.googleapis.com/v1/projects/app:createSessionCookie"
    body = {"idToken": signed["idToken"], "validDuration": "600"}
    cookie = server.admin(path, body)["sessionCookie"]
    claims = jwt.decode(cookie, options={"verify_signature": False})
    assert claims["iss"] == "https://session.firebase.google.com/app"
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(cookie)
    status, _answer = server.ask(path, {**body, "validDuration": 1}, **ADMIN)
    assert status == 400


def test_a_token_for_a_user_is_signed_for_administrators(
    server: Server, emulator: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    body = {"uid": "user123", "email": "user@example.com", "expiresSeconds": 60}
    text = server.admin("/auth/token", body)["token"]
    principal = server.auth.authenticate_token_sync(text)
    shown = principal.as_auth()
    assert shown is not None
    assert (shown["uid"], shown["email"]) == ("user123", "user@example.com")
    assert text not in caplog.text
    assert '"action": "sign token", "target": "user123"' in caplog.text
    with pytest.raises(BadToken):
        emulator.auth.authenticate_token_sync(text)
    assert "token" in emulator.ok("/auth/token", {"uid": "any"})
    for wrong in ({}, {"uid": ""}, {"uid": "u", "sub": "v"}, {"uid": "u", "expiresSeconds": -1}):
        assert server.ask("/auth/token", wrong, **ADMIN)[0] == 400


def test_administrators_revoke_users_tokens_and_keys(server: Server) -> None:
    notified: list[Revoked] = []
    server.auth.revocations.subscribe(notified.append)
    first = server.admin("/auth/token", {"uid": "u"})["token"]
    second = server.admin("/auth/token", {"uid": "u"})["token"]
    server.admin("/auth/revoke", {"token": first})
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(first)
    server.auth.authenticate_token_sync(second)
    server.clock.advance(1)
    server.admin("/auth/revoke", {"uid": "u"})
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(second)
    made = server.admin("/auth/keys", {"name": "ci"})
    bearer = f"Bearer {made['key']}"
    listed = server.ok("/auth/keys", method="GET", authorization=bearer)["keys"]
    assert [(key["name"], key["roles"]) for key in listed] == [("ci", ["admin"])]
    assert made["key"] not in json.dumps(listed)
    server.admin("/auth/keys/revoke", {"name": "ci"})
    assert server.ask("/auth/keys", method="GET", authorization=bearer)[0] == 401
    assert notified[-1] == Revoked(key_id=made["id"])
    assert server.ask("/auth/keys/revoke", {"name": "ci"}, **ADMIN)[0] == 404
    assert server.ask("/auth/revoke", {}, **ADMIN)[0] == 400


def test_tokens_of_the_second_of_a_revocation_are_revoked_and_later_ones_are_not(
    server: Server,
) -> None:
    user = server.ok(f"{ACCOUNTS}:signUp", {"email": "s@example.org", "password": "secret!"})
    uid, password = user["localId"], {"email": "s@example.org", "password": "secret!"}
    before = [server.admin("/auth/token", {"uid": uid})["token"], user["idToken"]]
    server.admin("/auth/revoke", {"uid": uid})
    for token in before:
        with pytest.raises(BadToken):
            server.auth.authenticate_token_sync(token)
    again = server.ok(f"{ACCOUNTS}:signInWithPassword", password)["idToken"]
    for token in (again, server.admin("/auth/token", {"uid": uid})["token"]):
        assert server.auth.authenticate_token_sync(token).uid == uid


def test_a_disabled_user_has_no_token_that_is_good(server: Server) -> None:
    server.admin(PROJECT, {"localId": "u"})
    text = server.admin("/auth/token", {"uid": "u"})["token"]
    assert server.auth.authenticate_token_sync(text).uid == "u"
    server.admin(f"{PROJECT}:update", {"localId": "u", "disableUser": True})
    with pytest.raises(BadToken):
        server.auth.authenticate_token_sync(text)
    path = f"{ACCOUNTS}:signInWithCustomToken"
    assert server.error(path, {"token": text}) == "USER_DISABLED"


def test_rotating_the_signing_key_keeps_tokens_good(server: Server) -> None:
    old = server.sign_up()["idToken"]
    server.admin("/auth/signing/rotate")
    assert server.auth.authenticate_token_sync(old).uid
    assert len(server.ok("/.well-known/jwks.json", method="GET")["keys"]) == 2


def test_requests_of_sdks_before_they_sign_in(server: Server) -> None:
    base = "/identitytoolkit.googleapis.com"
    assert server.ok(f"{base}/v1/projects?key=x", method="GET")["projectId"] == "app"
    policy = server.ok(f"{base}/v2/passwordPolicy", method="GET")
    assert policy["customStrengthOptions"]["minPasswordLength"] == 6
    assert server.ok(f"{base}/v2/recaptchaConfig", method="GET")["recaptchaEnforcementState"] == []


def test_unknown_paths_and_methods(server: Server, emulator: Server) -> None:
    assert server.ask(f"{ACCOUNTS}:signUp", method="PUT")[0] == 405
    assert server.error(f"{ACCOUNTS}:sendVerificationCode").startswith("OPERATION_NOT_ALLOWED")
    assert server.ask("/auth/nothing")[0] == 404
    assert server.ask("/emulator/v1/projects/app/accounts", method="DELETE", **ADMIN)[0] == 404
    emulator.sign_up("wiped@b.c")
    path = "/emulator/v1/projects/app/accounts"
    emulator.ok(path, method="DELETE", authorization="Bearer owner")
    assert emulator.auth.users.list() == []
    for owned in ("/auth/token", ACCOUNTS, TOKEN, "/.well-known/jwks.json"):
        assert server.auth.owns(owned)
    for other in ("/users.json", "/authors/x.json", "/.settings/rules.json", "/"):
        assert not server.auth.owns(other)


def test_mock_tokens_of_an_emulator_need_no_account(emulator: Server) -> None:
    issuer = "https://securetoken.google.com/app"
    text = unsigned_token({"iss": issuer, "aud": "app", "sub": "mock", "iat": 0})
    assert emulator.auth.authenticate_token_sync(text).uid == "mock"


def test_too_many_requests_of_one_client_are_throttled_and_others_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(passwords.Passwords, "verify", lambda *_: not gate.wait(20))
    body = json.dumps({"email": "a@b.c", "password": "secret1"}).encode()
    request = AuthRequest("POST", f"{ACCOUNTS}:signInWithPassword", {}, {}, body)

    async def storm() -> list[int]:
        pending = [asyncio.create_task(server.auth.respond(request)) for _ in range(100)]
        keys = await server.auth.respond(AuthRequest("GET", "/.well-known/jwks.json"))
        assert keys.status == 200
        gate.set()
        return [response.status for response in await asyncio.gather(*pending)]

    statuses = asyncio.run(storm())
    assert statuses.count(429) >= 36
    assert {400, 429} >= set(statuses)


def test_large_and_deep_bodies_are_refused(server: Server) -> None:
    assert server.ask(f"{ACCOUNTS}:signUp", b" " * (BODY_BYTES_MAX + 1))[0] == 413
    assert server.ask(f"{ACCOUNTS}:signUp", b"[" * 100_000)[0] == 400
    assert server.ask(f"{ACCOUNTS}:signUp", {"email": "x" * 100_000})[0] == 400
