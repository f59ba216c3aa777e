"""Convert frozen dataclasses to and from JSON: camelCase names, strict reading.

An absent member and null are the same. An absent list or object is read as empty, because the tree
database does not store empty ones.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from sennit_core.errors import UsageError
from sennit_core.text import camel_case, nearest

__all__ = ["Record"]


class Record:
    """Base class that adds `to_json` and `from_json` to a frozen dataclass, with checked types.

    Supported types: str, int, float, bool, Literal, `X | None`, `tuple[X, ...]`, `Mapping[str,
    Any]`, other records, and classes that define `to_json` and `from_json`.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the camelCase JSON object; fields that are None are left out."""
        this: type = type(self)
        found = {}
        # A loop, and scalars without a call: peers encode thousands of records a second.
        for attribute, name in _names(this):
            value = getattr(self, attribute)
            if value is not None:
                found[name] = value if type(value) in _AS_THEY_ARE else _encode(value)
        return found

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the form of `to_json`.

        Raises:
            UsageError: a field is missing, unknown or of the wrong type; the message names it.
        """
        if not isinstance(document, Mapping):
            raise UsageError(f"{cls.__name__}: expected an object, found {_kind(document)}")
        this: type = cls
        readers = _readers(this)
        for name in () if document.keys() <= readers.keys() else document:
            if name not in readers:
                close = nearest(str(name), readers)
                hint = f'did you mean "{close}"?' if close else None
                raise UsageError(f'{cls.__name__}: unknown field "{name}"', hint=hint)
        return cls(**_read_fields(cls, readers, document))

    @classmethod
    def from_known(cls, document: Mapping[str, Any]) -> Self:
        """Read the form of `to_json`; ignore members that this version does not know.

        Routes add members to records, the tree stores children below them, and newer nodes send
        more.

        Raises:
            UsageError: a field is missing or of the wrong type; the message names it.
        """
        if not isinstance(document, Mapping):
            raise UsageError(f"{cls.__name__}: expected an object, found {_kind(document)}")
        this: type = cls
        return cls(**_read_fields(cls, _readers(this), document))


_Read = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one field, which errors call `where`; `absent` is its value when absent, MISSING if the field is required."""

    attribute: str
    where: str
    read: _Read
    absent: Any


@cache
def _names(cls: type) -> tuple[tuple[str, str], ...]:
    """Return the attribute and the JSON name of each field."""
    return tuple((field.name, camel_case(field.name)) for field in fields(cls))


@cache
def _readers(cls: type) -> dict[str, _Reader]:
    hints = get_type_hints(cls)
    readers = {}
    for field in fields(cls):
        hint = hints[field.name]
        absent = _absent(hint) if field.default is MISSING else field.default
        name = camel_case(field.name)
        where = f"{cls.__name__}.{name}"
        readers[name] = _Reader(field.name, where, _reader_of(hint), absent)
    return readers


def _read_fields(
    cls: type, readers: Mapping[str, _Reader], document: Mapping[str, Any]
) -> dict[str, Any]:
    values = {}
    for name, reader in readers.items():
        value = document.get(name)
        if value is not None:
            values[reader.attribute] = reader.read(value, reader.where)
        elif reader.absent is MISSING:
            raise UsageError(f'{cls.__name__}: the field "{name}" is missing')
        else:
            values[reader.attribute] = reader.absent
    return values


def _absent(hint: Any) -> Any:
    """Return the value of an absent field of this type, or MISSING when the field is required."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return None
    if origin is tuple:
        return ()
    return {} if origin is Mapping else MISSING


_AS_THEY_ARE = frozenset((str, int, float, bool, types.NoneType))


def _encode(value: Any) -> Any:
    # By exact type first: most values are scalars, or in plain lists and objects of such.
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is dict:
        return {n: v if type(v) in _AS_THEY_ARE else _encode(v) for n, v in value.items()}
    if kind is tuple or kind is list:
        return [v if type(v) in _AS_THEY_ARE else _encode(v) for v in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _encode(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in value]
    return value


def _reader_of(hint: Any) -> _Read:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        [inner] = [arg for arg in get_args(hint) if arg is not type(None)]
        return _reader_of(inner)
    if origin is Literal:
        return _literal_reader(get_args(hint))
    if origin is tuple:
        return _list_reader(_reader_of(get_args(hint)[0]))
    if origin is Mapping:
        return _read_object
    if hasattr(hint, "from_json"):
        return _nested_reader(hint)
    return _SCALARS[hint]


def _literal_reader(allowed: tuple[str, ...]) -> _Read:
    def read(value: Any, where: str) -> Any:
        if value not in allowed:
            raise UsageError(f"{where}: {value!r} is none of {', '.join(allowed)}")
        return value

    return read


def _list_reader(read_item: _Read) -> _Read:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: expected a list, found {_kind(value)}")
        try:
            return tuple([read_item(item, where) for item in value])
        except UsageError:  # only then say which: a text for each item costs as much as reading it
            for number, item in enumerate(value):
                read_item(item, f"{where}[{number}]")
            raise

    return read


def _nested_reader(cls: Any) -> _Read:
    def read(value: Any, where: str) -> Any:
        try:
            return cls.from_json(value)
        except UsageError as error:
            raise UsageError(f"{where}: {error}", hint=error.hint) from error

    return read


def _scalar_reader(accepted: type, word: str) -> _Read:
    def read(value: Any, where: str) -> Any:
        if type(value) is not accepted:
            raise UsageError(f"{where}: expected {word}, found {_kind(value)}")
        return value

    return read


def _read_float(value: Any, where: str) -> float:
    if type(value) not in (int, float):
        raise UsageError(f"{where}: expected a number, found {_kind(value)}")
    return float(value)


def _read_int(value: Any, where: str) -> int:
    if type(value) is float and value.is_integer():  # JavaScript and MessagePack may widen
        value = int(value)
    if type(value) is not int:
        raise UsageError(f"{where}: expected a whole number, found {_kind(value)}")
    return value


def _read_object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: expected an object, found {_kind(value)}")
    return value


_SCALARS: dict[Any, _Read] = {
    str: _scalar_reader(str, "a string"),
    bool: _scalar_reader(bool, "true or false"),
    int: _read_int,
    float: _read_float,
}


def _kind(value: Any) -> str:
    words = {type(None): "null", str: "a string", bool: "a boolean", int: "a number"}
    words |= {float: "a number", list: "a list", tuple: "a list", dict: "an object"}
    return words.get(type(value), type(value).__name__)
