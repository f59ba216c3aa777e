"""Parse large JSON bodies in pieces, so that no step holds the interpreter for more than one piece.

A piece is as many whole members of one object or array as fit a window; orjson parses it like a body
of its own. A scan for brackets, strings and commas finds where a piece may end. The scan may be wrong
in a body that is not JSON: a piece cut at a wrong place is no list of members, and is refused when it
is parsed.

The way of a large body. A piece has at most 64 KiB, so that no call of the parser holds the
interpreter for long; only a member that is larger than a piece is walked into.

    {"a": 1, "b": {…}, "c": … , "big": { … }, "z": …}
    [---- one piece ----][---- piece ----]     |
                                               +-- _container: the same, one level down
    each piece: orjson -> prepare (check) -> LargeMapBuilder (packed run)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from elkyn.errors import BadValue, TooManyNodes
from elkyn.server.bodies.codec import load
from elkyn.server.bodies.scanner import CLOSE, COMMA, OPEN, JsonScanner, Member
from elkyn.storage.writer import Write, check_depth, update_path, update_write
from elkyn.tree.large_map import LargeMap, LargeMapBuilder
from elkyn.tree.paths import DEPTH_MAX, PRIORITY, Path, format_path, key_problem
from elkyn.tree.values import VALUE, Prepared, prepare

__all__ = ["RawJson", "prepare_large", "put_large", "split_members", "update_large"]


@dataclass(frozen=True, slots=True)
class RawJson:
    """A large value that is not parsed yet."""

    text: bytes


def put_large(path: Path, body: bytes, nodes_max: int) -> Write:
    """Return the write that replaces the value at `path`; raises as `prepare_large`."""
    check_depth(path)
    return Write("put", path, [(path, prepare_large(body, path, nodes_max))])


def update_large(base: Path, body: bytes, nodes_max: int) -> Write | None:
    """Return the write of several places below `base`; None when the body is no object."""
    found = split_members(body, nodes_max, partial(update_path, base))
    if found is None:
        return None
    return update_write(base, [(update_path(base, name), new) for name, new in found.items()])


_SPECIAL = (PRIORITY, VALUE, ".sv")
"""Members that are not children: they describe the map itself."""
_SPECIAL_BYTES_MAX = 64 * 1024  # of a special member that is a map; valid ones are far smaller

OnPiece = Callable[[Any], None]
OnMember = Callable[[Member], int]


def prepare_large(body: bytes, path: Path, nodes_max: int) -> Prepared:
    """Parse and check a body of any size, as `load` and `prepare` do.

    Args:
        body: JSON in UTF-8.
        path: where it will be written.
        nodes_max: of values in it, maps and lists included.

    Raises:
        ValueError: it is not JSON.
        BadValue: the tree cannot hold it.
        TooManyNodes: it holds more values than it may.
    """
    return _Splitter(body, nodes_max).whole(path)


def split_members(
    body: bytes, nodes_max: int, place: Callable[[str], Path]
) -> dict[str, Prepared] | None:
    """Return the checked values of the members of an object, for an update; None for no object.

    Args:
        body: JSON in UTF-8.
        nodes_max: as in `prepare_large`.
        place: returns the path of a member's name.
    """
    return _Splitter(body, nodes_max).members(place)


class _Splitter(JsonScanner):
    def __init__(self, body: bytes, nodes_max: int) -> None:
        super().__init__(body)
        # Values counted so far, over all levels. Checked after each piece, before its children are
        # packed.
        self._nodes = 0
        self._nodes_max = nodes_max

    def whole(self, path: Path) -> Prepared:
        start = self.skip(0)
        if self.byte(start) not in OPEN:
            return prepare(load(self.body), path)
        prepared, end = self._container(start, path)
        self._end(end)
        return prepared

    def members(self, place: Callable[[str], Path]) -> dict[str, Prepared] | None:
        start = self.skip(0)
        if self.byte(start) != OPEN[0]:
            load(self.body[start:])  # a scalar or a list, if it is JSON at all
            return None
        found: dict[str, Prepared] = {}

        def add(children: dict[str, Any]) -> None:
            self._count(children)
            for name, value in children.items():
                found[name] = prepare(value, place(name))

        def add_member(member: Member) -> int:
            found[member.key], end = self._value(member.start, place(member.key))
            return end

        self._end(self._walk(start, add, add_member))
        return found

    def _container(self, start: int, path: Path) -> tuple[Prepared, int]:
        if len(path) > DEPTH_MAX:
            raise BadValue(format_path(path), f"the tree is at most {DEPTH_MAX} levels deep")
        if self.byte(start) == OPEN[0]:
            return self._map(start, path)
        return self._list(start, path)

    def _map(self, start: int, path: Path) -> tuple[Prepared, int]:
        builder = LargeMapBuilder()
        special: dict[str, Any] = {}

        def add(children: dict[str, Any]) -> None:
            self._count(children)
            for key in _SPECIAL:
                # A piece may hold them among other members, where `prepare` would read the piece as
                # a map with a priority or as a server value.
                if key in children:
                    special[key] = children.pop(key)
            self._add(builder, children, path)

        def add_member(member: Member) -> int:
            if member.key in _SPECIAL:
                special[member.key], end = self._special(member, path)
                return end
            problem = key_problem(member.key)
            if problem:
                raise BadValue(format_path(path), problem)
            return self._add_member(builder, member, path)

        end = self._walk(start, add, add_member)
        return self._finish(builder, special, path), end

    def _list(self, start: int, path: Path) -> tuple[Prepared, int]:
        builder = LargeMapBuilder()
        length = 0

        def add(children: list[Any]) -> None:
            nonlocal length
            self._count(children)
            # A list is a map of its indexes, as Firebase stores it; null elements are absent.
            named = {str(length + index): child for index, child in enumerate(children)}
            length += len(children)
            self._add(builder, named, path)

        def add_member(member: Member) -> int:
            nonlocal length
            length += 1
            return self._add_member(builder, Member(str(length - 1), member.start), path)

        end = self._walk(start, add, add_member)
        return self._finish(builder, {}, path), end

    def _add(self, builder: LargeMapBuilder, children: dict[str, Any], path: Path) -> None:
        if not children:
            return
        stored, dynamic = prepare(children, path)
        stored = stored or {}
        # Keys whose value is null. They are kept, because of a repeated key the last one counts: a
        # later null removes an earlier value in another piece.
        absent = [] if len(stored) == len(children) else [k for k in children if k not in stored]
        builder.add(stored, absent, dynamic=dynamic)

    def _add_member(self, builder: LargeMapBuilder, member: Member, path: Path) -> int:
        (stored, dynamic), end = self._value(member.start, (*path, member.key))
        if type(stored) is LargeMap:
            builder.add_large(member.key, stored)
        elif stored is None:
            builder.add({}, [member.key])
        else:
            builder.add({member.key: stored}, dynamic=dynamic)
        return end

    def _finish(self, builder: LargeMapBuilder, special: dict[str, Any], path: Path) -> Prepared:
        # `.value` together with other children is an error, and one child is enough to make
        # `prepare` report it.
        if VALUE in special or ".sv" in special:
            other = {"k": 1} if builder.runs else {}
            return prepare({**special, **other}, path)  # refused when there is another child
        priority = prepare(special.get(PRIORITY), (*path, PRIORITY))
        if builder.runs and priority.value is not None:
            builder.add({PRIORITY: priority.value}, dynamic=priority.dynamic)
        large = builder.finish()
        return Prepared(large, large is not None and large.dynamic)

    def _value(self, start: int, path: Path) -> tuple[Prepared, int]:
        # The value itself; what is below it is counted by its own pieces.
        self._count(())
        if self.byte(start) in OPEN:
            return self._container(start, path)
        end = self.value_end(start)
        return prepare(load(self.body[start:end]), path), end

    def _special(self, member: Member, path: Path) -> tuple[Any, int]:
        end = self.value_end(member.start)
        if self.byte(member.start) in OPEN and end - member.start > _SPECIAL_BYTES_MAX:
            raise BadValue(format_path(path), f"{member.key} holds a large map")
        self._count(())
        return load(self.body[member.start : end]), end

    def _walk(self, start: int, on_piece: OnPiece, on_member: OnMember) -> int:
        """Go through the members of the object or array at `start`; returns where it ends.

        Args:
            start: the place of its opening bracket.
            on_piece: gets a dict or list of members that were read together.
            on_member: gets one that is larger than a piece; returns where its value ends.
        """
        kind = self.byte(start)
        is_map = kind == OPEN[0]
        opening, closing = bytes((kind,)), CLOSE[OPEN.index(kind)]
        at, follows_comma = start + 1, False
        while True:
            at = self.skip(at)
            cut, closed = self.scan(at)
            if cut >= 0 or closed >= 0:
                stop = closed if closed >= 0 else cut
                text = self.body[at:stop]
                if text.strip(b" \t\r\n"):
                    on_piece(load(opening + text + bytes((closing,))))
                elif follows_comma or closed < 0:
                    raise ValueError("a member is missing")
                at, follows_comma = stop, False
            else:
                at = self.skip(on_member(self.member(at, is_map)))
            if self.byte(at) == closing:
                return at + 1
            if self.byte(at) != COMMA:
                raise ValueError("a comma or a closing bracket is missing")
            at, follows_comma = at + 1, True

    def _end(self, end: int) -> None:
        if self.skip(end) != len(self.body):
            raise ValueError("unexpected text after the value")

    def _count(self, piece: Any) -> None:
        self._nodes += _count(piece)
        if self._nodes > self._nodes_max:
            raise TooManyNodes("the request body", self._nodes_max)


def _count(value: Any) -> int:
    """Count the values in a piece: itself, and all below it."""
    if type(value) is dict:
        value = value.values()
    below = [child for child in value if type(child) is dict or type(child) is list]
    return 1 + len(value) - len(below) + sum(map(_count, below))
