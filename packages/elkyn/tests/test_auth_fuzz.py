"""Any request to a sign-in endpoint gets an answer, at worst a bad request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.auth import passwords
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.endpoints import AuthRequest

ACCOUNTS = "/identitytoolkit.googleapis.com/v1/accounts"
PROJECT = "/identitytoolkit.googleapis.com/v1/projects/app/accounts"
TOKEN = "/securetoken.googleapis.com/v1/token"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Authenticator]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_COST", {"time_cost": 1, "memory_cost": 64, "parallelism": 1})
        with Authenticator(AuthSettings(emulator=True)) as made:
            yield made


TEXTS = st.text(max_size=20) | st.sampled_from(
    ["a@b.c", "secret1", "owner", "{}", "u1", "\ud800", "x" * 600]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "email",
        "password",
        "idToken",
        "token",
        "localId",
        "displayName",
        "photoUrl",
        "identifier",
        "deleteAttribute",
        "deleteProvider",
        "customAttributes",
        "validSince",
        "disableUser",
        "localIds",
        "users",
        "roles",
        "uid",
        "name",
        "grant_type",
        "refresh_token",
        "phoneNumber",
        "emailVerified",
        "validDuration",
        "expiresSeconds",
        "claims",
    ]
)
PATHS = st.sampled_from(
    [ACCOUNTS + verb for verb in (":signUp", ":lookup", ":update", ":delete", ":createAuthUri")]
    + [f"{ACCOUNTS}:signInWithPassword", f"{ACCOUNTS}:signInWithCustomToken", TOKEN, PROJECT]
    + [PROJECT + verb for verb in (":lookup", ":update", ":delete", ":batchDelete", ":batchGet")]
    + [f"{PROJECT}:batchCreate", f"{PROJECT[:-9]}:createSessionCookie"]
    + ["/auth/token", "/auth/revoke", "/auth/keys", "/auth/keys/revoke"]
)


@pytest.mark.slow
@given(
    path=PATHS,
    method=st.sampled_from(["POST", "POST", "POST", "GET", "DELETE"]),
    body=st.dictionaries(NAMES, VALUES, max_size=5),
    query=st.dictionaries(st.sampled_from(["maxResults", "nextPageToken"]), TEXTS),
    form=st.booleans(),
)
def test_no_body_is_more_than_a_bad_request(
    emulator: Authenticator,
    path: str,
    method: str,
    body: dict[str, Any],
    query: dict[str, str],
    form: bool,
) -> None:
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    headers = {"authorization": "Bearer owner", "content-type": kind}
    data = json.dumps(body).encode()
    if form:
        data = urlencode(body, errors="surrogatepass").encode()
    response = emulator.answer(AuthRequest(method, path, query, headers, data))
    assert response.status < 500
    json.loads(response.body)


@given(data=st.binary(max_size=200), path=PATHS)
def test_no_bytes_are_more_than_a_bad_request(
    emulator: Authenticator, data: bytes, path: str
) -> None:
    request = AuthRequest("POST", path, {}, {"authorization": "Bearer owner"}, data)
    assert emulator.answer(request).status < 500
