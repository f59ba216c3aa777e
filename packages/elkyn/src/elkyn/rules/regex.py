r"""Regular expressions of rules: a subset of JavaScript's, matched in linear time.

The dialect is that of Firebase's rules: `^` only first and `$` only last, groups, `|`, sets,
`. * + ? {n} {n,} {n,m}`, `\d \w \s` and their negations, a backslash before a mark. It is parsed
here, so that nothing else is accepted, and translated to RE2's syntax.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from elkyn.rules.problems import ExpressionError
from sennit_core.errors import Unsupported
from sennit_core.extras import install_hint

__all__ = ["compile_regex", "translate"]

REPEAT_MAX = 1000
NESTING_MAX = 30
MEMORY_BYTES_MAX = 4 << 20
WEIGHT_MAX = 10_000
"""The maximum number of characters, sets and groups after expanding repetitions."""
_FOLDED_RANGE_MAX = 4096

_SPACES = (
    r"\t\n\v\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
)
_CLASSES = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": _SPACES,
    "D": r"\x00-/:-\x{10ffff}",
    "W": r"\x00-/:-@\[-^`{-\x{10ffff}",
    "S": r"\x00-\x08\x0e-\x1f!-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}"
    r"\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}\x{ff00}-\x{10ffff}",
}
_ANY = r"[^\n\r\x{2028}\x{2029}]"
_REPEAT = re.compile(r"\*|\+|\?|\{([0-9]{1,9})(,([0-9]{1,9})?)?\}")


@lru_cache(maxsize=1024)
def compile_regex(pattern: str, flags: str) -> Any:
    """Compile `/pattern/flags`; the result has `search(text)`.

    Raises:
        ExpressionError: the pattern is outside the dialect; `at` counts from the pattern's start.
        Unsupported: no linear-time engine is installed.
    """
    if flags not in ("", "i"):
        raise ExpressionError(f"the only flag is i, not {flags[:20]!r}", len(pattern) + 1)
    translated = translate(pattern, fold=flags == "i")
    re2 = _engine()
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = MEMORY_BYTES_MAX
    try:
        return re2.compile(translated, options)
    except re2.error:
        raise ExpressionError("this regular expression is too large", 0) from None


def _engine() -> Any:
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:
        raise Unsupported(
            "matches() needs a regular expression engine of linear time, which is not installed",
            hint=install_hint("sennit-elkyn", "google-re2"),
        ) from None
    return re2


def translate(pattern: str, *, fold: bool = False) -> str:
    """Check `pattern` against the dialect and translate it to RE2's syntax.

    Args:
        pattern: the text between the slashes.
        fold: ignore case as JavaScript's flag `i` does: a letter outside ASCII never equals one
            inside.

    Raises:
        ExpressionError: a part is outside the dialect.
    """
    reader = _Reader(pattern, fold)
    start = reader.accept("^")
    if start and reader.at == len(pattern):
        return r"\A"
    middle = "" if pattern[reader.at :] == "$" and start else reader.union()
    end = pattern.startswith("$", reader.at) and reader.at == len(pattern) - 1
    if not end and reader.at < len(pattern):
        raise reader.unexpected()
    # `^a|b$` is `(^a)|(b$)`, as in JavaScript
    return (r"\A" if start else "") + middle + (r"\z" if end else "")


class _Reader:
    # `weight` counts the atoms that RE2 will compile, repetitions multiplied: it bounds the size of
    # the automaton before RE2 builds it.
    def __init__(self, pattern: str, fold: bool) -> None:
        self.pattern = pattern
        self.fold = fold
        self.at = 0
        self.nesting = 0
        self.weight = 0

    def accept(self, mark: str) -> bool:
        found = self.pattern.startswith(mark, self.at)
        self.at += found
        return found

    def unexpected(self) -> ExpressionError:
        mark = self.pattern[self.at]
        if mark in "^$":
            place = "first" if mark == "^" else "last"
            return ExpressionError(f"{mark} is only allowed {place} in the expression", self.at)
        return ExpressionError(f"unexpected {mark!r} in a regular expression", self.at)

    def union(self) -> str:
        branches = [self.branch()]
        while self.accept("|"):
            branches.append(self.branch())
        return "|".join(branches)

    def branch(self) -> str:
        parts: list[str] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)$":
            parts.append(self.piece())
        if not parts:
            raise ExpressionError("an empty branch in a regular expression", self.at)
        return "".join(parts)

    def piece(self) -> str:
        start, weight = self.at, self.weight
        if self.pattern[start] in "*+?{^":
            raise self.unexpected()
        atom = self.atom()
        self.weight += 1
        found = _REPEAT.match(self.pattern, self.at)
        if found is None:
            return atom
        least, comma, most = found.groups()
        if max(int(least or 0), int(most or 0)) > REPEAT_MAX:
            raise ExpressionError(f"more than {REPEAT_MAX} repetitions", self.at)
        if least and comma and most and int(least) > int(most):
            raise ExpressionError("the minimum number of repetitions exceeds the maximum", self.at)
        self.weight = weight + (self.weight - weight) * max(1, int(least or 0), int(most or 0))
        if self.weight > WEIGHT_MAX:
            raise ExpressionError("this regular expression is too large", start)
        self.at = found.end()
        if self.at < len(self.pattern) and self.pattern[self.at] in "*+?{":
            raise ExpressionError("a repetition cannot be repeated, nor be lazy", self.at)
        return atom + found.group()

    def atom(self) -> str:
        mark = self.pattern[self.at]
        self.at += 1
        if mark == "(":
            return self.group()
        if mark == "[":
            return self.set()
        if mark == ".":
            return _ANY
        if mark == "\\":
            name, character = self.escape()
            return f"[{_CLASSES[name]}]" if name else self.character(character)
        return self.character(mark)

    def character(self, character: str) -> str:
        # Cases are written out, because RE2's own flag would also match letters of another
        # alphabet.
        cases = _cases(character) if self.fold else {character}
        return f"[{''.join(map(_in_set, sorted(cases)))}]" if len(cases) > 1 else _in_set(character)

    def group(self) -> str:
        at = self.at - 1
        self.nesting += 1
        if self.nesting > NESTING_MAX:
            raise ExpressionError(f"groups nested more than {NESTING_MAX} levels deep", at)
        if self.pattern.startswith("?", self.at):
            raise ExpressionError("only plain groups are supported, none that begin with (?", at)
        inner = self.union()
        if self.pattern.startswith("$", self.at):
            raise self.unexpected()
        if not self.accept(")"):
            raise ExpressionError("unterminated group", at)
        self.nesting -= 1
        return f"(?:{inner})"

    def escape(self) -> tuple[str, str]:
        """Read the part after a backslash: the name of a class, or a character."""
        if self.at == len(self.pattern):
            raise ExpressionError("a backslash at the end of the expression", self.at - 1)
        mark = self.pattern[self.at]
        self.at += 1
        if mark in _CLASSES:
            return mark, ""
        if mark.isalnum():
            raise ExpressionError(f"unknown escape \\{mark} in a regular expression", self.at - 2)
        return "", mark

    def set(self) -> str:
        at = self.at - 1
        negated = self.accept("^")
        items: list[str] = []
        while not self.accept("]"):
            if self.at == len(self.pattern):
                raise ExpressionError("unterminated set", at)
            items.append(self.set_item())
        if not items:
            raise ExpressionError("an empty set in a regular expression", at)
        return f"[{'^' if negated else ''}{''.join(items)}]"

    def set_item(self) -> str:
        at = self.at
        name, first = self.set_character()
        if name:
            return _CLASSES[name]
        rest = self.pattern[self.at : self.at + 2]
        if len(rest) < 2 or rest[0] != "-" or rest[1] == "]":
            return self.range(first, first)
        self.at += 1
        name, last = self.set_character()
        if name:
            raise ExpressionError("a range must end with a character, not with a class", at)
        if first > last:
            raise ExpressionError("the range is out of order", at)
        return self.range(first, last)

    def range(self, first: str, last: str) -> str:
        shown = f"{_in_set(first)}-{_in_set(last)}"
        codes = range(ord(first), min(ord(last), ord(first) + _FOLDED_RANGE_MAX) + 1)
        if not self.fold:
            return shown
        others = {case for code in codes for case in _cases(chr(code)) if not first <= case <= last}
        return shown + "".join(map(_in_set, sorted(others)))

    def set_character(self) -> tuple[str, str]:
        mark = self.pattern[self.at]
        self.at += 1
        return self.escape() if mark == "\\" else ("", mark)


def _cases(character: str) -> set[str]:
    """Return both cases of `character`, if the other case is one character of the same alphabet."""
    cases = {character, character.lower(), character.upper()}
    return {case for case in cases if len(case) == 1 and case.isascii() == character.isascii()}


def _in_set(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"
