"""The middleware in front of every request, without a network."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from elkyn import ElkynStore
from sennit.app import create_api
from sennit.auth import AccessControl, Tokens, admin_token, is_tree_path
from sennit.route_roles import RouteRoles
from sennit_core.errors import Denied, Unauthenticated, UsageError

ADMIN = "snt_admin-token"
HOST = {"host": "127.0.0.1:8600"}


@pytest.fixture
def tokens() -> Iterator[Any]:
    with ElkynStore(mode="memory") as tree:
        yield Tokens(ADMIN, tree)


@pytest.fixture(scope="module")
def roles() -> RouteRoles:
    return RouteRoles(create_api(Mock(version="0"), "cookie").routes)


@pytest.fixture
def access(tokens: Tokens, roles: RouteRoles) -> Any:
    return AccessControl.of(
        tokens,
        roles,
        host="127.0.0.1",
        port=8600,
        hosts=("lake.example",),
        origins=("https://app.example",),
    )


def bearer(token: str) -> Any:
    return {**HOST, "authorization": f"Bearer {token}"}


def test_the_admin_token_opens_everything(access: AccessControl) -> None:
    principal = access.admit("DELETE", "/api/datasets/x", bearer(ADMIN))
    assert principal is not None
    assert (principal.name, principal.role) == ("admin", "admin")


@pytest.mark.parametrize(
    "path", ["/api/stats", "/files/a/b/c", "/metrics", "/users.json", "/docs", "/db/a.json"]
)
def test_nothing_of_value_is_open(access: AccessControl, path: str) -> None:
    with pytest.raises(Unauthenticated, match="token"):
        access.admit("GET", path, HOST)


@pytest.mark.parametrize("path", ["/healthz", "/", "/sql/", "/_next/static/a.js"])
def test_health_and_the_empty_shell_are_open(access: AccessControl, path: str) -> None:
    assert access.admit("GET", path, HOST) is None


def test_a_wrong_bearer_token_is_refused_even_where_none_is_needed(access: AccessControl) -> None:
    with pytest.raises(Unauthenticated, match="does not know the token"):
        access.admit("GET", "/", bearer("snt_wrong"))


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "[::1]x", "",
     "127.0.0.1:8600@evil.example", "127.0.0.1:80:90", "127.0.0.1:99999", "127.0.0.1:-1",
     "127.0.0.1:8600/", "127.0.0.1 ", "user@127.0.0.1", "localhost:٣"],
)  # fmt: skip
def test_another_host_name_is_refused(access: AccessControl, host: str) -> None:
    with pytest.raises(Denied, match="host"):
        access.admit("GET", "/healthz", {"host": host})


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "LocalHost:", "[::1]:8600", "lake.example:443"])
def test_known_host_names_are_answered(access: AccessControl, host: str) -> None:
    assert access.admit("GET", "/healthz", {"host": host}) is None


def test_a_page_of_another_site_cannot_write_with_the_cookie(access: AccessControl) -> None:
    headers = {**HOST, "cookie": f"sennit_8600={ADMIN}", "origin": "https://evil.example"}
    with pytest.raises(Denied, match="origin"):
        access.admit("POST", "/api/query", headers)


def test_a_cookie_without_an_origin_is_not_enough_to_write(access: AccessControl) -> None:
    headers = {**HOST, "cookie": f"sennit_8600={ADMIN}"}
    with pytest.raises(Denied, match="origin"):
        access.admit("POST", "/api/query", headers)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8600", "https://app.example"])
def test_the_playground_and_allowed_origins_may_write(access: AccessControl, origin: str) -> None:
    headers = {**HOST, "cookie": f"sennit_8600={ADMIN}", "origin": origin}
    principal = access.admit("POST", "/api/query", headers)
    assert principal is not None
    assert principal.role == "admin"


def test_a_websocket_from_another_site_is_refused(access: AccessControl) -> None:
    headers = {
        **HOST,
        "cookie": f"sennit_8600={ADMIN}",
        "origin": "https://evil.example",
        "upgrade": "websocket",
    }
    with pytest.raises(Denied):
        access.admit("GET", "/.ws", headers)


def test_another_nodes_cookie_is_not_ours(access: AccessControl) -> None:
    with pytest.raises(Unauthenticated):
        access.admit("GET", "/api/stats", {**HOST, "cookie": f"sennit_8610={ADMIN}"})


@pytest.mark.parametrize(
    ("role", "method", "path", "may"),
    [
        ("reader", "GET", "/api/datasets", True),
        ("reader", "POST", "/api/query", True),
        ("reader", "POST", "/api/start-upload", False),
        ("reader", "DELETE", "/api/datasets/x", False),
        ("writer", "DELETE", "/api/datasets/x", True),
        ("writer", "POST", "/api/tokens", False),
        ("writer", "GET", "/api/tokens", False),
    ],
)
def test_roles_reach_what_they_should(
    access: AccessControl, tokens: Tokens, role: str, method: str, path: str, may: bool
) -> None:
    token = tokens.issue("ann", role)
    if may:
        principal = access.admit(method, path, bearer(token))
        assert principal is not None
        assert principal.role == role
    else:
        with pytest.raises(Denied, match=role):
            access.admit(method, path, bearer(token))


def test_a_revoked_token_is_unknown(access: AccessControl, tokens: Tokens) -> None:
    token = tokens.issue("ann", "reader")
    (row,) = tokens.list()
    assert tokens.revoke(row["id"])
    with pytest.raises(Unauthenticated):
        access.admit("GET", "/api/stats", bearer(token))
    assert not tokens.revoke(row["id"])


def test_a_user_has_the_role_of_the_tokens_that_are_left_and_no_more_than_before(
    tokens: Tokens,
) -> None:
    assert tokens.role_of("ann", "writer") is None
    tokens.issue("ann", "reader")
    assert tokens.role_of("ann", "writer") is None
    tokens.issue("ann", "writer")
    assert tokens.role_of("ann", "writer") == tokens.role_of("ann", "admin") == "writer"
    assert tokens.role_of("ann", "") == "writer"
    assert tokens.role_of("ann", "reader") is None
    tokens.issue("ann", "admin")
    assert tokens.role_of("ann", "writer") == "writer"
    assert tokens.role_of("bob", "writer") is None
    assert tokens.role_of("admin", "admin") == "admin"


def test_tokens_are_kept_as_hashes(tokens: Tokens) -> None:
    token = tokens.issue("ann", "reader")
    assert token not in str(tokens._tree.get("/"))


def test_an_unknown_role_is_refused(tokens: Tokens) -> None:
    with pytest.raises(UsageError, match="king"):
        tokens.issue("ann", "king")
    with pytest.raises(UsageError, match="for admins"):
        tokens.issue("Admin", "reader")


def test_the_admin_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    token = admin_token(tmp_path)
    assert admin_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / "admin.token").stat().st_mode) == 0o600


def test_tree_paths_end_in_json_outside_the_api() -> None:
    assert is_tree_path("/.json")
    assert is_tree_path("/jobs/a.json")
    assert not is_tree_path("/api/openapi.json")
    assert not is_tree_path("/_next/x.json")


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("PATCH", "/api/new", "admin"),
        ("GET", "/api/new", "reader"),
        ("POST", "/api/stats", "reader"),
        ("PUT", "/.settings/rules.json", "admin"),
        ("GET", "/db/.settings/changes", "admin"),
        ("POST", "/db/.replica/promote", "admin"),
        ("PUT", "/notes.json", "writer"),
    ],
)
def test_undeclared_routes_have_a_role_too(
    access: AccessControl, method: str, path: str, role: str
) -> None:
    assert access.role_needed(method, path) == role
