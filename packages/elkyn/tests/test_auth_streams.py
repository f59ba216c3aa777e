"""Accounts on a real server that is no emulator: rules decide, revocation ends open streams."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from elkyn_server import Served

ACCOUNTS = "/identitytoolkit.googleapis.com/v1/accounts"
RULES = {
    "rules": {
        "users": {
            "$userId": {
                ".read": "$userId === auth.uid || auth.admin === true",
                ".write": "$userId === auth.uid",
            }
        }
    }
}


class Streams(Served):
    """A server with accounts, and a client that shows nothing."""

    def __init__(self, data: Path) -> None:
        settings = data.with_suffix(".toml")
        settings.write_text('anonymous = false\nproject = "streams"\n')
        super().__init__(data, "--auth", str(settings), "--keep-alive", "1")
        self.anonymous = httpx.Client(base_url=self.url, timeout=20)

    def stop(self) -> tuple[int, str]:
        self.anonymous.close()
        return super().stop()

    def sign_up(self, email: str) -> tuple[str, str]:
        body = {"email": email, "password": "secret1"}
        answer = self.anonymous.post(f"{ACCOUNTS}:signUp", json=body).json()
        return answer["localId"], answer["idToken"]

    @contextmanager
    def names(self, path: str, token: str) -> Iterator[Iterator[str]]:
        """Open an event stream of a user; yields the names of events."""
        with self.stream(path, Authorization=f"Bearer {token}") as events:
            yield (name for name, _data, _id in events)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    running = Streams(tmp_path_factory.mktemp("served"))
    assert running.client.put("/.settings/rules.json", json=RULES).status_code == 200
    yield running
    running.stop()


@pytest.mark.slow
def test_rules_decide_by_the_signed_in_user(server: Streams) -> None:
    uid, token = server.sign_up("rules@example.com")
    bearer = {"Authorization": f"Bearer {token}"}
    own = f"/users/{uid}/profile.json"
    assert server.anonymous.put(own, json={"a": 1}, headers=bearer).status_code == 200
    assert server.anonymous.get(own, params={"auth": token}).json() == {"a": 1}
    refused = server.anonymous.put("/users/other.json", json=1, headers=bearer)
    assert (refused.status_code, refused.json()) == (401, {"error": "Permission denied"})
    assert server.anonymous.get(own).status_code == 401
    broken = server.anonymous.get(own, params={"auth": "x.y.z"})
    assert (broken.status_code, broken.json()) == (401, {"error": "Could not parse auth token."})
    assert server.anonymous.get(own, headers={"Authorization": "Bearer owner"}).status_code == 401


def test_the_original_way_to_a_token_needs_an_administrator(server: Streams) -> None:
    body = {"uid": "user123", "email": "user@example.com", "admin": True}
    assert server.anonymous.post("/auth/token", json=body).status_code == 401
    token = server.client.post("/auth/token", json=body).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    put = server.anonymous.put("/users/user123", json={"name": "Alice"}, headers=bearer)
    assert put.status_code == 200
    assert server.anonymous.get("/users/other", headers=bearer).status_code == 200


@pytest.mark.slow
def test_a_stream_ends_when_its_token_does(server: Streams) -> None:
    body = {"uid": "ann", "expiresSeconds": 2}
    token = server.client.post("/auth/token", json=body).json()["token"]
    with server.stream("/users/ann.json", Authorization=f"Bearer {token}") as events:
        found = [(name, data) for name, data, _id in events if name != "keep-alive"]
    assert [name for name, _data in found] == ["put", "auth_revoked"]
    assert found[-1][1] == "credential is no longer valid"


@pytest.mark.slow
def test_revoking_a_user_ends_open_streams(server: Streams) -> None:
    uid, token = server.sign_up("stream@example.com")
    other_uid, other = server.sign_up("other@example.com")
    with (
        server.names(f"/users/{uid}.json", token) as events,
        server.names(f"/users/{other_uid}.json", other) as others,
    ):
        assert next(events) == next(others) == "put"
        user = {"localId": uid, "disableUser": True}
        project = "/identitytoolkit.googleapis.com/v1/projects/elkyn/accounts"
        assert server.client.post(f"{project}:update", json=user).status_code == 200
        assert [event for event in events if event != "keep-alive"] == ["auth_revoked"]
        assert next(others) == "keep-alive"
    assert server.anonymous.get(f"/users/{uid}.json", params={"auth": token}).status_code == 401


@pytest.mark.slow
def test_another_process_revokes_while_the_server_runs(server: Streams) -> None:
    uid, token = server.sign_up("shell@example.com")
    with server.names(f"/users/{uid}.json", token) as events:
        assert next(events) == "put"
        command = [sys.executable, "-m", "elkyn.cli", "user", "delete", uid]
        subprocess.run([*command, "--data", str(server.data)], check=True)
        assert [event for event in events if event != "keep-alive"] == ["auth_revoked"]


def test_the_file_of_settings_counts(server: Streams) -> None:
    answer = server.anonymous.post(f"{ACCOUNTS}:signUp", json={})
    assert answer.json()["error"]["message"] == "ADMIN_ONLY_OPERATION"
    config = server.anonymous.get("/identitytoolkit.googleapis.com/v1/projects").json()
    assert config["projectId"] == "streams"


def test_the_account_store_is_not_a_namespace(server: Streams) -> None:
    for namespace in (".secrets", "%2esecrets", "../x", "secrets"):
        answer = server.client.get(f"/.json?ns={namespace}")
        assert answer.status_code in (400, 404), answer.text
    assert json.loads(server.client.get("/.json?shallow=true").text).keys() == {"users"}
