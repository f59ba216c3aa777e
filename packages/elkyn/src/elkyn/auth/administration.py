"""The admin API under `/auth/`: tokens for users, revocations, admin keys."""

from __future__ import annotations

from typing import Any

from elkyn.auth.account_store import AdminKey
from elkyn.auth.accounts import Call
from elkyn.auth.errors import AccountError
from elkyn.auth.revocations import Revoked
from elkyn.auth.services import AuthServer
from elkyn.auth.tokens import ID_TOKEN_SECONDS
from sennit_core.clock import Clock

__all__ = ["Administration"]

_EXPIRES_MAX = 10 * 365 * 24 * 3600


class Administration:
    """Handlers of the paths below `/auth/`; the audit log records every action. Thread-safe."""

    def __init__(self, auth: AuthServer, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock

    def token(self, call: Call) -> dict[str, Any]:
        """Sign a token for a user: `{uid, …claims}`, and `expiresSeconds` if not an hour."""
        uid = call.body.needed("uid", "MISSING_UID")
        seconds = call.body.seconds("expiresSeconds") or ID_TOKEN_SECONDS
        if seconds > _EXPIRES_MAX:
            raise AccountError("INVALID_DURATION", "A token is valid for ten years at most.")
        claims = call.body.rest("uid", "expiresSeconds")
        text = self._auth.sign(uid, claims, seconds)
        self._acted(call, "sign token", uid)
        return {"token": text, "expiresIn": str(seconds)}

    def revoke(self, call: Call) -> dict[str, Any]:
        """Revoke all tokens of `uid`, or a single `token`."""
        uid, token = call.body.text("uid"), call.body.text("token")
        if uid is not None:
            self._auth.revocations.revoke_user(uid)
            self._acted(call, "revoke user", uid)
        elif token is not None:
            principal = self._auth.authenticate_token_sync(token)
            self._auth.revocations.revoke_token(principal)
            self._acted(call, "revoke token", str(principal.uid))
        else:
            raise AccountError("MISSING_UID", "The request needs a uid or a token.")
        return {"revoked": True}

    def keys(self, _call: Call) -> dict[str, Any]:
        """List the admin keys, without their secrets."""
        return {"keys": [_key_json(key) for key in self._auth.admin_keys.list()]}

    def create_key(self, call: Call) -> dict[str, Any]:
        """Create an admin key; only this response contains its text."""
        name = call.body.needed("name", "MISSING_NAME")
        roles = call.body.texts("roles") or ["admin"]
        key, text = self._auth.admin_keys.create(name, roles)
        self._acted(call, "create admin key", key.id)
        return {**_key_json(key), "key": text}

    def revoke_key(self, call: Call) -> dict[str, Any]:
        """Revoke an admin key, by name or id."""
        key = self._auth.admin_keys.revoke(call.body.needed("name", "MISSING_NAME"))
        self._auth.revocations.notify(Revoked(key_id=key.id))
        self._acted(call, "revoke admin key", key.id)
        return {"revoked": True}

    def rotate(self, call: Call) -> dict[str, Any]:
        """Sign ID tokens with a new key from now on."""
        kid = self._auth.signing.rotate()
        self._acted(call, "rotate signing key", kid)
        return {"kid": kid}

    def _acted(self, call: Call, action: str, target: str) -> None:
        self._auth.audit.acted(call.principal, action, target, call.client)


def _key_json(key: AdminKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "roles": list(key.roles),
        "createdAt": key.created_ms,
        "revokedAt": key.revoked_ms or None,
    }
