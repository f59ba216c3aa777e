"""Settings of a program: arguments > environment > `config.toml` > defaults.

A program declares its settings as nested frozen dataclasses; this module fills them:

    @dataclass(frozen=True)
    class Storage:
        chunk_bytes: int = 1024 * 1024

    @dataclass(frozen=True)
    class Settings:
        storage: Storage = Storage()

    settings = load_settings(Settings, env=os.environ, file=data / "config.toml")

`SENNIT_STORAGE__CHUNK_BYTES=4MiB`, or `chunk_bytes = "4MiB"` under `[storage]`, then sets it. An
integer whose name ends in `_bytes` accepts sizes, a number whose name ends in `_seconds` accepts
durations; a tuple accepts a list or comma-separated words. An unknown setting is an error and never
ignored. Libraries accept plain arguments and do not use this module.

This is not pydantic-settings because of its import: with it, the verbs of the command line, which
need no pydantic otherwise, import in 0.82 s of CPU instead of 0.22 s (medians of 10); a node, which
needs pydantic anyway, in 2.57 s instead of 2.52 s.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sennit_core.errors import BadInput, UsageError
from sennit_core.text import nearest, shorten_list
from sennit_core.units import parse_bytes, parse_duration

__all__ = ["RESERVED", "load_settings"]

RESERVED = frozenset({"URL", "TOKEN", "DATA"})
"""Environment names (after the prefix) that locate a node; they are not settings."""

T = TypeVar("T")
_Values = dict[tuple[str, ...], tuple[Any, str]]  # path → (value, where it came from)


def load_settings(
    cls: type[T],
    *,
    arguments: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    file: str | PathLike[str] | None = None,
    prefix: str = "SENNIT",
) -> T:
    """Return the settings `cls`, each value from the first source that has it.

    Args:
        cls: a dataclass whose fields are values or further dataclasses (sections).
        arguments: values by section, `{"storage": {"chunk_bytes": 4096}}`, or by dotted name,
            `{"storage.chunk_bytes": 4096}`; None means not set.
        env: the environment; names are `<prefix>_<SECTION>__<KEY>`.
        file: a TOML file; a missing file is ignored.
        prefix: prefix of the environment variables.

    Raises:
        UsageError: an unknown section or key (with the nearest known one), a value of the wrong
            type, or a required value that no source has.
        BadInput: the file is not TOML.
    """
    known = dict(_leaves(cls, ()))
    values: _Values = {}
    if file is not None:
        values |= _checked(_from_mapping(_read_toml(Path(file)), str(file)), known)
    values |= _checked(_from_env(env or {}, prefix), known)
    values |= _checked(_from_mapping(arguments or {}, "arguments"), known)
    built: T = _build(cls, (), {path: _convert(path, known, values[path]) for path in values})
    return built


def _leaves(cls: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and type of every value below `cls`."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _leaves(hint, (*above, field.name))
        else:
            yield (*above, field.name), hint


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(str(path), reason=str(error)) from error


def _from_mapping(document: Mapping[str, Any], source: str) -> _Values:
    values: _Values = {}
    for key, value in document.items():
        path = tuple(str(key).split("."))
        if isinstance(value, Mapping):
            below = _from_mapping(value, source)
            values |= {path + rest: found for rest, found in below.items()}
            if not value:
                values[path] = ({}, source)  # an empty section still has a name to be checked
        elif value is not None:
            values[path] = (value, source)
    return values


def _from_env(env: Mapping[str, str], prefix: str) -> _Values:
    start = f"{prefix}_"
    names = (n for n in env if n.startswith(start) and n.removeprefix(start) not in RESERVED)
    return {tuple(n.removeprefix(start).lower().split("__")): (env[n], n) for n in names}


def _checked(values: _Values, known: Mapping[tuple[str, ...], Any]) -> _Values:
    """Return the values, after checking that each one is a known setting."""
    sections = {path[:depth] for path in known for depth in range(1, len(path))}
    for path, (value, source) in values.items():
        if path in sections and isinstance(value, Mapping):
            continue
        if path not in known:
            raise _unknown(path, source, known, sections)
    return {path: found for path, found in values.items() if path in known}


def _unknown(
    path: tuple[str, ...],
    source: str,
    known: Mapping[tuple[str, ...], Any],
    sections: set[tuple[str, ...]],
) -> UsageError:
    """Return the error that names the wrong part of the path and the nearest known name."""
    depth = 1
    while depth < len(path) and path[:depth] in sections:
        depth += 1
    here, where = path[:depth], ".".join(path[:depth])
    if here in sections:
        inside = sorted({p[depth] for p in known if p[:depth] == here})
        return UsageError(
            f"{source}: {where!r} is a section, not a setting",
            hint=f"its settings are {shorten_list(inside, 12)}",
        )
    if here in known:
        return UsageError(f"{source}: {where!r} is a setting, not a section")
    siblings = sorted({p[depth - 1] for p in known if p[: depth - 1] == path[: depth - 1]})
    kind = "setting" if depth == len(path) else "section"
    inside_of = f" in {'.'.join(path[: depth - 1])!r}" if depth > 1 else ""
    close = nearest(here[-1], siblings)
    hint = f'did you mean "{close}"?' if close else f"there are: {shorten_list(siblings, 12)}"
    return UsageError(f"{source}: unknown {kind} {here[-1]!r}{inside_of}", hint=hint)


def _build(cls: Any, above: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> Any:
    hints = get_type_hints(cls)
    filled = {}
    for field in fields(cls):
        path = (*above, field.name)
        if is_dataclass(hints[field.name]):
            filled[field.name] = _section(field, hints[field.name], path, values)
        elif path in values:
            filled[field.name] = values[path]
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"the setting {'.'.join(path)} has no value")
    return cls(**filled)


def _section(
    field: Any, cls: Any, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]
) -> Any:
    """Build a section, starting from its field's declared default, if any."""
    default = None if field.default is MISSING else field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    declared = {} if default is None else dict(_declared(default, path))
    return _build(cls, path, {**declared, **values})


def _declared(section: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and value of everything that an instance holds."""
    for field in fields(section):
        value, path = getattr(section, field.name), (*above, field.name)
        if is_dataclass(value):
            yield from _declared(value, path)
        else:
            yield path, value


def _convert(
    path: tuple[str, ...], known: Mapping[tuple[str, ...], Any], found: tuple[Any, str]
) -> Any:
    value, source = found
    try:
        return _coerce(value, known[path], path[-1])
    except UsageError as error:
        name = source if source.endswith(path[-1].upper()) else f"{source}: {'.'.join(path)}"
        raise UsageError(f"{name}: {error}", hint=error.hint) from error


def _coerce(value: Any, hint: Any, name: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if isinstance(value, str) and value.strip().lower() in ("", "none"):
            return None
        return _coerce(value, next(a for a in get_args(hint) if a is not type(None)), name)
    if origin is Literal:
        return _one_of(value, get_args(hint))
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise UsageError(f"expected a list, found {value!r}")
        stripped = (item.strip() if isinstance(item, str) else item for item in items)
        return tuple(_coerce(item, get_args(hint)[0], name) for item in stripped if item != "")
    if hint is int and name.endswith("_bytes"):
        return parse_bytes(value)
    if hint in (int, float) and name.endswith("_seconds"):
        return hint(parse_duration(value))
    return _SCALARS[hint](value)


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    for choice in allowed:
        if value == choice or str(value).lower() == str(choice).lower():
            return choice
    raise UsageError(f"{value!r} is none of {', '.join(map(str, allowed))}")


def _to_bool(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    found = value if isinstance(value, bool) else words.get(str(value).strip().lower())
    if found is None:
        raise UsageError(f"expected true or false, found {value!r}")
    return found


def _to_number(kind: type[int | float], word: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        fits = isinstance(value, str) or (
            not isinstance(value, bool) and (kind is float or is_whole)
        )
        try:
            if fits:
                return kind(value)
        except (ValueError, OverflowError):
            pass
        raise UsageError(f"expected {word}, found {value!r}")

    return convert


def _to_text(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise UsageError(f"expected text, found {value!r}")
    return str(value)


def _to_path(value: Any) -> Path:
    if not isinstance(value, (str, Path)):
        raise UsageError(f"expected a path, found {value!r}")
    return Path(value).expanduser()


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    bool: _to_bool,
    int: _to_number(int, "a whole number"),
    float: _to_number(float, "a number"),
    str: _to_text,
    Path: _to_path,
}
