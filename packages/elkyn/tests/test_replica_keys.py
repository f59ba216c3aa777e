"""Keys that a follower does not know: what its leader honours is good there too, until it is revoked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from elkyn_server import Served, until

from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.errors import BadToken
from elkyn.auth.leader_credentials import LeaderCredentialCache
from elkyn.auth.principal import Principal
from elkyn.auth.revocations import LEADER_CLAIM
from sennit_core.errors import Busy, Unavailable
from sennit_core.testing import ManualClock

Start = Callable[..., Served]


def elkyn(*words: str) -> str:
    command = [sys.executable, "-m", "elkyn.cli", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def key_of(leader: Served, name: str, role: str = "admin") -> str:
    words = ["key", "add", name, "--role", role, "--data", str(leader.data)]
    return next(word for word in elkyn(*words).split() if word.startswith("elk_"))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def read(served: Served, token: str, path: str = "/secret") -> httpx.Response:
    return httpx.get(f"{served.url}{path}.json", headers=bearer(token), timeout=20)


def questions(leader: Served) -> int:
    """Return how many credentials the leader has checked."""
    lines = leader.client.get("/metrics").text.splitlines()
    refused = [line for line in lines if 'method="POST",status="404"' in line]
    return sum(int(float(line.split()[-1])) for line in refused)


@pytest.fixture
def pair(start_server: Start, tmp_path: Path) -> tuple[Served, Served]:
    leader = start_server()
    may_read = "auth.token.roles.reader === true"
    leader.rules("default", {"secret": {".read": may_read}})
    leader.client.put("/secret.json", json=1)
    token = str(leader.data / "admin.token")
    follower = start_server(
        *("--follow", leader.url, "--follow-token-file", token), data=tmp_path / "follower"
    )
    until(lambda: follower.client.get("/secret.json").json() == 1)
    return leader, follower


@pytest.mark.nightly
def test_a_key_of_the_leader_is_good_at_the_follower_until_it_is_revoked(
    pair: tuple[Served, Served],
) -> None:
    leader, follower = pair
    key, other = key_of(leader, "deploys"), key_of(leader, "other")
    assert (read(follower, key).status_code, read(follower, key).json()) == (200, 1)
    written = httpx.put(f"{follower.url}/n.json", headers=bearer(key), json=2, timeout=20)
    assert written.status_code == 200
    assert httpx.get(f"{follower.url}/.json?auth={key}", timeout=20).json() == {"secret": 1, "n": 2}
    seen_as = '?auth_variable_override={"uid":"ann"}'
    assert read(follower, key, f"/secret.json{seen_as}#").status_code == 401
    with follower.wire("default") as wire:
        assert wire.ask("auth", cred=key)["s"] == "ok"
        assert wire.ask("p", p="/n", d=3)["s"] == "ok"
        assert wire.ask("g", p="/n") == {"s": "ok", "d": 3}
        accept = {"Accept": "text/event-stream", **bearer(key)}
        with httpx.stream("GET", f"{follower.url}/n.json", headers=accept, timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: put"
            elkyn("key", "revoke", "deploys", "--data", str(leader.data))
            assert "event: auth_revoked" in list(lines)
        assert wire.read()["d"]["a"] == "ac"
    assert read(follower, key).status_code == 401
    assert read(follower, other).status_code == 200


@pytest.mark.nightly
def test_roles_of_a_key_and_the_leaders_own_token_count_at_the_follower(
    pair: tuple[Served, Served],
) -> None:
    leader, follower = pair
    reader, writer = key_of(leader, "r", "reader"), key_of(leader, "w", "writer")
    assert (read(follower, reader).status_code, read(follower, writer).status_code) == (200, 401)
    assert read(follower, reader, "/").status_code == 401
    assert read(follower, leader.token, "/").json() == {"secret": 1}
    assert read(follower, f"elk_{'0' * 12}_{'a' * 43}").status_code == 401


@pytest.mark.nightly
def test_while_the_leader_is_away_a_key_is_known_or_may_come_again(
    pair: tuple[Served, Served],
) -> None:
    leader, follower = pair
    known, other = key_of(leader, "known"), key_of(leader, "other")
    assert read(follower, known).status_code == 200
    leader.stop()
    assert read(follower, known).status_code == 200
    refused = read(follower, other)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


@pytest.mark.nightly
def test_unknown_credentials_do_not_all_reach_the_leader(pair: tuple[Served, Served]) -> None:
    leader, follower = pair
    with httpx.Client(base_url=follower.url, timeout=60) as client:
        same = [client.get("/secret.json?auth=unknown").status_code for _ in range(50)]
        assert set(same) == {401}
        assert questions(leader) == 1
        for method in ("GET", "PUT"):
            many = [
                client.request(method, f"/secret.json?auth={method}{n}", json=1).status_code
                for n in range(400)
            ]
            assert set(many) == {401, 429}
    assert questions(leader) < 400
    assert leader.client.get("/secret.json").json() == 1
    assert until(lambda: read(follower, leader.token).status_code == 200)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def leader(clock: ManualClock) -> Iterator[Authenticator]:
    with Authenticator(AuthSettings(admin_token="a" * 32), clock=clock) as auth:
        yield auth


@pytest.fixture
def follower(clock: ManualClock, leader: Authenticator) -> Iterator[Authenticator]:
    def ask(text: str) -> Principal | None:
        try:
            found = leader.authenticate_token_sync(text)
        except BadToken:
            return None
        return Principal(admin=found.admin, claims={LEADER_CLAIM: leader.admin_secrets_tag})

    with Authenticator(AuthSettings(), clock=clock) as auth:
        auth.ask_leader(ask)
        yield auth


def learn(follower: Authenticator, leader: Authenticator) -> None:
    state = leader.state_for_followers(follower.leader.tag)
    assert state is not None
    follower.follow(state)


def test_another_admin_token_of_the_leader_ends_the_one_before(
    leader: Authenticator, follower: Authenticator
) -> None:
    learn(follower, leader)
    principal = follower.authenticate_token_sync("a" * 32)
    assert principal.admin
    object.__setattr__(leader.settings, "admin_token", "b" * 32)  # as a start with another file
    assert follower.authenticate_token_sync("b" * 32).admin  # before the follower received it
    learn(follower, leader)
    assert follower.authenticate_token_sync("b" * 32).admin
    assert follower.revocations.reason(principal) is not None
    with pytest.raises(BadToken):
        follower.authenticate_token_sync("a" * 32)


def test_a_promoted_follower_believes_no_keys_of_the_leader_before(
    leader: Authenticator, follower: Authenticator
) -> None:
    learn(follower, leader)
    principal = follower.authenticate_token_sync("a" * 32)
    assert follower.revocations.reason(principal) is None
    follower.leader.leave()
    assert follower.revocations.reason(principal) is not None


def test_an_unknown_credential_is_not_checked_again_for_a_while(clock: ManualClock) -> None:
    checked: list[str] = []

    def ask(text: str) -> Principal | None:
        checked.append(text)
        return Principal(uid="ann") if text == "good" else None

    def shown_until_busy(*clients: str) -> int:
        begun = len(checked)
        for number in range(1000):
            try:
                client = clients[number % len(clients)]
                credentials.authenticate("bad", f"{clients[0]} {number}".encode(), client)
            except Busy:
                break
        return len(checked) - begun

    credentials = LeaderCredentialCache(ask, clock)
    assert shown_until_busy("here") == 50
    assert credentials.authenticate("good", b"good", "there") == Principal(uid="ann")
    assert shown_until_busy("here") == 0
    assert not credentials.may_accept("bad", b"here 0")
    clock.advance(11)
    assert credentials.may_accept("bad", b"here 0")
    assert credentials.authenticate("good", b"good", "here") == Principal(uid="ann")
    clock.advance(60)
    assert shown_until_busy(*[f"client {number}" for number in range(40)]) == 400
    assert shown_until_busy("one more") == 0


def test_an_answer_that_does_not_come_is_no_refusal(clock: ManualClock) -> None:
    def ask(_text: str) -> Principal | None:
        raise Unavailable("the leader")

    credentials = LeaderCredentialCache(ask, clock)
    with pytest.raises(Unavailable):
        credentials.authenticate("a", b"a", "here")
    assert credentials.may_accept("a", b"a")
