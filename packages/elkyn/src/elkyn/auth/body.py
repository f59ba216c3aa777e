"""Typed access to the members of a request's body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from elkyn.auth.errors import AccountError

__all__ = ["BODY_BYTES_MAX", "Body"]

BODY_BYTES_MAX = 1024 * 1024
_TEXT_CHARACTERS_MAX = 64 * 1024
_LIST_MAX = 1000


class Body:
    """The JSON object or form of a request.

    Args:
        members: the parsed members.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    @classmethod
    def parse(cls, data: bytes, content_type: str = "") -> Body:
        """Read JSON, or a form; an empty body is an empty object.

        A body that begins with a brace is JSON regardless of its content type: `curl -d '{…}'` sends
        the content type of a form, and no form begins with a brace, which would be percent-encoded.

        Raises:
            AccountError: the body is neither, or too large.
        """
        if len(data) > BODY_BYTES_MAX:
            raise AccountError("INVALID_ARGUMENT", "The request is too large.", status=413)
        if not data.strip():
            return cls({})
        try:
            kind = content_type.partition(";")[0].strip().lower()
            if kind == "application/x-www-form-urlencoded" and not data.lstrip().startswith(b"{"):
                pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=64)
                return cls(dict(pairs))
            members = json.loads(data)
        except (ValueError, RecursionError):
            raise AccountError("INVALID_ARGUMENT", "Invalid JSON payload received.") from None
        if not isinstance(members, dict):
            raise AccountError("INVALID_ARGUMENT", "The body must be an object.")
        return cls(members)

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def text(self, name: str) -> str | None:
        """Return a text; an empty one counts as missing."""
        value = self._members.get(name)
        if value is None or value == "":
            return None
        return _text(name, value)

    def needed(self, name: str, reason: str) -> str:
        """Return a required text; `reason` is the error code when it is missing."""
        value = self.text(name)
        if value is None:
            raise AccountError(reason)
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, bool):
            raise _bad(name, "TYPE_BOOL")
        return value

    def seconds(self, name: str) -> int | None:
        """Return an integer, which may be sent as a text of digits."""
        value = self._members.get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
            value = int(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**12:
            raise _bad(name, "TYPE_INT64")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; a single text counts as a list of one."""
        value = self._members.get(name)
        if value is None:
            return []
        items = value if isinstance(value, list) else [value]
        if len(items) > _LIST_MAX:
            raise AccountError("INVALID_ARGUMENT", f"{name} has more than {_LIST_MAX} entries.")
        return [_text(name, item) for item in items]

    def objects(self, name: str) -> list[Body]:
        """Return a list of objects."""
        value = self._members.get(name)
        items = [] if value is None else value
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise _bad(name, "TYPE_MESSAGE")
        if len(items) > _LIST_MAX:
            raise AccountError("INVALID_ARGUMENT", f"{name} has more than {_LIST_MAX} entries.")
        return [Body(item) for item in items]

    def json(self, name: str) -> dict[str, Any] | None:
        """Return an object that is sent as a JSON text."""
        value = self._members.get(name)
        if value is None:
            return None
        try:
            members = json.loads(_text(name, value) or "{}")
        except (ValueError, RecursionError):
            raise AccountError("INVALID_CLAIMS") from None
        if not isinstance(members, dict):
            raise AccountError("INVALID_CLAIMS")
        return members

    def rest(self, *known: str) -> dict[str, Any]:
        """Return all other members."""
        return {name: value for name, value in self._members.items() if name not in known}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(name, "TYPE_STRING")
    if len(value) > _TEXT_CHARACTERS_MAX:
        raise AccountError("INVALID_ARGUMENT", f"{name} is too long.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(name, "TYPE_STRING") from None
    return value


def _bad(name: str, kind: str) -> AccountError:
    return AccountError("INVALID_ARGUMENT", f"Invalid value at '{name}' ({kind})")
