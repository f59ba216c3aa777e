"""The Identity Toolkit's methods for administrators: `/v1/projects/{project}/accounts…`."""

from __future__ import annotations

import base64
from typing import Any

from elkyn.auth.account_store import User
from elkyn.auth.accounts import Accounts, Call, profile_changes, update_json, user_json
from elkyn.auth.body import Body
from elkyn.auth.errors import AccountError
from elkyn.auth.services import AuthServices

__all__ = ["AdminAccounts"]

_KIND = "identitytoolkit#"
_PAGE_MAX = 1000
_COOKIE_SECONDS = (300, 14 * 24 * 3600)


class AdminAccounts:
    """User management for administrators; the audit log records every change. Thread-safe."""

    def __init__(self, services: AuthServices, accounts: Accounts) -> None:
        self._users = services.users
        self._sessions = services.sessions
        self._audit = services.audit
        self._accounts = accounts

    def create(self, call: Call) -> dict[str, Any]:
        """Create a user."""
        values = _changes(call.body)
        user = self._users.create(call.body.text("localId"), **values)
        self._acted(call, "create user", user.uid)
        return {**update_json(user), "kind": f"{_KIND}SignupNewUserResponse"}

    def lookup(self, call: Call) -> dict[str, Any]:
        """Return users by uid, email and phone number, or the user of an ID token."""
        body = call.body
        if "idToken" in body:
            return self._accounts.lookup(call)
        found: dict[str, User] = {}
        asked = [("uid", name) for name in body.texts("localId")]
        asked += [("email", name) for name in body.texts("email")]
        asked += [("phone", name) for name in body.texts("phoneNumber")]
        for kind, name in asked:
            user = self._users.get(name) if kind == "uid" else self._users.named(kind, name)
            if user is not None:
                found[user.uid] = user
        answer: dict[str, Any] = {"kind": f"{_KIND}GetAccountInfoResponse"}
        if found:
            answer["users"] = [user_json(user) for user in found.values()]
        return answer

    def update(self, call: Call) -> dict[str, Any]:
        """Change a user."""
        uid = call.body.text("localId")
        if uid is None:
            return self._accounts.update(call)
        user = self._users.update(uid, **_changes(call.body))
        self._acted(call, "update user", uid)
        return update_json(user)

    def delete(self, call: Call) -> dict[str, Any]:
        """Delete a user."""
        uid = call.body.text("localId")
        if uid is None:
            return self._accounts.delete(call)
        if not self._users.delete([uid]):
            raise AccountError("USER_NOT_FOUND")
        self._acted(call, "delete user", uid)
        return {"kind": f"{_KIND}DeleteAccountResponse"}

    def page(self, call: Call) -> dict[str, Any]:
        """List users by uid."""
        text = call.query.get("maxResults", "20")
        if not (text.isascii() and text.isdecimal() and len(text) < 9):
            raise AccountError("INVALID_PAGE_SELECTION")
        limit = min(max(int(text), 1), _PAGE_MAX)
        users = self._users.list(_from_page_token(call.query.get("nextPageToken", "")), limit + 1)
        answer: dict[str, Any] = {"kind": f"{_KIND}DownloadAccountResponse"}
        if users:
            answer["users"] = [user_json(user) for user in users[:limit]]
        if len(users) > limit:
            last = users[limit - 1].uid
            answer["nextPageToken"] = base64.urlsafe_b64encode(last.encode()).decode()
        return answer

    def delete_batch(self, call: Call) -> dict[str, Any]:
        """Delete users; without `force`, only disabled ones."""
        uids, errors = [], []
        for index, uid in enumerate(call.body.texts("localIds")):
            user = self._users.get(uid)
            if user is not None and not call.body.flag("force") and not user.disabled:
                text = "NOT_DISABLED : Disable the account before batch deletion."
                errors.append({"index": index, "localId": uid, "message": text})
            else:
                uids.append(uid)
        self._users.delete(uids)
        for uid in uids:
            self._acted(call, "delete user", uid)
        return {"errors": errors} if errors else {}

    def create_batch(self, call: Call) -> dict[str, Any]:
        """Import users; hashes of passwords of other systems are refused."""
        errors = []
        for index, entry in enumerate(call.body.objects("users")):
            try:
                self._import(entry)
            except AccountError as error:
                errors.append({"index": index, "message": str(error)})
            else:
                self._acted(call, "import user", entry.text("localId") or "")
        answer: dict[str, Any] = {"kind": f"{_KIND}UploadAccountResponse"}
        return {**answer, "error": errors} if errors else answer

    def _import(self, entry: Body) -> None:
        uid = entry.needed("localId", "MISSING_LOCAL_ID")
        if "passwordHash" in entry:
            raise AccountError("INVALID_HASH_ALGORITHM", "Import users without their passwords.")
        values = _changes(entry)
        if self._users.get(uid) is None:
            self._users.create(uid, **values)
        else:
            self._users.update(uid, **values)

    def session_cookie(self, call: Call) -> dict[str, Any]:
        """Create a session cookie from an ID token."""
        seconds = call.body.seconds("validDuration") or _COOKIE_SECONDS[1]
        if not _COOKIE_SECONDS[0] <= seconds <= _COOKIE_SECONDS[1]:
            raise AccountError("INVALID_DURATION")
        _user, claims = self._accounts.claims_of(call.body.needed("idToken", "MISSING_ID_TOKEN"))
        return {"sessionCookie": self._sessions.cookie(claims, seconds)}

    def delete_all(self, call: Call) -> dict[str, Any]:
        """Delete all users; only emulators have a path for this."""
        while users := self._users.list():
            self._users.delete([user.uid for user in users])
        self._acted(call, "delete all users", "")
        return {}

    def _acted(self, call: Call, action: str, uid: str) -> None:
        self._audit.acted(call.principal, action, uid, call.client)


def _changes(body: Body) -> dict[str, Any]:
    """Return all user fields that a body sets or deletes."""
    values = profile_changes(body)
    for name, field in (("email", "email"), ("phoneNumber", "phone"), ("password", "password")):
        if name in body:
            values[field] = body.text(name)
    for name, field in (
        ("emailVerified", "email_verified"),
        ("disableUser", "disabled"),
        ("disabled", "disabled"),
    ):
        flag = body.flag(name)
        if flag is not None:
            values[field] = flag
    claims = body.json("customAttributes")
    if claims is not None:
        values["claims"] = claims
    valid_since = body.seconds("validSince")
    if valid_since is not None:
        values["valid_since"] = valid_since
    if "roles" in body:
        values["roles"] = tuple(body.texts("roles"))
    return values


def _from_page_token(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text).decode()
    except ValueError:
        raise AccountError("INVALID_PAGE_SELECTION") from None
