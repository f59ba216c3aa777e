"""A server of accounts that is called without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from elkyn.auth import passwords
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.endpoints import AuthRequest
from elkyn.auth.jws import PrivateKey
from sennit_core.testing import ManualClock

SECRET = "a secret of at least thirty-two bytes"
ACCOUNTS = "/identitytoolkit.googleapis.com/v1/accounts"
PROJECT = "/identitytoolkit.googleapis.com/v1/projects/app/accounts"
TOKEN = "/securetoken.googleapis.com/v1/token"
ADMIN = {"authorization": "Bearer root-token"}
KEY = PrivateKey.generate("shared")


@contextmanager
def cheap_accounts() -> Iterator[None]:
    """Spare each server the making of a key of its own, and the cost of hashing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_COST", {"time_cost": 1, "memory_cost": 64, "parallelism": 1})
        patch.setattr(PrivateKey, "generate", lambda kid: PrivateKey(kid, KEY._private))
        yield


class Server:
    """A server without a network: what requests are answered."""

    def __init__(self, **fields: Any) -> None:
        self.clock = ManualClock()
        fields = {"secret": SECRET, "admin_token": "root-token", "project": "app", **fields}
        self.auth = Authenticator(AuthSettings(**fields), clock=self.clock)

    def ask(
        self, path: str, body: Any = None, *, method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        path, _mark, query = path.partition("?")
        pairs = dict(part.split("=", 1) for part in query.split("&") if part)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        data = data.encode() if isinstance(data, str) else data
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.auth.answer(AuthRequest(method, path, pairs, names, data, "10.0.0.1"))
        return response.status, json.loads(response.body)

    def ok(self, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        status, answer = self.ask(path, body, **more)
        assert status == 200, answer
        return answer

    def admin(self, path: str, body: Any = None, method: str = "POST") -> dict[str, Any]:
        return self.ok(path, body, method=method, authorization="Bearer root-token")

    def error(self, path: str, body: Any = None, **more: Any) -> str:
        status, answer = self.ask(path, body, **more)
        assert 400 <= status < 500, answer
        assert answer["error"]["code"] == status
        return str(answer["error"]["message"])

    def sign_up(self, email: str = "a@b.c", password: str = "secret1") -> dict[str, Any]:
        return self.ok(f"{ACCOUNTS}:signUp", {"email": email, "password": password})

    def refresh(self, token: str) -> tuple[int, dict[str, Any]]:
        form = urlencode({"grant_type": "refresh_token", "refresh_token": token}).encode()
        return self.ask(TOKEN, form, content_type="application/x-www-form-urlencoded")
