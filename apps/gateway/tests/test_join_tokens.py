"""Tokens with which the tabs of a user join as remote workers."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from opened_node import OpenNode

from elkyn import ElkynStore
from sennit.auth import Principal, Tokens
from sennit.join_tokens import JOIN_SECONDS, JOINED_MAX, JoinTokens
from sennit_core.errors import Busy, Denied
from sennit_core.testing import ManualClock

ANN, BO = (Principal(name, "writer", token_id=name) for name in ("ann", "bo"))


class Remote:
    """Workers that are connected, and tokens that are excluded."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.bad: dict[str, str] = {}

    def sessions(self) -> list[Any]:
        return [SimpleNamespace(token=token) for token in self.connected]

    def excluded(self) -> dict[str, str]:
        return self.bad


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def tokens(clock: ManualClock) -> Iterator[Tokens]:
    with ElkynStore(mode="memory") as tree:
        yield Tokens("snt_admin", tree, clock)


@pytest.fixture
def joining(tokens: Tokens, remote: Remote, clock: ManualClock) -> JoinTokens:
    return JoinTokens(tokens, remote, clock)  # type: ignore[arg-type]


def test_a_tab_gets_a_token_of_a_worker_that_expires(
    joining: JoinTokens, tokens: Tokens, clock: ManualClock
) -> None:
    made = joining.join(ANN)
    found = tokens.principal(made["token"])
    assert found is not None
    assert (found.name, found.role) == ("a tab of ann", "worker")
    assert made["expiresAt"] == clock.now() + JOIN_SECONDS
    clock.advance(JOIN_SECONDS)
    assert tokens.principal(made["token"]) is None
    assert tokens.list() == []


def test_a_user_has_few_of_them_and_those_in_use_stay(
    joining: JoinTokens, tokens: Tokens, remote: Remote, clock: ManualClock
) -> None:
    for _ in range(JOINED_MAX):
        joining.join(ANN)
        clock.advance(1)
    first, second, *_ = sorted(tokens.list(), key=lambda each: each["expiresAt"])
    remote.connected = {first["id"]}
    joining.join(ANN)
    ids = {each["id"] for each in tokens.list()}
    assert len(ids) == JOINED_MAX
    assert (first["id"] in ids, second["id"] in ids) == (True, False)
    remote.connected = ids
    with pytest.raises(Busy, match="close one"):
        joining.join(ANN)
    assert joining.join(BO)["role"] == "worker"


def test_a_user_with_an_excluded_worker_joins_no_more(
    joining: JoinTokens, tokens: Tokens, remote: Remote
) -> None:
    joining.join(ANN)
    (row,) = tokens.list()
    remote.bad = {row["id"]: "wrong rows: 3 of 4"}
    with pytest.raises(Denied) as refused:
        joining.join(ANN)
    assert "wrong rows" in str(refused.value.hint)
    assert joining.join(BO)["role"] == "worker"


def test_writers_join_and_readers_do_not(plain: OpenNode) -> None:
    with plain.client_of("reader") as reader, plain.client_of("writer") as writer:
        assert reader.post("/api/workers/join").status_code == 403
        answer = writer.post("/api/workers/join")
        assert (answer.status_code, answer.json()["role"]) == (201, "worker")
        # The token is good for nothing else.
        headers = {"authorization": f"Bearer {answer.json()['token']}"}
        for method, path in (("GET", "/api/datasets"), ("POST", "/api/workers/join")):
            assert writer.request(method, path, headers=headers).status_code == 403
