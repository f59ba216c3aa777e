"""Codes that go to an email: once, for a time, for one purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from toolkit_server import ACCOUNTS, PROJECT, cheap_accounts

from elkyn.auth.account_store import AccountStore
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.codes import Message
from elkyn.auth.endpoints import AuthRequest
from sennit_core.testing import ManualClock


@pytest.fixture(autouse=True, scope="module")
def cheap() -> Iterator[None]:
    with cheap_accounts():
        yield


class Server:
    """A server whose messages end up in `sent`."""

    def __init__(self, **fields: Any) -> None:
        self.clock = ManualClock()
        self.sent: list[Message] = []
        fields = {"deliver": self.sent.append, "admin_token": "root-token", **fields}
        self.auth = Authenticator(AuthSettings(**fields), clock=self.clock)

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        headers = {"authorization": "Bearer root-token"}
        data = json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(
            self.auth.answer(AuthRequest("POST", path, {}, headers, data)).body
        )
        return answer

    def error(self, path: str, **body: Any) -> str:
        return str(self.ask(path, **body)["error"]["message"])

    def sign_up(self, email: str = "a@b.c") -> dict[str, Any]:
        return self.ask(f"{ACCOUNTS}:signUp", email=email, password="secret1")

    def send(self, purpose: str, **body: Any) -> str:
        answer = self.ask(f"{ACCOUNTS}:sendOobCode", requestType=purpose, **body)
        assert "error" not in answer, answer
        return self.sent[-1].code


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.auth:
        yield made


def test_a_forgotten_password_is_reset(server: Server) -> None:
    signed = server.sign_up()
    code = server.send("PASSWORD_RESET", email="A@b.c", continueUrl="https://app.test/?a=1")
    assert server.sent[0].link.startswith(
        "http://localhost:9000/action?mode=resetPassword&oobCode="
    )
    looked = server.ask(f"{ACCOUNTS}:resetPassword", oobCode=code)
    assert (looked["email"], looked["requestType"]) == ("a@b.c", "PASSWORD_RESET")
    weak = server.error(f"{ACCOUNTS}:resetPassword", oobCode=code, newPassword="12345")
    assert weak.startswith("WEAK_PASSWORD")
    server.clock.advance(1)
    server.ask(f"{ACCOUNTS}:resetPassword", oobCode=code, newPassword="secret2")
    again = server.error(f"{ACCOUNTS}:resetPassword", oobCode=code, newPassword="secret3")
    assert again == "INVALID_OOB_CODE"
    right = {"email": "a@b.c", "password": "secret2"}
    assert server.ask(f"{ACCOUNTS}:signInWithPassword", **right)["registered"]
    assert server.error(f"{ACCOUNTS}:lookup", idToken=signed["idToken"]) == "TOKEN_EXPIRED"


def test_a_code_ends(server: Server) -> None:
    server.sign_up()
    code = server.send("PASSWORD_RESET", email="a@b.c")
    server.clock.advance(3601)
    assert server.error(f"{ACCOUNTS}:resetPassword", oobCode=code) == "EXPIRED_OOB_CODE"
    server.send("PASSWORD_RESET", email="a@b.c")
    assert server.error(f"{ACCOUNTS}:resetPassword", oobCode=code) == "INVALID_OOB_CODE"


def test_a_code_is_good_for_its_purpose_alone(server: Server) -> None:
    signed = server.sign_up()
    code = server.send("VERIFY_EMAIL", idToken=signed["idToken"])
    wrong = {"oobCode": code, "newPassword": "secret2"}
    assert server.error(f"{ACCOUNTS}:resetPassword", **wrong) == "INVALID_OOB_CODE"
    wrong = {"oobCode": code, "email": "a@b.c"}
    assert server.error(f"{ACCOUNTS}:signInWithEmailLink", **wrong) == "INVALID_OOB_CODE"
    assert server.ask(f"{ACCOUNTS}:update", oobCode=code)["emailVerified"] is True


def test_an_email_changes_when_the_new_one_is_verified(server: Server) -> None:
    signed = server.sign_up()
    purpose = "VERIFY_AND_CHANGE_EMAIL"
    code = server.send(purpose, idToken=signed["idToken"], newEmail="New@b.c")
    assert server.sent[-1].email == "new@b.c"
    answer = server.ask(f"{ACCOUNTS}:update", oobCode=code)
    assert (answer["email"], answer["emailVerified"]) == ("new@b.c", True)
    stale = {"requestType": purpose, "email": "new@b.c", "newEmail": "x@b.c"}
    assert server.error(f"{ACCOUNTS}:sendOobCode", **stale) == "INVALID_ID_TOKEN"


def test_a_code_for_an_email_that_changed_since_is_worthless(server: Server) -> None:
    signed = server.sign_up()
    code = server.send("VERIFY_EMAIL", idToken=signed["idToken"])
    server.ask(f"{PROJECT}:update", localId=signed["localId"], email="other@b.c")
    assert server.error(f"{ACCOUNTS}:update", oobCode=code) == "INVALID_OOB_CODE"


def test_a_link_signs_in_and_drops_an_unverified_password(server: Server) -> None:
    server.sign_up("victim@b.c")
    code = server.send("EMAIL_SIGNIN", email="victim@b.c")
    other = server.error(f"{ACCOUNTS}:signInWithEmailLink", email="x@b.c", oobCode="wrong")
    assert other == "INVALID_OOB_CODE"
    signed = server.ask(f"{ACCOUNTS}:signInWithEmailLink", email="victim@b.c", oobCode=code)
    assert signed["isNewUser"] is False
    assert server.auth.authenticate_token_sync(signed["idToken"]).claims["email_verified"] is True
    sign_in = {"email": "victim@b.c", "password": "secret1"}
    assert server.error(f"{ACCOUNTS}:signInWithPassword", **sign_in).startswith("INVALID_LOGIN")
    code = server.send("EMAIL_SIGNIN", email="new@b.c")
    signed = server.ask(f"{ACCOUNTS}:signInWithEmailLink", email="new@b.c", oobCode=code)
    assert signed["isNewUser"] is True


def test_emails_without_an_account_are_answered_alike(server: Server) -> None:
    answer = server.ask(f"{ACCOUNTS}:sendOobCode", requestType="PASSWORD_RESET", email="no@b.c")
    assert answer["email"] == "no@b.c"
    assert server.sent == []
    admins = {"requestType": "PASSWORD_RESET", "email": "no@b.c", "returnOobLink": True}
    assert server.error(f"{PROJECT}:sendOobCode", **admins) == "EMAIL_NOT_FOUND"


def test_administrators_get_the_link_and_send_it_themselves(server: Server) -> None:
    server.sign_up()
    request = {"requestType": "PASSWORD_RESET", "email": "a@b.c", "returnOobLink": True}
    made = server.ask(f"{PROJECT}:sendOobCode", **request)
    assert made["oobCode"] in made["oobLink"]
    assert server.sent == []


@pytest.mark.parametrize(("email", "messages"), [("a@b.c", 10), ("unknown@b.c", 0)])
def test_codes_to_one_address_are_rate_limited(server: Server, email: str, messages: int) -> None:
    server.sign_up()
    request = {"requestType": "PASSWORD_RESET", "email": email}
    for _ in range(10):
        server.ask(f"{ACCOUNTS}:sendOobCode", **request)
    assert server.error(f"{ACCOUNTS}:sendOobCode", **request) == "RESET_PASSWORD_EXCEED_LIMIT"
    assert len(server.sent) == messages


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "MISSING_REQ_TYPE"),
        ({"requestType": "OTHER"}, "INVALID_REQ_TYPE"),
        ({"requestType": "PASSWORD_RESET"}, "MISSING_EMAIL"),
        ({"requestType": "EMAIL_SIGNIN", "email": "x"}, "INVALID_EMAIL"),
        ({"requestType": "VERIFY_EMAIL", "idToken": "x.y.z"}, "INVALID_ID_TOKEN"),
    ],
)
def test_values_that_cannot_be_sent(server: Server, body: dict[str, Any], message: str) -> None:
    assert server.error(f"{ACCOUNTS}:sendOobCode", **body) == message


def test_without_delivery_nothing_is_promised() -> None:
    silent = Server(deliver=None)
    with silent.auth:
        silent.sign_up()
        for email in ("a@b.c", "unknown@b.c"):
            request = {"requestType": "PASSWORD_RESET", "email": email}
            answer = silent.error(f"{ACCOUNTS}:sendOobCode", **request)
            assert answer.startswith("OPERATION_NOT_ALLOWED")


def test_codes_are_kept_as_hashes(tmp_path: Any) -> None:
    with Authenticator(AuthSettings(), tmp_path / "v") as auth:
        auth.users.create(email="a@b.c")
    server = Server()
    server.auth.close()
    server.auth = Authenticator(
        AuthSettings(deliver=server.sent.append), tmp_path / "v", server.clock
    )
    with server.auth:
        code = server.send("PASSWORD_RESET", email="a@b.c")
    assert code.encode() not in (tmp_path / "v" / "data.mdb").read_bytes()
    with AccountStore(tmp_path / "v") as account_store, account_store.read() as pages:
        found = pages.code(code)
        assert found is not None
        assert found.email == "a@b.c"
