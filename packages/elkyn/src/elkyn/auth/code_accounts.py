"""The Identity Toolkit's methods for out-of-band codes sent by email."""

from __future__ import annotations

from typing import Any

from elkyn.auth.account_store import Code, User
from elkyn.auth.accounts import Accounts, Call, update_json
from elkyn.auth.body import Body
from elkyn.auth.codes import PURPOSES, Codes
from elkyn.auth.errors import AccountError
from elkyn.auth.services import AuthServices
from elkyn.auth.users import checked_email

__all__ = ["CodeAccounts"]

_KIND = "identitytoolkit#"


class CodeAccounts:
    """Sends codes and redeems them; thread-safe."""

    def __init__(self, services: AuthServices, accounts: Accounts, codes: Codes) -> None:
        self._users = services.users
        self._sessions = services.sessions
        self._audit = services.audit
        self._policy = services.policy
        self._accounts = accounts
        self._codes = codes

    def send(self, call: Call) -> dict[str, Any]:
        """Send a code; an unknown email is reported only where emails are not private."""
        code = self._code_for(call.body)
        self._codes.admit(code.new_email or code.email)
        answer = {"kind": f"{_KIND}GetOobConfirmationCodeResponse", "email": code.email}
        if code.uid or code.purpose == "EMAIL_SIGNIN":
            self._codes.send(code, _link_query(call))
        elif not self._users.email_privacy:
            raise AccountError("EMAIL_NOT_FOUND")
        return answer

    def make(self, call: Call) -> dict[str, Any]:
        """Create a code for an administrator, who sends it."""
        if not call.body.flag("returnOobLink"):
            return self.send(call)
        code = self._code_for(call.body)
        if not code.uid and code.purpose != "EMAIL_SIGNIN":
            raise AccountError("EMAIL_NOT_FOUND")
        message = self._codes.make(code, _link_query(call))
        self._audit.acted(call.principal, f"make code {code.purpose}", code.email, call.client)
        kind = f"{_KIND}GetOobConfirmationCodeResponse"
        made = {"oobCode": message.code, "oobLink": message.link}
        return {"kind": kind, "email": code.email, **made}

    def _code_for(self, body: Body) -> Code:
        purpose = body.needed("requestType", "MISSING_REQ_TYPE")
        if purpose not in PURPOSES:
            raise AccountError("INVALID_REQ_TYPE")
        user = self._user_of(body)
        email = (user and user.email) or body.text("email")
        if email is None:
            raise AccountError("MISSING_EMAIL")
        new_email = None
        if purpose == "VERIFY_AND_CHANGE_EMAIL":
            new_email = checked_email(body.needed("newEmail", "MISSING_NEW_EMAIL"))
        uid = user.uid if user else ""
        return Code(purpose, uid, checked_email(email), new_email)

    def _user_of(self, body: Body) -> User | None:
        token = body.text("idToken")
        if token is not None:
            return self._accounts.claims_of(token)[0]
        email = body.text("email")
        if email is None or body.text("requestType") == "VERIFY_AND_CHANGE_EMAIL":
            raise AccountError("INVALID_ID_TOKEN" if email else "MISSING_EMAIL")
        return self._users.named("email", email)

    def reset(self, call: Call) -> dict[str, Any]:
        """Return the purpose of a code, or set a new password with it."""
        text = call.body.needed("oobCode", "MISSING_OOB_CODE")
        password = call.body.text("newPassword")
        if password is None:
            code = self._codes.inspect(text)
        else:
            # Before the code is redeemed: a password that is refused must not use it up.
            password_hash = self._users.hashed(password)
            code = self._codes.redeem(text, "PASSWORD_RESET")
            self._users.update(code.uid, email_verified=True, **password_hash)
            self._audit.acted(None, "reset password", code.uid, call.client)
        answer = {"kind": f"{_KIND}ResetPasswordResponse", "requestType": code.purpose}
        answer["email"] = code.email
        return answer if code.new_email is None else {**answer, "newEmail": code.new_email}

    def update(self, call: Call) -> dict[str, Any]:
        """Update the signed-in user; or, with a code, mark the user's email as verified."""
        text = call.body.text("oobCode")
        if text is None:
            return self._accounts.update(call)
        code = self._codes.redeem(text, "VERIFY_EMAIL", "VERIFY_AND_CHANGE_EMAIL")
        user = self._users.get(code.uid)
        if user is None or user.email != code.email:
            raise AccountError("INVALID_OOB_CODE")
        email = code.new_email or code.email
        return update_json(self._users.update(code.uid, email=email, email_verified=True))

    def sign_in(self, call: Call) -> dict[str, Any]:
        """Sign in with a code sent to the email; creates the account if there is none."""
        code = self._codes.redeem(call.body.needed("oobCode", "MISSING_OOB_CODE"), "EMAIL_SIGNIN")
        email = checked_email(call.body.needed("email", "MISSING_EMAIL"))
        if email != code.email:
            raise AccountError("INVALID_EMAIL")
        user = self._users.named("email", email)
        is_new = user is None
        if user is None:
            if not self._policy.sign_up:
                raise AccountError("OPERATION_NOT_ALLOWED")
            user = self._users.create(email=email)
        elif user.password_hash and not user.email_verified:
            # The user who chose that password never proved that the email is theirs.
            self._users.update(user.uid, password_hash=None, password_ms=0)
        user = self._users.note_sign_in(user.uid, email_verified=True)
        opened = self._sessions.open(user, "password")
        kind = f"{_KIND}EmailLinkSigninResponse"
        return {
            "kind": kind,
            "localId": user.uid,
            "email": email,
            "isNewUser": is_new,
            **opened.to_json(),
        }

    def list_messages(self, _call: Call) -> dict[str, Any]:
        """List the latest codes of an emulator."""
        names = [
            {"requestType": m.purpose, "email": m.email, "oobCode": m.code, "oobLink": m.link}
            for m in self._codes.list_messages()
        ]
        return {"oobCodes": names}


def _link_query(call: Call) -> dict[str, str]:
    query = {"apiKey": call.query.get("key", "any")[:100], "lang": "en"}
    url = call.body.text("continueUrl")
    return query if url is None else {**query, "continueUrl": url[:2000]}
