"""`elkyn token|user|key`: the accounts of a served folder, also while a server has it open."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from elkyn.cli.command import Subparsers, add_command, read_json
from sennit_core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from elkyn.auth.account_store import User
    from elkyn.auth.authenticator import Authenticator

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the commands of this module."""
    token = _group(subparsers, "token", "sign tokens for users, and revoke them")
    sign = add_command(token, "sign", _sign, "print a token for a user")
    sign.add_argument("uid")
    sign.add_argument(
        "--claim", action="append", default=[], metavar="NAME=JSON", help="may be repeated"
    )
    sign.add_argument("--expires", type=int, default=3600, metavar="SECONDS", help="(3600)")
    revoke = add_command(token, "revoke", _revoke, "revoke all tokens of a user")
    revoke.add_argument("uid")
    _register_users(_group(subparsers, "user", "add, list, change and delete users"))
    key = _group(subparsers, "key", "create and revoke admin keys")
    add = add_command(
        key, "add", _add_key, "create an admin key and print it; it cannot be shown again"
    )
    add.add_argument("name")
    add.add_argument("--role", action="append", help="admin, reader, writer, worker (admin)")
    add_command(key, "list", _list_keys, "list the admin keys without their secrets")
    revoke = add_command(key, "revoke", _revoke_key, "revoke an admin key")
    revoke.add_argument("name", help="name or id")


def _group(subparsers: Subparsers, name: str, help_text: str) -> Subparsers:
    parser = subparsers.add_parser(name, help=help_text, description=help_text)
    return parser.add_subparsers(required=True, metavar="VERB")


def _register_users(verbs: Subparsers) -> None:
    add = add_command(verbs, "add", _add_user, "add a user; prints the uid")
    add.add_argument("--email")
    add.add_argument("--uid", help="the user's id (random)")
    change = add_command(verbs, "change", _change_user, "change a user")
    change.add_argument("uid")
    change.add_argument("--email")
    state = change.add_mutually_exclusive_group()
    state.add_argument(
        "--disable", action="store_true", help="end the user's sessions and refuse sign-in"
    )
    state.add_argument("--enable", action="store_true", help="allow sign-in again")
    for verb in (add, change):
        verb.add_argument("--name", help="display name")
        verb.add_argument("--role", action="append", help="admin, reader, writer, worker")
        verb.add_argument(
            "--claims", metavar="JSON", help="custom claims, auth.token.<name> in rules"
        )
        verb.add_argument(
            "--password",
            action="store_true",
            help="prompt for a password (or read a line of input)",
        )
    add_command(verbs, "list", _list_users, "print the users, one JSON object per line")
    delete = add_command(verbs, "delete", _delete_users, "delete users")
    delete.add_argument("uid", nargs="+")
    add_command(
        verbs, "export", _export, "print users, sessions and admin keys, one JSON object per line"
    )
    imports = add_command(
        verbs, "import", _import, "add the users, sessions and admin keys of another server"
    )
    imports.add_argument(
        "source", help="the other server's data folder, an export file, or - for standard input"
    )


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Authenticator]:
    from elkyn.auth.authenticator import Authenticator, AuthSettings
    from elkyn.server.serve import ACCOUNTS_FOLDER

    if not options.data.is_dir():
        raise NotFound("folder", str(options.data), hint="elkyn serve creates it")
    with Authenticator(AuthSettings(), options.data / ACCOUNTS_FOLDER) as auth:
        yield auth


def _sign(options: argparse.Namespace) -> int:
    claims = {}
    for text in options.claim:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"{text!r} is not a claim", hint="use --claim NAME=JSON: --claim level=3"
            )
        claims[name] = read_json(value, None)
    with _opened(options) as auth:
        print(auth.sign(options.uid, claims, options.expires))
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        auth.revocations.revoke_user(options.uid)
    return 0


def _values(options: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    changed = (("email", options.email), ("display_name", options.name), ("roles", options.role))
    for field, value in changed:
        if value is not None:
            values[field] = tuple(value) if field == "roles" else value
    if options.claims is not None:
        claims = read_json(options.claims, None)
        if not isinstance(claims, dict):
            raise UsageError("claims must be a JSON object", hint="--claims '{\"level\": 3}'")
        values["claims"] = claims
    if options.password:
        values["password"] = _ask_password()
    return values


def _ask_password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("password: ")
    return sys.stdin.readline().rstrip("\n")


def _add_user(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        print(auth.users.create(options.uid, **_values(options)).uid)
    return 0


def _change_user(options: argparse.Namespace) -> int:
    values = _values(options)
    if options.disable or options.enable:
        values["disabled"] = options.disable
    with _opened(options) as auth:
        auth.users.update(options.uid, **values)
    return 0


def _list_users(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        after = ""
        while users := auth.users.list(after):
            for user in users:
                print(json.dumps(_user_json(user), ensure_ascii=False))
            after = users[-1].uid
    return 0


def _user_json(user: User) -> dict[str, Any]:
    return {
        "uid": user.uid,
        "email": user.email,
        "name": user.display_name,
        "roles": list(user.roles),
        "claims": json.loads(user.claims),
        "disabled": user.disabled,
    }


def _delete_users(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        missing = [uid for uid in options.uid if auth.users.get(uid) is None]
        if missing:
            raise NotFound("user", missing[0])
        auth.users.delete(options.uid)
    return 0


def _export(options: argparse.Namespace) -> int:
    from elkyn.auth.transfer import export_accounts

    with _opened(options) as auth:
        for line in export_accounts(auth.account_store):
            print(line)
    return 0


def _import(options: argparse.Namespace) -> int:
    from elkyn.auth.transfer import import_accounts

    with _lines_of(options.source) as lines, _opened(options) as auth:
        done = import_accounts(auth.account_store, lines)
        auth.revocations.notify()
    for skipped in done.skipped:
        print(f"skipped {skipped}", file=sys.stderr)
    counts = ", ".join(f"{done.counts.get(kind, 0)} {kind}s" for kind in ("user", "session", "key"))
    print(f"imported {counts}")
    return 1 if done.skipped else 0


@contextmanager
def _lines_of(source: str) -> Iterator[Iterable[str]]:
    """Open the source of an import of accounts."""
    from elkyn.auth.account_store import AccountStore
    from elkyn.auth.transfer import export_accounts
    from elkyn.server.serve import ACCOUNTS_FOLDER

    folder = FilePath(source)
    if source == "-":
        yield sys.stdin
    elif folder.is_dir():
        if not (folder / ACCOUNTS_FOLDER).is_dir():
            raise NotFound("accounts in the folder", source, hint="use the data folder of a server")
        with AccountStore(folder / ACCOUNTS_FOLDER) as account_store:
            yield export_accounts(account_store)
    else:
        try:
            opened = folder.open(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{source} cannot be read: {error.strerror}") from None
        with opened:
            yield opened


def _add_key(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        _key, text = auth.admin_keys.create(options.name, options.role or ["admin"])
        print(text)
    return 0


def _list_keys(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        for key in auth.admin_keys.list():
            state = "revoked" if key.revoked_ms else "good"
            print(f"{key.id}  {state:<7}  {','.join(key.roles):<12}  {key.name}")
    return 0


def _revoke_key(options: argparse.Namespace) -> int:
    with _opened(options) as auth:
        auth.admin_keys.revoke(options.name)
    return 0
