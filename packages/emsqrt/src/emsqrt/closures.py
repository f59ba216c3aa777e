"""Methods of dataclasses as closures, in processes of the engine's own: a third of their start.

Up to Python 3.12 `dataclasses` writes a text for each method of each class and compiles it, some 500
times before a verb begins; of these only `__init__` has to be a text. Since 3.13 it compiles the
methods of a class together. What instances do is the same.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

Values = Callable[[Any], tuple[Any, ...]]


def make_closures() -> None:
    """Have dataclasses that are made from now on do without texts, where that saves any."""
    if sys.version_info < (3, 13):
        made: dict[str, Callable[..., Any]] = {
            "_repr_fn": _repr,
            "_cmp_fn": _compare,
            "_hash_fn": _hash,
            "_frozen_get_del_attr": _frozen,
        }
        for name, function in made.items():
            if hasattr(dataclasses, name):
                setattr(dataclasses, name, _or_as_it_was(function, getattr(dataclasses, name)))


def _or_as_it_was(made: Callable[..., Any], before: Callable[..., Any]) -> Callable[..., Any]:
    """Return `made`, or what was there if a patch release has changed how it is called."""
    names, count = before.__code__.co_varnames, before.__code__.co_argcount
    same = names[:count] == made.__code__.co_varnames[: made.__code__.co_argcount]
    return made if same else before


def _values_of(names: Sequence[str]) -> Values:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)


def _repr(fields: Sequence[dataclasses.Field[Any]], globals: Any) -> Any:  # noqa: A002
    names = [field.name for field in fields]

    def __repr__(self: Any) -> str:  # noqa: N807
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"

    whole: Any = dataclasses._recursive_repr(__repr__)  # type: ignore[attr-defined]  # noqa: SLF001
    return whole


def _compare(name: str, op: str, self_tuple: str, other_tuple: str, globals: Any) -> Any:  # noqa: A002
    if op != "==":
        return dataclasses._create_fn(  # type: ignore[attr-defined]  # noqa: SLF001
            name,
            ("self", "other"),
            [
                "if other.__class__ is self.__class__:",
                f" return {self_tuple}{op}{other_tuple}",
                "return NotImplemented",
            ],
            globals=globals,
        )
    names = [part.strip().removeprefix("self.") for part in self_tuple.strip("()").split(",")]
    values = _values_of([name for name in names if name])

    def __eq__(self: Any, other: Any) -> bool:  # noqa: N807
        if other.__class__ is self.__class__:
            return values(self) == values(other)
        return NotImplemented

    return __eq__


def _hash(fields: Sequence[dataclasses.Field[Any]], globals: Any) -> Any:  # noqa: A002
    values = _values_of([field.name for field in fields])

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(values(self))

    return __hash__


def _frozen(cls: Any, fields: Sequence[dataclasses.Field[Any]], globals: Any) -> Any:  # noqa: A002
    names = frozenset(field.name for field in fields)

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return __setattr__, __delattr__
