"""How a server knows its users, from code or from a file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path as FilePath
from typing import Any

from elkyn.auth.codes import Deliver
from elkyn.auth.jwks import Issuer
from sennit_core.errors import UsageError, nearest

__all__ = ["AuthSettings"]

_KINDS: dict[str, type] = {
    "project": str,
    "action_url": str,
    "sign_up": bool,
    "anonymous": bool,
    "email_privacy": bool,
    "recent_seconds": int,
    "sign_ups_max": int,
}
_KNOWN = (*_KINDS, "secret_file", "issuers", "signers")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How a server knows its users.

    Args:
        emulator: take unsigned tokens and the word `owner`; for one's own machine alone.
        project: the audience of ID tokens; what `projectId` is in an app's configuration.
        secret: verifies HS256 tokens that others sign; shown itself, it is an admin's credential.
        admin_token: an admin's credential.
        issuers: others whose tokens are taken.
        signers: others whose custom tokens may be exchanged for ID tokens.
        email_privacy: answer alike whether an email or a password is wrong; None: not in an
            emulator, where apps are developed.
        sign_up: whether anybody may make an account with email and password.
        anonymous: whether anybody may sign in without one.
        sign_ups_max: how many accounts one address may make before it has to wait: half of them
            are forgotten with each hour. None, and an emulator: no bound.
        action_url: the page of the app that links in messages point to, with `mode` and `oobCode`.
        deliver: sends messages with codes (a forgotten password, an email to verify); None sends
            none.
        recent_seconds: how long after signing in a user may change email and password or delete
            the account; None for ever.
    """

    emulator: bool = False
    project: str = "elkyn"
    secret: str | None = None
    admin_token: str | None = None
    issuers: tuple[Issuer, ...] = ()
    signers: tuple[Issuer, ...] = ()
    email_privacy: bool | None = None
    sign_up: bool = True
    anonymous: bool = True
    sign_ups_max: int | None = 500
    action_url: str = "http://localhost:9000/action"
    deliver: Deliver | None = None
    recent_seconds: int | None = None

    @classmethod
    def read(cls, file: FilePath, **others: Any) -> AuthSettings:
        """Return the settings in a TOML file.

        Args:
            file: its members are named as the arguments here; `secret_file` names a file with the
                secret, relative to this one, and `[[issuers]]` and `[[signers]]` are tables with
                the members of `Issuer`, or `firebase = "project"`.
            others: settings that do not come from the file, and win.

        Raises:
            UsageError: the file is no TOML, or a member is unknown or of another type.
        """
        try:
            members = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from None
        found: dict[str, Any] = {}
        for name, value in members.items():
            if name in ("issuers", "signers"):
                found[name] = tuple(_issuer(entry, f"{file}: {name}") for entry in value)
            elif name == "secret_file":
                found["secret"] = _secret(file.parent / str(value))
            else:
                found[name] = _checked(name, value, str(file))
        return cls(**{**found, **others})

    @property
    def issuer(self) -> str:
        """The issuer of this server's own ID tokens."""
        return f"https://securetoken.google.com/{self.project}"


def _checked(name: str, value: Any, where: str) -> Any:
    kind = _KINDS.get(name)
    if kind is None:
        suggestion = nearest(name, _KNOWN)
        hint = f"did you mean {suggestion!r}?" if suggestion else f"known: {', '.join(_KNOWN)}"
        raise UsageError(f"{where}: {name!r} is no setting", hint=hint)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where}: {name} takes a {kind.__name__}")
    return value


def _issuer(entry: Any, where: str) -> Issuer:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is a list of tables")
    members = dict(entry)
    if "firebase" in members:
        return Issuer.firebase(str(members["firebase"]))
    names = {field.name for field in fields(Issuer)}
    unknown = sorted(members.keys() - names)
    if unknown:
        raise UsageError(f"{where}: {unknown[0]!r} is no member of an issuer")
    audience = members.get("audience", ())
    members["audience"] = (audience,) if isinstance(audience, str) else tuple(audience)
    if "algorithms" in members:
        members["algorithms"] = tuple(members["algorithms"])
    try:
        issuer = Issuer(**members)
    except TypeError:
        raise UsageError(f"{where}: an issuer needs issuer, audience and jwks") from None
    issuer.trust()
    return issuer


def _secret(file: FilePath) -> str:
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"the secret in {file} cannot be read: {error}") from None
    if not secret:
        raise UsageError(f"{file} is empty; it should hold a secret")
    return secret
