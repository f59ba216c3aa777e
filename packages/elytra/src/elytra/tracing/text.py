"""Methods and slices of `str` on traced values, where the engine has the same semantics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from elytra.tracing.terms import Term
from emsqrt.expr import any_of
from emsqrt.expr.nodes import call

_WHITESPACE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
"""The characters that `str.strip()` removes."""

Method: TypeAlias = Callable[[Term], Callable[..., Term]]
"""`method(text)` is called with the method's arguments in Python, and returns the result's term."""


def _strip(fn: str) -> Method:
    def bound(text: Term) -> Callable[..., Term]:
        def strip(chars: str | None = None, /) -> Term:
            return text.trace.term(call(fn, text.expr, _constant(text, chars or _WHITESPACE)))

        return strip

    return bound


def _affix(fn: str, name: str) -> Method:
    def bound(text: Term) -> Callable[..., Term]:
        def test(affix: str | tuple[str, ...], /) -> Term:
            parts = affix if isinstance(affix, tuple) else (affix,)
            tests = [call(fn, text.expr, _constant(text, part, name)) for part in parts]
            return text.trace.term(any_of(*tests))

        return test

    return bound


def _replace(text: Term) -> Callable[..., Term]:
    def replace(old: str, new: str, /) -> Term:
        # Python inserts `new` around every character.
        if old == "":
            raise text.trace.refuse('.replace("", ...) is not traced')
        return text.trace.term(
            call("replace", text.expr, _constant(text, old), _constant(text, new))
        )

    return replace


def _find(text: Term) -> Callable[..., Term]:
    def find(part: str, /) -> Term:
        if part == "":
            raise text.trace.refuse('.find("") is not traced')
        # `strpos` counts from 1 and returns 0 for "not found"; `str.find` counts from 0 and returns
        # -1.
        return text.trace.term(call("strpos", text.expr, _constant(text, part)) - 1)

    return find


def _constant(text: Term, argument: object, name: str = "this method") -> str:
    if not isinstance(argument, str):
        raise text.trace.refuse(f"{name} of {text.text} requires a constant str in a lambda")
    return argument


METHODS: dict[str, Method] = {
    # Only methods with the same result for every text. `upper` and `lower` are not among them: they
    # differ for characters such as ß.
    "strip": _strip("trim"),
    "lstrip": _strip("ltrim"),
    "rstrip": _strip("rtrim"),
    "startswith": _affix("starts_with", ".startswith()"),
    "endswith": _affix("ends_with", ".endswith()"),
    "replace": _replace,
    "find": _find,
}


def piece(text: Term, key: object) -> Term:
    """Return a slice with constant bounds: `s[:3]`, `s[1:4]`, `s[2:]`, `s[-3:]`, `s[:-1]`."""
    if not isinstance(key, slice) or key.step not in (None, 1):
        raise text.trace.refuse(
            f"{text.text}[...] is traced for slices of constant bounds only",
            "s[1:2] in place of s[1], which is an error in Python where s is shorter",
        )
    start, stop = key.start, key.stop
    # `type`, because True would be accepted as 1.
    if not all(bound is None or type(bound) is int for bound in (start, stop)):
        raise text.trace.refuse(f"{text.text}[...] is traced for constant bounds only")
    first = start or 0
    # `substr` counts from 1. Bounds beyond the text are no error in either language.
    if stop is None:
        if first < 0:
            return text.trace.term(call("right", text.expr, -first))
        return text.trace.term(call("substr", text.expr, first + 1))
    if first >= 0 and stop >= 0:
        return text.trace.term(call("substr", text.expr, first + 1, max(stop - first, 0)))
    if first == 0:
        return text.trace.term(call("left", text.expr, stop))
    raise text.trace.refuse(
        f"{text.text}[{start}:{stop}] is not traced: one bound counts from the end"
    )
