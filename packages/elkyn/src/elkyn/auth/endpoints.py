"""Requests in, responses out: `/auth/…`, the Identity Toolkit, the Secure Token service, the JWKS.

Paths are those that Firebase's SDKs request from an emulator: the name of the vendor's host first,
then the path on that host. `answer` never raises for bad input, and its only I/O is that of the
account store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from elkyn.auth.accounts import Accounts, Call
from elkyn.auth.admin_accounts import AdminAccounts
from elkyn.auth.administration import Administration
from elkyn.auth.body import BODY_BYTES_MAX, Body
from elkyn.auth.code_accounts import CodeAccounts
from elkyn.auth.errors import AccountError, BadToken
from elkyn.auth.passwords import PASSWORD_MAX, PASSWORD_MIN
from elkyn.auth.principal import UNAUTHENTICATED, Principal
from elkyn.auth.services import AuthServer, AuthServices
from elkyn.auth.tokens import Verifier
from sennit_core.errors import Denied, NotFound, SennitError, StorageFull, UsageError
from sennit_core.logs import get_logger

__all__ = ["BODY_BYTES_MAX", "AuthRequest", "AuthResponse", "Endpoints"]

_TOOLKIT = "/identitytoolkit.googleapis.com"
_SECURE_TOKEN = "/securetoken.googleapis.com"
_JWKS = "/.well-known/jwks.json"
# The paths of the SDKs' `connectAuthEmulator`: the host of the live service becomes the first
# segment.
_PREFIXES = ("/auth/", f"{_TOOLKIT}/", f"{_SECURE_TOKEN}/", "/emulator/v1/")
_PROJECT = re.compile(r"/projects/[^/:]+(?=[/:])")
_JSON = ("content-type", "application/json; charset=utf-8")
_PRIVATE = ("cache-control", "no-store")
# Methods that may hash a password: they run on threads of their own.
_COSTLY = (
    *("accounts", "accounts:signUp", "accounts:signInWithPassword", "accounts:update"),
    *("accounts:resetPassword", "accounts:batchCreate"),
)
_STATUS_NAMES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """One request; header names in lower case, the path without its query."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: str | None = None


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """One response."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (_JSON, _PRIVATE)


Handler: TypeAlias = Callable[[Call], dict[str, Any]]


class Endpoints:
    """Routes and handles requests; thread-safe.

    Args:
        auth: identifies administrators.
        services: the users.
        tokens: verifies ID tokens.
        custom: verifies custom tokens.
    """

    def __init__(
        self, auth: AuthServer, services: AuthServices, tokens: Verifier, custom: Verifier
    ) -> None:
        self._auth = auth
        accounts = Accounts(services, tokens, custom)
        admins = AdminAccounts(services, accounts)
        codes = CodeAccounts(services, accounts, services.codes)
        acts = Administration(auth, services.clock)
        self._open = _open_routes(accounts, codes, auth)
        self._admin = _admin_routes(admins, codes, acts)
        if services.policy.emulator:
            self._admin["DELETE", "/emulator/v1/accounts"] = admins.delete_all
            self._admin["GET", "/emulator/v1/oobCodes"] = codes.list_messages
            self._open["POST", "/auth/token"] = acts.token

    def owns(self, path: str) -> bool:
        """Whether `answer` handles this path."""
        return path.startswith(_PREFIXES) or path == _JWKS

    def is_costly(self, path: str) -> bool:
        """Whether handling may last as long as hashing a password."""
        return path.rpartition("/")[2] in _COSTLY

    def answer(self, request: AuthRequest) -> AuthResponse:
        """Handle a request."""
        try:
            return self._answer(request)
        except BadToken as error:
            return _error(401, "UNAUTHENTICATED", str(error), request.path)
        except AccountError as error:
            return _error(error.status, error.reason, str(error), request.path)
        except Denied as error:
            return _error(403, "PERMISSION_DENIED", str(error), request.path)
        except NotFound as error:
            return _error(404, "NOT_FOUND", str(error), request.path)
        except UsageError as error:
            return _error(400, "INVALID_ARGUMENT", str(error), request.path)
        except StorageFull:
            return _error(507, "RESOURCE_EXHAUSTED", "The disk is full.", request.path)
        except SennitError as error:
            _log.error("an accounts request failed: %s", error)
            return _error(503, "UNAVAILABLE", "Try again later.", request.path)

    def busy(self, request: AuthRequest, text: str) -> AuthResponse:
        """Return the response to a request that exceeds the capacity."""
        response = _error(429, "TOO_MANY_ATTEMPTS_TRY_LATER", text, request.path)
        return AuthResponse(429, response.body, (*response.headers, ("retry-after", "1")))

    def _answer(self, request: AuthRequest) -> AuthResponse:
        # The SDKs for administrators name the project in the path; apps do not. So a path with a
        # project is never answered by a route of users.
        path = _PROJECT.sub("", request.path, count=1)
        is_admins = path != request.path
        route = (request.method, path)
        handler = None if is_admins else self._open.get(route)
        principal = UNAUTHENTICATED
        if handler is None:
            handler = self._admin.get(route)
            if handler is None:
                raise self._unknown(request, path)
            principal = self._administrator(request)
        body = Body.parse(request.body, request.headers.get("content-type", ""))
        call = Call(body, request.query, principal, request.client)
        headers = (_JSON, ("cache-control", "public, max-age=3600")) if path == _JWKS else None
        return AuthResponse(200, _dump(handler(call)), headers or (_JSON, _PRIVATE))

    def _unknown(self, request: AuthRequest, path: str) -> AccountError:
        known = {known for _method, known in (*self._open, *self._admin)}
        if path in known:
            return AccountError("METHOD_NOT_ALLOWED", request.method[:20], status=405)
        if path.startswith(_TOOLKIT):
            return AccountError(
                "OPERATION_NOT_ALLOWED", "This server does not support this method."
            )
        return AccountError("NOT_FOUND", request.path[:200], status=404)

    def _administrator(self, request: AuthRequest) -> Principal:
        headers = [(b"authorization", request.headers.get("authorization", "").encode())]
        principal = self._auth.authenticate_sync(headers, request.query, request.client)
        if principal.admin:
            return principal
        target = request.path[:200]
        self._auth.audit.refused(principal, "accounts", target, True, request.client)
        if principal.uid is None:
            raise AccountError(
                "UNAUTHENTICATED", "The request needs an admin credential.", status=401
            )
        raise Denied("this", "an admin's credential")


def _open_routes(
    accounts: Accounts, codes: CodeAccounts, auth: AuthServer
) -> dict[tuple[str, str], Handler]:
    toolkit = f"{_TOOLKIT}/v1/accounts:"
    project = auth.settings.project

    def config(_call: Call) -> dict[str, Any]:
        return {"projectId": project, "authorizedDomains": ["localhost", "127.0.0.1"]}

    def refresh(call: Call) -> dict[str, Any]:
        return {**accounts.refresh(call), "project_id": project}

    return {
        ("POST", f"{toolkit}signUp"): accounts.sign_up,
        ("POST", f"{toolkit}signInWithPassword"): accounts.sign_in_with_password,
        ("POST", f"{toolkit}signInWithCustomToken"): accounts.sign_in_with_custom_token,
        ("POST", f"{toolkit}lookup"): accounts.lookup,
        ("POST", f"{toolkit}update"): codes.update,
        ("POST", f"{toolkit}delete"): accounts.delete,
        ("POST", f"{toolkit}sendOobCode"): codes.send,
        ("POST", f"{toolkit}resetPassword"): codes.reset,
        ("POST", f"{toolkit}signInWithEmailLink"): codes.sign_in,
        ("POST", f"{toolkit}createAuthUri"): accounts.create_auth_uri,
        ("GET", f"{_TOOLKIT}/v1/projects"): config,
        ("GET", f"{_TOOLKIT}/v1/recaptchaParams"): lambda _call: {},
        ("GET", f"{_TOOLKIT}/v2/recaptchaConfig"): lambda _call: {"recaptchaEnforcementState": []},
        ("GET", f"{_TOOLKIT}/v2/passwordPolicy"): lambda _call: _password_policy(),
        ("POST", f"{_SECURE_TOKEN}/v1/token"): refresh,
        ("GET", _JWKS): lambda _call: auth.signing.jwks(),
    }


def _admin_routes(
    admins: AdminAccounts, codes: CodeAccounts, acts: Administration
) -> dict[tuple[str, str], Handler]:
    toolkit = f"{_TOOLKIT}/v1"
    return {
        ("POST", f"{toolkit}/accounts"): admins.create,
        ("POST", f"{toolkit}/accounts:lookup"): admins.lookup,
        ("POST", f"{toolkit}/accounts:update"): admins.update,
        ("POST", f"{toolkit}/accounts:delete"): admins.delete,
        ("GET", f"{toolkit}/accounts:batchGet"): admins.page,
        ("POST", f"{toolkit}/accounts:batchDelete"): admins.delete_batch,
        ("POST", f"{toolkit}/accounts:batchCreate"): admins.create_batch,
        ("POST", f"{toolkit}/accounts:sendOobCode"): codes.make,
        ("POST", f"{toolkit}:createSessionCookie"): admins.session_cookie,
        ("POST", "/auth/token"): acts.token,
        ("POST", "/auth/revoke"): acts.revoke,
        ("GET", "/auth/keys"): acts.keys,
        ("POST", "/auth/keys"): acts.create_key,
        ("POST", "/auth/keys/revoke"): acts.revoke_key,
        ("POST", "/auth/signing/rotate"): acts.rotate,
    }


def _password_policy() -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "customStrengthOptions": {
            "minPasswordLength": PASSWORD_MIN,
            "maxPasswordLength": PASSWORD_MAX,
        },
        "allowedNonAlphanumericCharacters": [],
        "enforcementState": "OFF",
        "forceUpgradeOnSignin": False,
    }


def _error(status: int, reason: str, text: str, path: str) -> AuthResponse:
    # Elkyn's own endpoints; all others answer errors in the format of the Identity Toolkit, whose
    # `message` begins with the code that SDKs look for.
    if path.startswith("/auth/"):
        return AuthResponse(status, _dump({"error": text, "code": reason}))
    message = text if text.startswith(reason) else f"{reason} : {text}"
    detail = {"message": message, "domain": "global", "reason": "invalid"}
    error = {"code": status, "message": message, "errors": [detail]}
    if status in _STATUS_NAMES:
        error["status"] = _STATUS_NAMES[status]
    return AuthResponse(status, _dump({"error": error}))


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
