"""Dataclasses made in the engine's own processes are as those that everybody else makes."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from emsqrt.closures import make_closures

PATCHED = ("_repr_fn", "_cmp_fn", "_hash_fn", "_frozen_get_del_attr")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"frozen": True},
    {"frozen": True, "slots": True},
    {"slots": True, "order": True},
    {"eq": False},
    {"unsafe_hash": True, "repr": False},
]


@pytest.fixture
def closures() -> Iterator[None]:
    before = {name: getattr(dataclasses, name, None) for name in PATCHED}
    make_closures()
    yield
    for name, function in before.items():
        if function is not None:
            setattr(dataclasses, name, function)


def make(fields: int, settings: dict[str, Any]) -> type:
    """A class of so many fields, the last of which is neither shown nor compared."""
    names = [(f"f{at}", int) for at in range(fields)]
    hidden = ("h", int, dataclasses.field(default=0, repr=False, compare=False))
    made = dataclasses.make_dataclass("Made", [*names, hidden], **settings)
    made.__module__ = __name__
    return made


def does(made: type, fields: int) -> list[Any]:
    """What instances of a class say and do."""
    one, same, hidden = made(*range(fields)), made(*range(fields)), made(*range(fields), h=9)
    other = made(*([7] * fields))
    told: list[Any] = [_try(lambda: repr(one))] if "__repr__" in vars(made) else []
    told += [one == same, one == hidden, one == other, one == 3, one != other]
    told += [_try(lambda: hash(one) == hash(same)), _try(lambda: hash(one) == hash(hidden))]
    told += [_try(lambda: one < other), _try(lambda: sorted([other, one]) == [one, other])]
    for change in (lambda: setattr(one, "h", 5), lambda: delattr(one, "h")):
        told += [_try(change), _try(lambda: one.h)]
    told += [made.__eq__.__qualname__, made.__repr__.__name__]
    return told


def _try(call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it is compared
        return type(error), str(error)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("fields", [0, 1, 2, 5])
def test_instances_do_what_they_did(
    settings: dict[str, Any], fields: int, request: pytest.FixtureRequest
) -> None:
    wanted = does(make(fields, settings), fields)
    request.getfixturevalue("closures")
    assert does(make(fields, settings), fields) == wanted


def test_what_refers_to_itself_is_shown_and_pickled(closures: None) -> None:
    made = make(1, {})
    one = made(3)
    one.f0 = one
    assert repr(one) == "Made(f0=...)"
    globals()["Made"] = frozen = make(2, {"frozen": True, "slots": True})
    assert pickle.loads(pickle.dumps(frozen(1, 2))) == frozen(1, 2)
    assert dataclasses.replace(frozen(1, 2), f1=5) == frozen(1, 5)
