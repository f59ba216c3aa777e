"""Run-time semantics of operators and string methods.

Values are those of JavaScript without its implicit conversions: an operation on unsuitable types
fails, and a rule that fails is false as a whole.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from elkyn.tree.values import STRING_BYTES_MAX

__all__ = [
    "Failed",
    "arithmetic",
    "equal",
    "named",
    "negative",
    "number_text",
    "ordered",
    "text_method",
    "utf16_length",
]


class Failed(Exception):
    """The evaluation of a rule failed: the rule is false."""


def named(value: Any) -> str:
    """Name the type of `value` in a message."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "a boolean"
    if type(value) is str:
        return "a string"
    return "a number" if type(value) in (int, float) else "an object"


def equal(left: Any, right: Any) -> bool:
    """`===`: numbers compare by value; values of different types are never equal."""
    # In Python True equals 1; in rules it does not.
    if type(left) is not type(right) and (type(left) is bool or type(right) is bool):
        return False
    return bool(left == right)


def ordered(operator: str, left: Any, right: Any) -> bool:
    """`<`, `<=`, `>`, `>=` on two numbers or two strings."""
    if type(left) is str and type(right) is str:
        # JavaScript compares UTF-16 units, Python code points. They differ only if both texts have
        # characters outside of ASCII.
        if not (left.isascii() or right.isascii()):
            left, right = left.encode("utf-16-be"), right.encode("utf-16-be")
    elif not (_is_number(left) and _is_number(right)):
        raise Failed(f"{operator} between {named(left)} and {named(right)}")
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    return bool(left > right) if operator == ">" else bool(left >= right)


def arithmetic(operator: str, left: Any, right: Any) -> Any:
    """`+ - * / %` on numbers; `+` also joins strings, and a number with a string as text."""
    if operator == "+" and (type(left) is str or type(right) is str):
        return _joined(left, right)
    if not (_is_number(left) and _is_number(right)):
        raise Failed(f"{operator} between {named(left)} and {named(right)}")
    if operator == "+":
        return _bounded(left + right)
    if operator == "-":
        return _bounded(left - right)
    if operator == "*":
        return _bounded(left * right)
    # A division by zero is Infinity in JavaScript; here it is NaN, as the remainder is.
    if right == 0:
        return math.nan
    return left / right if operator == "/" else _remainder(left, right)


def negative(value: Any) -> Any:
    """`-value`."""
    if not _is_number(value):
        raise Failed(f"- before {named(value)}")
    return -value


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _bounded(number: Any) -> Any:
    # Python's integers have no limit: beyond 64 bits a result is a double, as all numbers of
    # JavaScript are.
    return number if -(2**64) <= number <= 2**64 else float(number)


def _remainder(left: Any, right: Any) -> Any:
    if type(left) is int and type(right) is int:
        rest = abs(left) % abs(right)
        return -rest if left < 0 else rest
    return math.nan if math.isinf(left) else math.fmod(left, right)


def _joined(left: Any, right: Any) -> str:
    parts: list[str] = []
    for value in (left, right):
        if type(value) is not str and not _is_number(value):
            raise Failed(f"+ between {named(left)} and {named(right)}")
        parts.append(value if type(value) is str else number_text(value))
    if len(parts[0]) + len(parts[1]) > STRING_BYTES_MAX:
        raise Failed("the result of + is too long")
    return "".join(parts)


def number_text(number: float) -> str:
    """Write `number` as JavaScript does."""
    number = float(number)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "-Infinity" if number < 0 else "Infinity"
    if number == 0:
        return "0"
    # The range in which JavaScript writes numbers without an exponent (ECMA-262, Number::toString).
    if 1e-6 <= abs(number) < 1e21:
        return f"{Decimal(repr(number)):f}".removesuffix(".0")
    digits, _, exponent = repr(number).partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent):+d}"


def utf16_length(text: str) -> int:
    """Count `text` as JavaScript does: characters beyond U+FFFF count twice."""
    if text.isascii():
        return len(text)
    return len(text) + sum(character > "\uffff" for character in text)


def text_method(name: str, text: Any, arguments: list[Any]) -> Any:
    """Call the string method `name`; all arguments are strings except the regex of `matches`."""
    if type(text) is not str:
        raise Failed(f"{name}() on {named(text)}")
    if name == "matches":
        return _matches(arguments[0], text)
    for argument in arguments:
        if type(argument) is not str:
            raise Failed(f"{name}() of {named(argument)}")
    return _TEXT_METHODS[name](text, *arguments)


def _matches(pattern: Any, text: str) -> bool:
    try:
        return pattern.search(text) is not None
    except UnicodeEncodeError:
        raise Failed("matches() on a lone surrogate") from None


def _replace(text: str, old: str, new: str) -> str:
    # Checked before the text is built: rules must not be able to use much memory.
    if len(text) + text.count(old) * (len(new) - len(old)) > STRING_BYTES_MAX:
        raise Failed("the result of replace() is too long")
    return text.replace(old, new)


_TEXT_METHODS: dict[str, Any] = {
    "contains": str.__contains__,
    "beginsWith": str.startswith,
    "endsWith": str.endswith,
    "replace": _replace,
    "toLowerCase": str.lower,
    "toUpperCase": str.upper,
}
