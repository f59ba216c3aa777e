"""`elkyn token|user|key`, and settings that come from a file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.errors import AccountError, BadToken
from elkyn.auth.jwks import Issuer
from elkyn.cli import main
from sennit_core.errors import UsageError

Run = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, code: int = 0) -> str:
        group, verb, *others = arguments
        assert main([group, verb, "--data", str(data), *others]) == code
        printed = capsys.readouterr()
        return (printed.out if code == 0 else printed.err).strip()

    return run


def opened(data: Path) -> Authenticator:
    return Authenticator(AuthSettings(), data / ".secrets")


def test_a_token_is_signed_and_its_user_revoked(run: Run, data: Path) -> None:
    token = run("token", "sign", "ann", "--claim", "level=3", "--claim", 'team="a"')
    with opened(data) as auth:
        principal = auth.authenticate_token_sync(token)
        assert (principal.uid, principal.claims["level"], principal.claims["team"]) == (
            "ann",
            3,
            "a",
        )
    run("token", "revoke", "ann")
    with opened(data) as auth, auth.account_store.read() as pages:
        assert pages.cutoff("ann") >= principal.claims["iat"]
    assert "not a claim" in run("token", "sign", "ann", "--claim", "level", code=2)


@pytest.mark.slow
def test_users_are_added_listed_changed_and_deleted(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret1\n"))
    email = "ann@example.com"
    uid = run("user", "add", "--email", email, "--role", "reader", "--name", "Ann", "--password")
    assert run("user", "add", "--uid", "bob") == "bob"
    lines = [json.loads(line) for line in run("user", "list").splitlines()]
    assert {line["uid"] for line in lines} == {uid, "bob"}
    run("user", "change", "bob", "--claims", '{"a": 1}', "--disable")
    with opened(data) as auth:
        assert auth.users.sign_in(email, "secret1").roles == ("reader",)
        bob = auth.users.get("bob")
        assert bob is not None
        assert (bob.claims, bob.disabled) == ('{"a":1}', True)
    run("user", "change", "bob", "--enable")
    run("user", "delete", "bob", uid)
    assert run("user", "list") == ""
    assert 'there is no user "bob"' in run("user", "delete", "bob", code=1)


def test_impossible_requests_are_reported(run: Run, tmp_path: Path) -> None:
    run("user", "add", "--uid", "ann")
    assert "DUPLICATE_LOCAL_ID" in run("user", "add", "--uid", "ann", code=2)
    assert "INVALID_ROLE" in run("user", "change", "ann", "--role", "king", code=2)
    assert "JSON object" in run("user", "change", "ann", "--claims", "[]", code=2)
    assert main(["user", "list", "--data", str(tmp_path / "nowhere")]) == 1


def test_admin_keys_are_made_listed_and_revoked(run: Run, data: Path) -> None:
    text = run("key", "add", "ci", "--role", "admin", "--role", "worker")
    with opened(data) as auth:
        assert auth.authenticate_token_sync(text).admin
    assert "good     admin,worker  ci" in run("key", "list")
    run("key", "revoke", "ci")
    with opened(data) as auth, pytest.raises(BadToken):
        auth.authenticate_token_sync(text)
    listed = run("key", "list")
    assert "revoked" in listed
    assert text not in listed
    assert 'no admin key "ci"' in run("key", "revoke", "ci", code=1)


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret of the servers\n")
    file = tmp_path / "auth.toml"
    file.write_text(
        'project = "ours"\nsign_up = false\nsecret_file = "secret"\n'
        '[[issuers]]\nfirebase = "my-app"\n'
        '[[issuers]]\nissuer = "https://id.test"\naudience = "web"\njwks = "keys.json"\n'
        'algorithms = ["ES256"]\n'
    )
    settings = AuthSettings.read(file, admin_token="t")
    assert settings.issuers == (
        Issuer.firebase("my-app"),
        Issuer("https://id.test", ("web",), "keys.json", ("ES256",)),
    )
    assert (settings.project, settings.sign_up, settings.anonymous) == ("ours", False, True)
    assert (settings.secret, settings.admin_token) == ("a secret of the servers", "t")
    with Authenticator(settings) as auth, pytest.raises(AccountError):
        auth.users.create(email="x")


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        'projekt = "x"',
        "sign_up = 1",
        "recent_seconds = true",
        "emulator = true",
        'secret_file = "missing"',
        "issuers = [1]",
        '[[issuers]]\nissuer = "x"',
        '[[issuers]]\nissuer = "x"\naudience = "a"\njwks = "http://example.com"',
        '[[issuers]]\nissuer = "x"\naudience = "a"\njwks = "f"\nuid = "x"',
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "auth.toml"
    file.write_text(text)
    with pytest.raises(UsageError):
        AuthSettings.read(file)
