"""Accounts move from one server to another, and outlive a promotion."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.auth.account_store import AccountStore, Pages, User
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.transfer import export_accounts, import_accounts
from elkyn.cli import main
from sennit_core.errors import BadInput

TOOLKIT = "/identitytoolkit.googleapis.com/v1/accounts"
REFRESH = "/securetoken.googleapis.com/v1/token"
EMAIL = "ann@example.com"


def sign_in(served: Any) -> int:
    body = {"email": EMAIL, "password": "secret1", "returnSecureToken": True}
    url = f"{served.url}{TOOLKIT}:signInWithPassword?key=any"
    return httpx.post(url, json=body, timeout=20).status_code


@pytest.mark.nightly
def test_accounts_outlive_a_promotion_by_the_command_that_it_prints(
    start_server: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = start_server()
    token = str(leader.data / "admin.token")
    follower = start_server(
        *("--follow", leader.url, "--follow-token-file", token), data=tmp_path / "follower"
    )
    body = {"email": EMAIL, "password": "secret1", "returnSecureToken": True}
    signed = httpx.post(f"{leader.url}{TOOLKIT}:signUp?key=any", json=body, timeout=20).json()
    assert main(["key", "add", "ops", "--data", str(leader.data)]) == 0
    key = capsys.readouterr().out.strip()
    leader.kill()
    assert main(["promote", "--data", str(follower.data)]) == 0
    printed = capsys.readouterr().out.strip()
    assert sign_in(follower) == 400
    command = printed.rpartition("elkyn ")[2].replace("OLD_DATA_DIR", str(leader.data)).split()
    assert main(command) == 0
    assert capsys.readouterr().out == "imported 1 users, 1 sessions, 1 keys\n"
    assert sign_in(follower) == 200
    form = {"grant_type": "refresh_token", "refresh_token": signed["refreshToken"]}
    assert httpx.post(f"{follower.url}{REFRESH}?key=any", data=form).status_code == 200
    admin = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{follower.url}/metrics", headers=admin).status_code == 200


def test_an_export_is_imported_once_and_existing_data_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with Authenticator(AuthSettings(), tmp_path / "old" / ".secrets") as old:
        old.users.create("ann", email=EMAIL, password="secret1", roles=("reader",))
        old.users.create("bob", email="bob@example.com", disabled=True)
    with Authenticator(AuthSettings(), tmp_path / "new" / ".secrets") as new:
        new.users.create("eve", email=EMAIL)
    assert main(["user", "export", "--data", str(tmp_path / "old")]) == 0
    export = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(export))
    assert main(["user", "import", "--data", str(tmp_path / "new"), "-"]) == 1
    assert "user ann: email ann@example.com belongs to eve here" in capsys.readouterr().err
    file = tmp_path / "accounts.jsonl"
    file.write_text(export)
    assert main(["user", "import", "--data", str(tmp_path / "new"), str(file)]) == 1
    assert "user bob: exists already" in capsys.readouterr().err
    with (
        AccountStore(tmp_path / "new" / ".secrets") as account_store,
        account_store.read() as pages,
    ):
        assert [user.uid for user in pages.users()] == ["bob", "eve"]
        assert pages.is_disabled("bob")


USERS = st.builds(
    User,
    uid=st.text("abc", min_size=1, max_size=3),
    email=st.none() | st.sampled_from(["a@b.c", "d@e.f"]),
    display_name=st.none() | st.text(max_size=5),
    roles=st.lists(st.sampled_from(["admin", "reader"]), max_size=2).map(tuple),
    disabled=st.booleans(),
    valid_since=st.integers(0, 2**40),
)


@pytest.mark.slow
@given(st.lists(USERS, max_size=4, unique_by=(lambda user: user.uid, lambda user: user.email)))
def test_users_arrive_as_they_were(users: list[User]) -> None:
    with AccountStore(None) as old, AccountStore(None) as new:
        for user in users:
            old.write(partial(Pages.put_user, user=user))
        import_accounts(new, list(export_accounts(old)))
        with old.read() as before, new.read() as after:
            assert list(after.users()) == list(before.users())
            assert after.disabled_users() == before.disabled_users()


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        '{"kind": "robot"}',
        '{"kind": "user"}',
        '{"kind": "user", "uid": 7}',
        '{"kind": "user", "uid": "ann", "roles": [7]}',
        '{"kind": "user", "uid": ""}',
        '{"kind": "key", "id": "a", "name": "b", "secret_sha256": "%", "roles": [], "created_ms": 1}',
        '{"kind": "cutoff", "uid": "ann", "seconds": "soon"}',
    ],
)
def test_a_line_that_is_no_row_is_named(line: str) -> None:
    good = json.dumps({"kind": "cutoff", "uid": "ann", "seconds": 1})
    with AccountStore(None) as account_store, pytest.raises(BadInput, match="line 2"):
        import_accounts(account_store, [good, line])
