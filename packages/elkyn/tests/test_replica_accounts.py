"""The leader's accounts at a follower: its tokens are verified there, and its secrets stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import ormsgpack
import pytest
from elkyn_server import until

from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.errors import BadToken
from sennit_core.errors import BadInput
from sennit_core.testing import ManualClock

Start = Callable[..., Any]
TOOLKIT = "/identitytoolkit.googleapis.com/v1/accounts"
RULES = {"users": {"$uid": {".read": "auth.uid === $uid", ".write": "auth.uid === $uid"}}}
EVENTS = {"Accept": "text/event-stream"}


def sign_up(served: Any, email: str) -> dict[str, Any]:
    body = {"email": email, "password": "secret-word", "returnSecureToken": True}
    answer = httpx.post(f"{served.url}{TOOLKIT}:signUp?key=any", json=body, timeout=20)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def status(served: Any, user: dict[str, Any]) -> int:
    path = f"/users/{user['localId']}.json"
    return httpx.get(served.url + path, params={"auth": user["idToken"]}, timeout=20).status_code


def signs_in(served: Any, user: dict[str, Any], wanted: int = 200) -> bool:
    return status(served, user) == wanted


@pytest.fixture
def pair(start_server: Start, tmp_path: Path) -> tuple[Any, Any]:
    """A leader with rules, and a follower."""
    leader = start_server("--project", "shop")
    leader.rules("default", RULES)
    return leader, follower_of(leader, start_server, tmp_path)


def follower_of(leader: Any, start_server: Start, tmp_path: Path) -> Any:
    token = str(leader.data / "admin.token")
    return start_server(
        *("--follow", leader.url, "--follow-token-file", token), data=tmp_path / "follower"
    )


@pytest.mark.nightly
def test_users_signed_up_at_either_read_and_write_at_both(pair: tuple[Any, Any]) -> None:
    leader, follower = pair
    for at in pair:
        user = sign_up(at, f"a{at.process.pid}@example.org")
        until(partial(signs_in, follower, user))
        assert signs_in(leader, user)
        shown = {"auth": user["idToken"]}
        own = httpx.put(f"{follower.url}/users/{user['localId']}.json", params=shown, json=1)
        other = httpx.get(f"{follower.url}/users/other.json", params=shown)
        assert (own.status_code, other.status_code) == (200, 401)
        with follower.wire("default") as wire:
            assert wire.ask("auth", cred=user["idToken"])["s"] == "ok"
            assert wire.ask("q", p=f"/users/{user['localId']}", h="")["s"] == "ok"


@pytest.mark.slow
def test_a_revocation_at_the_leader_ends_streams_at_the_follower(pair: tuple[Any, Any]) -> None:
    leader, follower = pair
    user = sign_up(leader, "a@example.org")
    until(lambda: status(follower, user) == 200)
    path = f"/users/{user['localId']}.json?auth={user['idToken']}"
    with httpx.stream("GET", follower.url + path, headers=EVENTS, timeout=60) as it:
        lines = it.iter_lines()
        assert next(lines) == "event: put"
        ended = leader.client.post("/auth/revoke", json={"uid": user["localId"]})
        assert ended.status_code == 200, ended.text
        assert "event: auth_revoked" in list(lines)
    assert status(follower, user) == 401


@pytest.mark.nightly
def test_a_disabled_user_is_shut_out_until_enabled(pair: tuple[Any, Any]) -> None:
    leader, follower = pair
    user = sign_up(leader, "a@example.org")
    until(lambda: status(follower, user) == 200)
    target = "/identitytoolkit.googleapis.com/v1/projects/shop/accounts:update"
    for disabled, wanted in ((True, 401), (False, 200)):
        change = {"localId": user["localId"], "disableUser": disabled}
        assert leader.client.post(target, json=change).status_code == 200
        until(partial(signs_in, follower, user, wanted))


@pytest.mark.nightly
def test_tokens_are_checked_while_the_leader_is_away(
    pair: tuple[Any, Any], start_server: Start, tmp_path: Path
) -> None:
    leader, follower = pair
    user, gone = sign_up(leader, "a@example.org"), sign_up(leader, "b@example.org")
    until(lambda: status(follower, user) == 200)
    deleted = httpx.post(
        f"{leader.url}{TOOLKIT}:delete", json={"idToken": gone["idToken"]}, timeout=20
    )
    assert deleted.status_code == 200
    until(lambda: status(follower, gone) == 401)
    leader.stop()
    follower.stop()
    follower = follower_of(leader, start_server, tmp_path)
    assert (status(follower, user), status(follower, gone)) == (200, 401)
    refused = httpx.post(f"{follower.url}{TOOLKIT}:signUp", json={}, timeout=20)
    assert refused.status_code == 503
    assert "leader" in refused.text


@pytest.mark.nightly
def test_tokens_that_the_leader_alone_can_verify_are_shown_to_it(pair: tuple[Any, Any]) -> None:
    leader, follower = pair
    made = leader.client.post("/auth/token", json={"uid": "ann"}).json()["token"]
    admins = leader.client.post("/auth/token", json={"uid": "boss"}).json()["token"]
    user = {"localId": "ann", "idToken": made}
    until(partial(signs_in, follower, user))
    assert status(follower, {**user, "idToken": made[:-3] + "abc"}) == 401
    assert status(follower, {**user, "idToken": admins}) == 401  # good, but not ann's
    with follower.wire("default") as wire:
        assert wire.ask("auth", cred=made)["s"] == "ok"
        assert wire.ask("p", p="/users/ann/n", d=1)["s"] == "ok"
    assert httpx.post(f"{leader.url}/.replica/identify", content=made).status_code == 401
    assert leader.client.post("/.replica/identify", content="unknown").status_code == 404
    leader.client.post("/auth/revoke", json={"uid": "ann"})
    until(partial(signs_in, follower, user, 401))
    other = leader.client.post("/auth/token", json={"uid": "bob"}).json()["token"]
    leader.stop()
    assert status(follower, {"localId": "bob", "idToken": other}) == 503


@pytest.mark.nightly
def test_messages_to_a_follower_have_no_secrets(pair: tuple[Any, Any]) -> None:
    leader, follower = pair
    user = sign_up(leader, "a@example.org")
    answer = leader.client.get("/.replica/accounts")
    state = ormsgpack.unpackb(answer.content)
    public = {"kty", "n", "e", "alg", "use", "kid"}
    assert all(set(key) <= public for key in state["keys"])
    assert set(state) == {
        *("tag", "issuer", "project", "keys", "cutoffs", "revoked", "disabled"),
        *("revoked_keys", "admin_secrets"),
    }
    assert user["localId"].encode() not in answer.content
    until(lambda: status(follower, user) == 200)
    secrets = (follower.data / ".secrets" / "data.mdb").read_bytes()
    assert b"argon2" not in secrets
    assert b"a@example.org" not in secrets
    assert httpx.get(f"{leader.url}/.replica/accounts").status_code == 401
    assert leader.client.get(f"/.replica/accounts?tag={state['tag']}").status_code == 304
    assert follower.client.get("/.replica/accounts").status_code == 409


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def leader(clock: ManualClock) -> Iterator[Authenticator]:
    with Authenticator(AuthSettings(project="shop"), clock=clock) as auth:
        yield auth


@pytest.fixture
def follower(clock: ManualClock) -> Iterator[Authenticator]:
    with Authenticator(AuthSettings(), clock=clock) as auth:
        yield auth


def token(auth: Authenticator) -> str:
    user = auth.users.create(email="a@example.org", password="secret-word")
    return auth.sessions.open(user, "password").id_token


def learn(follower: Authenticator, leader: Authenticator) -> None:
    state = leader.state_for_followers(follower.leader.tag)
    assert state is not None
    follower.follow(state)


def test_an_old_leaders_tokens_end_soon_after_a_promotion(
    leader: Authenticator, follower: Authenticator, clock: ManualClock
) -> None:
    learn(follower, leader)
    follower.leader.leave()
    shown = token(leader)
    assert follower.authenticate_token_sync(shown).uid
    clock.advance(2 * 3600 + 1)
    with pytest.raises(BadToken):
        follower.authenticate_token_sync(token_again(leader))


def token_again(auth: Authenticator) -> str:
    user = auth.users.named("email", "a@example.org")
    assert user is not None
    return auth.sessions.open(user, "password").id_token


def test_a_key_that_the_leader_has_dropped_is_good_no_more(
    leader: Authenticator, follower: Authenticator, clock: ManualClock
) -> None:
    learn(follower, leader)
    shown = token(leader)
    leader.signing.rotate()
    clock.advance(3600 * 3)
    leader.signing.rotate()
    leader.signing.rotate()
    learn(follower, leader)
    with pytest.raises(BadToken):
        follower.authenticate_token_sync(shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"keys": 1},
        {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB", "kid": "a"}]},
        {"cutoffs": []},
        {"revoked_keys": [1]},
        {"revoked": [["x", 1]]},
        {"issuer": None},
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    leader: Authenticator, follower: Authenticator, change: dict[str, Any]
) -> None:
    state = leader.state_for_followers("")
    assert state is not None
    with pytest.raises(BadInput, match="leader"):
        follower.follow(ormsgpack.packb(ormsgpack.unpackb(state) | change))
    with pytest.raises(BadInput):
        follower.follow(b"\xc1")
    assert follower.leader.tag == ""
