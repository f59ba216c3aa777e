"""Text helpers: nearest known name, short lists, camelCase names, text that is safe to print."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["camel_case", "escape_controls", "nearest", "shorten_list"]


def camel_case(name: str) -> str:
    """Return the wire name of a Python name: `byte_start` is `byteStart`."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def escape_controls(text: str) -> str:
    """Return `text` on one line, with escapes for every character that is not printable.

    Control characters would move a terminal's cursor or change its state. Backslashes are not
    escaped, so the result is for display and cannot be decoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, or None when no name is close.

    A difference in upper and lower case alone always counts as close.
    """
    from difflib import get_close_matches

    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = name.casefold()
    if folded in by_folded:
        return by_folded[folded]
    close = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def shorten_list(names: Iterable[str], limit: int = 8) -> str:
    """Join `names` with commas, naming at most `limit` of them and counting the rest."""
    listed = list(names)
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
