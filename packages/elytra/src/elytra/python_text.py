"""Methods and slices of `str` on traced values, where the engine has the same semantics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from elytra.python_values import WHITESPACE, Term, Value
from emsqrt.expr import any_of
from emsqrt.expr.nodes import call


def _strip(fn: str) -> Callable[[Term], Any]:
    def bound(text: Term) -> Any:
        def strip(chars: str | None = None, /) -> Value:
            return text.trace.value(call(fn, text.expr, _constant(text, chars or WHITESPACE)))

        return strip

    return bound


def _affix(fn: str, name: str) -> Callable[[Term], Any]:
    def bound(text: Term) -> Any:
        def test(affix: str | tuple[str, ...], /) -> Value:
            parts = affix if isinstance(affix, tuple) else (affix,)
            tests = [call(fn, text.expr, _constant(text, part, name)) for part in parts]
            return text.trace.value(any_of(*tests))

        return test

    return bound


def _replace(text: Term) -> Any:
    def replace(old: str, new: str, /) -> Value:
        # Python inserts `new` around every character.
        if old == "":
            raise text.trace.refuse('.replace("", ...) is not traced')
        return text.trace.value(
            call("replace", text.expr, _constant(text, old), _constant(text, new))
        )

    return replace


def _find(text: Term) -> Any:
    def find(part: str, /) -> Value:
        if part == "":
            raise text.trace.refuse('.find("") is not traced')
        # `strpos` counts from 1 and returns 0 for "not found"; `str.find` counts from 0 and returns
        # -1.
        return text.trace.value(call("strpos", text.expr, _constant(text, part)) - 1)

    return find


def _constant(text: Term, argument: object, name: str = "this method") -> str:
    if not isinstance(argument, str):
        raise text.trace.refuse(f"{name} of {text.text} requires a constant str in a lambda")
    return argument


METHODS: dict[str, Callable[[Term], Any]] = {
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


def piece(text: Term, key: object) -> Value:
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
            return text.trace.value(call("right", text.expr, -first))
        return text.trace.value(call("substr", text.expr, first + 1))
    if first >= 0 and stop >= 0:
        return text.trace.value(call("substr", text.expr, first + 1, max(stop - first, 0)))
    if first == 0:
        return text.trace.value(call("left", text.expr, stop))
    raise text.trace.refuse(
        f"{text.text}[{start}:{stop}] is not traced: one bound counts from the end"
    )
