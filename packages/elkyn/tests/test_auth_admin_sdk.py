"""The vendor's own admin SDK for Python manages users of a real `elkyn serve --emulator`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import firebase_admin  # type: ignore[import-untyped]  # it ships no types
import httpx
import pytest
from elkyn_server import running_emulator
from firebase_admin import auth, db, exceptions

ACCOUNTS = "/identitytoolkit.googleapis.com/v1/accounts"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_emulator(tmp_path_factory.mktemp("served")) as started:
        yield started


@pytest.fixture(scope="module")
def app(url: str) -> Iterator[firebase_admin.App]:
    host = url.removeprefix("http://")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIREBASE_AUTH_EMULATOR_HOST", host)
        patch.setenv("FIREBASE_DATABASE_EMULATOR_HOST", host)
        options = {"projectId": "elkyn", "databaseURL": f"{url}/?ns=default"}
        made = firebase_admin.initialize_app(None, options, name="elkyn")
        yield made
        firebase_admin.delete_app(made)


def sign_in(url: str, verb: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}{ACCOUNTS}:{verb}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.slow
def test_users_are_made_found_changed_and_deleted(app: firebase_admin.App) -> None:
    made = auth.create_user(
        uid="ann",
        email="Ann@example.com",
        password="secret1",
        display_name="Ann",
        phone_number="+4930123456",
        photo_url="http://example.com/ann.png",
        app=app,
    )
    assert (made.uid, made.email, made.email_verified) == ("ann", "ann@example.com", False)
    assert {provider.provider_id for provider in made.provider_data} == {"password", "phone"}
    for found in (
        auth.get_user("ann", app),
        auth.get_user_by_email("ann@example.com", app),
        auth.get_user_by_phone_number("+4930123456", app),
    ):
        assert found.display_name == "Ann"
        assert abs(found.user_metadata.creation_timestamp / 1000 - time.time()) < 60
    changed = auth.update_user(
        "ann",
        display_name=auth.DELETE_ATTRIBUTE,
        phone_number=auth.DELETE_ATTRIBUTE,
        email_verified=True,
        disabled=True,
        app=app,
    )
    assert (changed.display_name, changed.phone_number) == (None, None)
    assert (changed.email_verified, changed.disabled) == (True, True)
    auth.delete_user("ann", app)
    with pytest.raises(auth.UserNotFoundError):
        auth.get_user("ann", app)
    with pytest.raises(auth.UserNotFoundError):
        auth.delete_user("ann", app)


def test_conflicts_and_bad_arguments_raise_their_own_class(app: firebase_admin.App) -> None:
    auth.create_user(uid="existing", email="existing@example.com", phone_number="+491", app=app)
    with pytest.raises(auth.UidAlreadyExistsError):
        auth.create_user(uid="existing", app=app)
    with pytest.raises(auth.EmailAlreadyExistsError):
        auth.create_user(email="existing@example.com", app=app)
    with pytest.raises(auth.PhoneNumberAlreadyExistsError):
        auth.create_user(phone_number="+491", app=app)
    with pytest.raises(auth.UserNotFoundError):
        auth.update_user("unknown", display_name="x", app=app)
    with pytest.raises(auth.UserNotFoundError):
        auth.get_user_by_email("unknown@example.com", app)
    with pytest.raises(exceptions.InvalidArgumentError):
        auth.update_user("existing", email="x @y", app=app)


def test_users_are_listed_and_deleted_together(app: firebase_admin.App) -> None:
    uids = [f"many{number}" for number in range(7)]
    for uid in uids:
        auth.create_user(uid=uid, app=app)
    page = auth.list_users(max_results=3, app=app)
    assert len(page.users) == 3
    assert page.has_next_page
    assert set(uids) <= {user.uid for user in page.iterate_all()}
    identifiers = [auth.UidIdentifier("many0"), auth.UidIdentifier("unknown")]
    found = auth.get_users(identifiers, app)
    assert [user.uid for user in found.users] == ["many0"]
    assert [one.uid for one in found.not_found] == ["unknown"]
    auth.update_user("many0", disabled=True, app=app)
    result = auth.delete_users(uids, app)
    assert result.success_count + result.failure_count == 7
    assert not {user.uid for user in auth.list_users(app=app).iterate_all()} & {"many0"}


def test_users_are_imported(app: firebase_admin.App) -> None:
    users = [auth.ImportUserRecord("in1", email="in1@example.com", custom_claims={"a": 1})]
    assert auth.import_users(users, app=app).success_count == 1
    assert auth.get_user("in1", app).custom_claims == {"a": 1}


def test_claims_reach_the_token_and_the_rules(app: firebase_admin.App, url: str) -> None:
    auth.create_user(uid="boss", email="boss@example.com", password="secret1", app=app)
    auth.set_custom_user_claims("boss", {"level": 7}, app)
    signed = sign_in(url, "signInWithPassword", email="boss@example.com", password="secret1")
    claims = auth.verify_id_token(signed["idToken"], app, check_revoked=True)
    assert (claims["uid"], claims["level"]) == ("boss", 7)
    rules = {"rules": {"secret": {".read": "auth.token.level === 7"}}}
    owner = {"Authorization": "Bearer owner"}
    ruled = f"{url}/.settings/rules.json?ns=claims"
    assert httpx.put(ruled, json=rules, headers=owner).status_code == 200
    address = f"{url}/secret.json?ns=claims&auth="
    assert httpx.get(address + signed["idToken"]).status_code == 200
    assert httpx.get(address).status_code == 401


def test_a_custom_token_signs_in(app: firebase_admin.App, url: str) -> None:
    text = auth.create_custom_token("custom1", {"level": 1}, app).decode()
    signed = sign_in(url, "signInWithCustomToken", token=text)
    claims = auth.verify_id_token(signed["idToken"], app)
    assert (claims["uid"], claims["level"]) == ("custom1", 1)
    assert claims["firebase"]["sign_in_provider"] == "custom"
    cookie = auth.create_session_cookie(signed["idToken"], 600, app)
    assert auth.verify_session_cookie(cookie, app=app)["uid"] == "custom1"


def test_revoking_refresh_tokens_ends_a_session(app: firebase_admin.App, url: str) -> None:
    signed = sign_in(url, "signUp", email="gone@example.com", password="secret1")
    auth.revoke_refresh_tokens(signed["localId"], app)
    revoked = auth.get_user(signed["localId"], app).tokens_valid_after_timestamp
    assert abs(revoked / 1000 - time.time()) < 60
    # Tokens of the very second of a revocation stay good: times are whole seconds.
    auth.update_user(signed["localId"], valid_since=int(time.time()) + 1, app=app)
    with pytest.raises(auth.RevokedIdTokenError):
        auth.verify_id_token(signed["idToken"], app, check_revoked=True)
    body = {"grant_type": "refresh_token", "refresh_token": signed["refreshToken"]}
    answer = httpx.post(f"{url}/securetoken.googleapis.com/v1/token", data=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "TOKEN_EXPIRED")
    refused = httpx.get(f"{url}/x.json", params={"auth": signed["idToken"]})
    assert refused.status_code == 401


def test_the_database_sees_the_user(app: firebase_admin.App, url: str) -> None:
    rules = {"rules": {"own": {"$uid": {".write": "auth.uid === $uid", ".read": True}}}}
    owner = {"Authorization": "Bearer owner"}
    httpx.put(f"{url}/.settings/rules.json?ns=default", json=rules, headers=owner)
    as_ann = firebase_admin.initialize_app(
        None, {**app._options._options, "databaseAuthVariableOverride": {"uid": "ann"}}, name="ann"
    )
    try:
        db.reference("own/ann", as_ann).set(json.loads('{"a": 1}'))
        assert db.reference("own/ann", as_ann).get() == {"a": 1}
        with pytest.raises(exceptions.UnauthenticatedError, match="Permission denied"):
            db.reference("own/bob", as_ann).set(1)
    finally:
        firebase_admin.delete_app(as_ann)
