"""Authentication settings, from code or from a file."""

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
    """Authentication settings of a server.

    Args:
        emulator: accept unsigned tokens and the word `owner`; only for a developer's own machine.
        project: the audience of ID tokens; the `projectId` in an app's configuration.
        secret: verifies HS256 tokens signed by others; the secret itself is an admin credential.
        admin_token: an admin credential.
        issuers: other trusted issuers of tokens.
        signers: other issuers whose custom tokens may be exchanged for ID tokens.
        email_privacy: return the same error for a wrong email and a wrong password; None: yes,
            except in an emulator, where apps are developed.
        sign_up: whether any client may create an account with email and password.
        anonymous: whether any client may sign in anonymously.
        sign_ups_max: how many accounts one address may create before it has to wait; the count
            halves every hour. None, or an emulator: no limit.
        action_url: the app's page for links in messages, with `mode` and `oobCode`.
        deliver: sends messages with codes (to reset a password, to verify an email); None: no
            messages are sent.
        recent_seconds: how long after sign-in a user may change email and password or delete
            the account; None: always.
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
            file: its members have the names of the arguments here; `secret_file` is a file with the
                secret, relative to this one, and `[[issuers]]` and `[[signers]]` are tables with
                the members of `Issuer`, or `firebase = "project"`.
            others: settings that override those of the file.

        Raises:
            UsageError: the file is not TOML, or a member is unknown or of the wrong type.
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
        raise UsageError(f"{where}: unknown setting {name!r}", hint=hint)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where}: {name} must be a {kind.__name__}")
    return value


def _issuer(entry: Any, where: str) -> Issuer:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} must be a list of tables")
    members = dict(entry)
    if "firebase" in members:
        return Issuer.firebase(str(members["firebase"]))
    names = {field.name for field in fields(Issuer)}
    unknown = sorted(members.keys() - names)
    if unknown:
        raise UsageError(f"{where}: unknown member {unknown[0]!r} of an issuer")
    audience = members.get("audience", ())
    members["audience"] = (audience,) if isinstance(audience, str) else tuple(audience)
    if "algorithms" in members:
        members["algorithms"] = tuple(members["algorithms"])
    try:
        issuer = Issuer(**members)
    except TypeError:
        raise UsageError(f"{where}: an issuer needs issuer, audience and jwks") from None
    # Made once for its checks: a mistake is found when the file is read, not at the first token.
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
