"""The account store, and the keys, revocations and passwords in it."""

from __future__ import annotations

import asyncio
import logging
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from elkyn.auth.account_store import SESSIONS_MAX, AccountStore, Session, User
from elkyn.auth.audit import AUDIT_LOGGER, REFUSALS_MAX, Audit
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.errors import AccountError, BadToken
from elkyn.auth.jwks import Issuer
from elkyn.auth.jws import PrivateKey
from elkyn.auth.keys import AdminKeys, SigningKeys, server_secret
from elkyn.auth.passwords import BoundedPool, Passwords
from elkyn.auth.principal import ADMIN, UNAUTHENTICATED, Principal
from elkyn.auth.revocations import Revoked
from elkyn.auth.throttle import Throttle
from elkyn.auth.tokens import TokenSigner
from sennit_core.errors import Busy, Denied, NotFound, UsageError
from sennit_core.testing import ManualClock

SECRET = "a secret of at least thirty-two bytes"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), (b"authorization", f"Bearer {text}".encode())]


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "data" / ".secrets"
    with AccountStore(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_writes_are_there_after_reopening(tmp_path: Path) -> None:
    user = User("u", email="A@b.c", roles=("reader",), phone="+123", claims='{"a":1}')
    with AccountStore(tmp_path / "v") as account_store:
        account_store.write(lambda pages: pages.put_user(user))
    with AccountStore(tmp_path / "v") as account_store, account_store.read() as pages:
        assert pages.user("u") == user
        assert pages.user_named("email", "a@B.C") == user
        assert pages.user_named("phone", "+123") == user


def test_a_write_that_raises_leaves_nothing() -> None:
    def body(pages: Any) -> None:
        pages.put_user(User("u"))
        raise UsageError("no")

    with AccountStore(None) as account_store:
        with pytest.raises(UsageError):
            account_store.write(body)
        with account_store.read() as pages:
            assert pages.user("u") is None


def test_names_follow_their_user() -> None:
    with AccountStore(None) as account_store:
        account_store.write(lambda pages: pages.put_user(User("u", email="a@b.c")))
        account_store.write(lambda pages: pages.put_user(User("u", email="x@y.z")))
        with account_store.read() as pages:
            assert pages.user_named("email", "a@b.c") is None
            assert pages.user_named("email", "x@y.z") == User("u", email="x@y.z")
        account_store.write(lambda pages: pages.delete_user(User("u", email="x@y.z")))
        with account_store.read() as pages:
            assert pages.user_named("email", "x@y.z") is None
            assert list(pages.users()) == []


def test_a_user_holds_a_bounded_number_of_sessions() -> None:
    def session(number: int) -> Session:
        return Session("u", "password", auth_time=0, created_ms=number)

    def open_many(pages: Any) -> None:
        pages.put_session("other", Session("v", "password", 0, 0))
        for number in range(SESSIONS_MAX + 5):
            pages.put_session(f"s{number}", session(number))

    with AccountStore(None) as account_store:
        account_store.write(open_many)
        with account_store.read() as pages:
            assert pages.session("s4") is None
            assert pages.session("s5") == session(5)
        account_store.write(lambda pages: pages.end_sessions("u"))
        with account_store.read() as pages:
            assert pages.session("s9") is None
            assert pages.session("other") is not None


@pytest.mark.slow
def test_the_map_grows() -> None:
    def body(pages: Any) -> None:
        for number in range(200):
            pages.put_user(User(f"u{number}", photo_url="x" * 500_000))

    with AccountStore(None) as account_store:
        account_store.write(body)
        with account_store.read() as pages:
            assert sum(1 for _user in pages.users()) == 200


def test_a_map_that_another_process_grew_is_grown_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, pathlib\n"
        "from elkyn.auth.account_store import User, AccountStore\n"
        "with AccountStore(pathlib.Path(sys.argv[1])) as account_store:\n"
        "    for number in range(9):\n"
        "        user = User(f'u{number}', photo_url='x' * 1_000_000)\n"
        "        account_store.write(lambda pages: pages.put_user(user))\n"
    )
    monkeypatch.setattr("elkyn.storage.account_rows._MAP_BYTES", 1024 * 1024)
    command = [sys.executable, "-c", program, str(tmp_path / "v")]
    with AccountStore(tmp_path / "v") as account_store, AccountStore(None) as other:
        subprocess.run(command, check=True)
        account_store.write(lambda pages: pages.put_user(User("mine")))
        with account_store.read() as pages:
            assert len(list(pages.users())) == 10
        other.write(lambda pages: pages.put_user(User("mine")))


def test_a_backup_is_an_account_store(tmp_path: Path) -> None:
    with AccountStore(tmp_path / "v") as account_store:
        account_store.write(lambda pages: pages.put_user(User("u")))
        account_store.backup(tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy" / "data.mdb").stat().st_mode) == 0o600
    with AccountStore(tmp_path / "copy") as account_store, account_store.read() as pages:
        assert pages.user("u") == User("u")


def test_refresh_tokens_and_keys_are_not_in_the_files(tmp_path: Path, clock: ManualClock) -> None:
    with AccountStore(tmp_path / "v") as account_store:
        key, text = AdminKeys(account_store, clock).create("ci")
        account_store.write(
            lambda pages: pages.put_session("refresh-me", Session("u", "password", 0, 0))
        )
    data = (tmp_path / "v" / "data.mdb").read_bytes()
    assert b"refresh-me" not in data
    assert text.split("_", 2)[2].encode() not in data
    assert key.id.encode() in data


def test_the_signing_key_survives_and_rotates(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = PrivateKey.generate("shared")
    monkeypatch.setattr(PrivateKey, "generate", lambda kid: PrivateKey(kid, made._private))
    with AccountStore(tmp_path / "v") as account_store:
        old = str(SigningKeys(account_store, clock).current().kid)
    with AccountStore(tmp_path / "v") as account_store:
        keys, other = SigningKeys(account_store, clock), SigningKeys(account_store, clock)
        assert keys.current().kid == old
        new = keys.rotate()
        assert {key["kid"] for key in keys.jwks()["keys"]} == {old, new}
        assert len(other.find(new, "RS256")) == 1
        assert keys.find(old, "HS256") == keys.find(None, "RS256") == ()
        clock.advance(3 * 3600)
        newest = keys.rotate()
        assert {key["kid"] for key in keys.jwks()["keys"]} == {new, newest}
        assert all("d" not in key for key in keys.jwks()["keys"])


def test_the_servers_secret_is_made_once(tmp_path: Path) -> None:
    with AccountStore(tmp_path / "v") as account_store:
        secret = server_secret(account_store)
        assert len(secret) == 32
    with AccountStore(tmp_path / "v") as account_store:
        assert server_secret(account_store) == secret


def test_admin_keys_are_named_have_roles_and_end() -> None:
    with Authenticator(AuthSettings()) as auth:
        key, text = auth.admin_keys.create("ci")
        _reader, reader_text = auth.admin_keys.create("dashboards", ["reader"])
        principal = auth.authenticate_sync(bearer(text), {})
        assert (principal.admin, principal.uid) == (True, "key:ci")
        reader = auth.authenticate_sync([], {"access_token": reader_text})
        assert not reader.admin
        shown = reader.as_auth()
        assert shown is not None
        assert shown["token"]["roles"] == {"reader": True}
        assert auth.revocations.reason(principal) is None
        auth.admin_keys.revoke("ci")
        assert auth.revocations.reason(principal) == "credential was revoked"
        with pytest.raises(BadToken) as caught:
            auth.authenticate_sync(bearer(text), {})
        assert caught.value.fault == "revoked"
        with pytest.raises(NotFound):
            auth.admin_keys.revoke(key.id)
        assert {key.name for key in auth.admin_keys.list()} == {"ci", "dashboards"}


@pytest.mark.parametrize(
    ("name", "roles"), [("", ["admin"]), ("x", []), ("x", ["owner"]), ("existing", ["admin"])]
)
def test_keys_that_make_no_sense_are_refused(
    name: str, roles: list[str], clock: ManualClock
) -> None:
    with AccountStore(None) as account_store:
        keys = AdminKeys(account_store, clock)
        keys.create("existing")
        with pytest.raises(UsageError):
            keys.create(name, roles)


def test_every_kind_of_credential_is_known() -> None:
    settings = AuthSettings(secret=SECRET, admin_token="root-token")
    with Authenticator(settings) as auth:
        signed = TokenSigner(SECRET).sign("u", {"level": 1})
        assert auth.authenticate_sync(bearer("root-token"), {}) == ADMIN
        assert auth.authenticate_sync([], {"auth": SECRET}) == ADMIN
        assert auth.authenticate_sync([], {"auth": signed}).uid == "u"
        assert auth.authenticate_sync(bearer(signed), {}).custom == ("level",)
        assert auth.authenticate_sync([(b"authorization", b"Basic eDp5")], {}) == UNAUTHENTICATED
        assert auth.authenticate_sync([], {}) == UNAUTHENTICATED
        for text in ("owner", "root-toke", "x.y.z", "elk_000000000000_" + "A" * 43, "\udc80"):
            with pytest.raises(BadToken):
                auth.authenticate_token_sync(text)


def test_the_emulator_knows_the_owner_and_overrides() -> None:
    with Authenticator(AuthSettings(emulator=True)) as auth:
        assert auth.authenticate_sync(bearer("owner"), {}) == ADMIN
        override = {"auth_variable_override": '{"uid":"u","level":3}'}
        seen = auth.authenticate_sync(bearer("owner"), override)
        assert (seen.as_auth(), seen.admin) == ({"uid": "u", "level": 3}, False)
        assert (
            auth.authenticate_sync(bearer("owner"), {"auth_variable_override": "null"})
            == UNAUTHENTICATED
        )
        with pytest.raises(UsageError):
            auth.authenticate_sync(bearer("owner"), {"auth_variable_override": "[1]"})
        with pytest.raises(Denied):
            auth.authenticate_sync([], override)


def test_acting_as_another_ends_with_the_key_that_allowed_it() -> None:
    with Authenticator(AuthSettings()) as auth:
        _key, text = auth.admin_keys.create("ci")
        auth.revocations.revoke_user("u")
        seen = auth.authenticate_sync(bearer(text), {"auth_variable_override": '{"uid":"u"}'})
        principal = auth.authenticate_sync(bearer(text), {"auth_variable_override": "null"})
        assert principal.as_auth() is None
        assert auth.revocations.reason(seen) is None
        auth.admin_keys.revoke("ci")
        assert auth.revocations.reason(seen) == "credential was revoked"
        assert auth.revocations.reason(principal) == "credential was revoked"


def test_revoking_a_user_reaches_subscribers_and_later_requests(clock: ManualClock) -> None:
    with Authenticator(AuthSettings(secret=SECRET), clock=clock) as auth:
        text = TokenSigner(SECRET, clock).sign("u")
        principal = auth.authenticate_token_sync(text)
        notified: list[Revoked] = []
        end = auth.revocations.subscribe(notified.append)
        auth.revocations.subscribe(lambda _revoked: 1 / 0)
        clock.advance(1)
        auth.revocations.revoke_user("u")
        assert notified == [Revoked(uid="u")]
        assert auth.revocations.reason(principal) == "credential was revoked"
        with pytest.raises(BadToken):
            auth.authenticate_token_sync(text)
        clock.advance(1)
        assert auth.authenticate_token_sync(TokenSigner(SECRET, clock).sign("u")).uid == "u"
        end()
        auth.revocations.revoke_user("u")
        assert len(notified) == 1


def test_one_token_can_be_revoked_alone(clock: ManualClock) -> None:
    with Authenticator(AuthSettings(secret=SECRET), clock=clock) as auth:
        first, second = (TokenSigner(SECRET, clock).sign("u") for _ in range(2))
        auth.revocations.revoke_token(auth.authenticate_token_sync(first))
        with pytest.raises(BadToken):
            auth.authenticate_token_sync(first)
        assert auth.authenticate_token_sync(second).uid == "u"


def test_a_token_without_an_id_is_revoked_with_all_of_its_user(clock: ManualClock) -> None:
    principal = Principal(uid="u", claims={"iat": clock.now()})
    with Authenticator(AuthSettings(), clock=clock) as auth:
        clock.advance(1)
        auth.revocations.revoke_token(principal)
        assert auth.revocations.reason(principal) is not None


def test_tokens_end_by_themselves(clock: ManualClock) -> None:
    with Authenticator(AuthSettings(secret=SECRET), clock=clock) as auth:
        text = TokenSigner(SECRET, clock).sign("u", expires_seconds=100)
        principal = auth.authenticate_token_sync(text)
        clock.advance(159)
        assert auth.authenticate_token_sync(text) == principal
        clock.advance(2)
        assert auth.revocations.reason(principal) == "credential is no longer valid"
        with pytest.raises(BadToken) as caught:
            auth.authenticate_token_sync(text)
        assert caught.value.fault == "expired"
        assert caught.value.wire_status == "expired_token"


def test_another_process_can_revoke(tmp_path: Path, clock: ManualClock) -> None:
    program = (
        "import sys, pathlib\n"
        "from elkyn.auth.authenticator import Authenticator, AuthSettings\n"
        "with Authenticator(AuthSettings(), pathlib.Path(sys.argv[1])) as auth:\n"
        "    auth.revocations.revoke_user('u')\n"
    )
    settings = AuthSettings(secret=SECRET)
    with Authenticator(settings, tmp_path / "v", clock) as auth:
        text = TokenSigner(SECRET, clock).sign("u")
        auth.authenticate_token_sync(text)
        notified: list[Revoked] = []
        auth.revocations.subscribe(notified.append)
        assert not auth.revocations.poll()
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "v")], check=True)
        clock.advance(2)
        with pytest.raises(BadToken):
            auth.authenticate_token_sync(text)
        assert auth.revocations.poll()
        assert notified == [Revoked()]


def test_passwords_are_hashed_with_salt_and_compared() -> None:
    passwords = Passwords()
    first, second = passwords.hash("secret é\ud800"), passwords.hash("secret é\ud800")
    assert first != second
    assert first.startswith("$argon2id$")
    assert passwords.verify(first, "secret é\ud800")
    assert not passwords.verify(first, "secret e")
    assert not passwords.verify(None, "a dummy password")
    assert not passwords.verify("not a hash", "x")
    assert not passwords.is_outdated(first)


def test_a_password_check_of_an_unknown_user_costs_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[bool] = []
    verify = Passwords.verify

    def counted(self: Passwords, stored: str | None, password: str) -> bool:
        lookups.append(stored is None)
        return verify(self, stored, password)

    monkeypatch.setattr(Passwords, "verify", counted)
    with Authenticator(AuthSettings()) as auth:
        auth.users.create(email="a@b.c", password="secret1")
        auth.users.create(email="none@b.c")
        for email in ("a@b.c", "none@b.c", "unknown@b.c"):
            with pytest.raises(AccountError, match="INVALID_LOGIN_CREDENTIALS"):
                auth.users.sign_in(email, "wrong")
    assert lookups == [False, True, True]


def test_a_full_lane_refuses_work_at_once() -> None:
    async def work() -> None:
        gate = threading.Event()
        lane = BoundedPool("test", 1, 2)
        running = [asyncio.create_task(lane.run(gate.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await lane.run(int)
        gate.set()
        assert await asyncio.gather(*running) == [True, True]
        assert await lane.run(int, "7") == 7
        await asyncio.to_thread(lane.close)

    asyncio.run(work())


def test_a_throttled_name_is_admitted_again_over_time(clock: ManualClock) -> None:
    throttle = Throttle(4, 60, clock, names_max=2)
    for _ in range(4):
        assert not throttle.refuses("a")
        throttle.failed("a")
    assert throttle.refuses("a")
    assert not throttle.refuses("b")
    clock.advance(60)
    assert not throttle.refuses("a")
    for _ in range(2):
        throttle.failed("a")
    assert throttle.refuses("a")
    throttle.succeeded("a")
    assert not throttle.refuses("a")
    for name in ("c", "d", "e"):
        throttle.failed(name)
    assert len(throttle._counts) == 2


def test_the_audit_log_names_the_user_and_the_action(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    audit = Audit()
    audit.refused(Principal(uid="u\n"), "default", "/a", True, "127.0.0.1")
    audit.acted(ADMIN, "delete user", "x" * 1000)
    first, second = (record.getMessage() for record in caplog.records)
    assert '"principal": "user u\\n"' in first
    assert '"action": "write"' in first
    assert '"principal": "admin"' in second
    assert len(second) < 500
    with Authenticator(AuthSettings(secret=SECRET)) as auth, pytest.raises(BadToken):
        auth.authenticate_token_sync(TokenSigner("another").sign("u"))
    assert "eyJ" not in caplog.text
    assert '"fault": "signature"' in caplog.text


def test_a_flood_of_refusals_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, clock: ManualClock
) -> None:
    audit = Audit(clock)
    for _ in range(REFUSALS_MAX + 7):
        audit.refused_credential("malformed")
    assert len(caplog.records) == REFUSALS_MAX
    clock.advance(1)
    audit.refused_credential("malformed")
    assert '"suppressed": 7' in caplog.records[-1].getMessage()


def test_an_issuer_may_not_have_the_servers_own_name() -> None:
    with pytest.raises(UsageError, match="own ID tokens"):
        Authenticator(AuthSettings(project="app", issuers=(Issuer.firebase("app"),)))
