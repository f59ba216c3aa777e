"""A compiled set of rules, which authorizes reads and writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any

from elkyn.auth.principal import Principal
from elkyn.rules.advice import advise
from elkyn.rules.build import build
from elkyn.rules.compiler import Context
from elkyn.rules.document import Part, as_json, read_document
from elkyn.rules.early_check import UNWRITTEN, could_allow, has_write_rule
from elkyn.rules.problems import BadRules, Problem
from elkyn.rules.read_set import ReadSet, RecordingReader
from elkyn.rules.trace import Decision, Explanation, decided
from elkyn.rules.trie import Pattern, Rule, RuleNode
from elkyn.tree.large_map import LargeMap
from elkyn.tree.paths import PRIORITY, ROOT, Path, format_path
from elkyn.tree.reader import Reader
from elkyn.tree.values import Stored

if TYPE_CHECKING:
    from elkyn.tree.query import Query

__all__ = ["DEFAULT_RULES", "RuleSet", "default_rules", "parse_rules"]

DEFAULT_RULES = """\
{
  "rules": {
    // each user reads and writes the data below their own id; everything else is denied
    "users": {
      "$uid": {
        ".read": "$uid === auth.uid",
        ".write": "$uid === auth.uid"
      }
    }
  }
}
"""

Trace = MutableSequence[Decision]


def parse_rules(source: str | bytes | Mapping[str, Any]) -> RuleSet:
    """Parse, check and compile rules.

    Args:
        source: the text of a rules file (JSON with comments), or the same as a mapping.

    Raises:
        BadRules: with the line and column of every problem.
        Unsupported: a rule has a regular expression, and its engine is not installed.
    """
    text = _as_text(source)
    return RuleSet(read_document(text), text)


def default_rules() -> RuleSet:
    """Return the rules of `setup_default_rules`: each user may access `/users/$uid`, nothing else."""
    return parse_rules(DEFAULT_RULES)


def _as_text(source: str | bytes | Mapping[str, Any]) -> str:
    if isinstance(source, str):
        return source
    try:
        if isinstance(source, bytes):
            return source.decode()
        return json.dumps(source, indent=2, ensure_ascii=False, allow_nan=False)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"not JSON: {error}"
    raise BadRules([Problem(1, 1, "", problem)])


class RuleSet:
    """Compiled rules. Evaluations are pure: they read the tree and keep no state.

    Args:
        document: the parsed file.
        source: its text.
    """

    __slots__ = ("_document", "_root", "source")

    def __init__(self, document: Part, source: str) -> None:
        self._document = document
        self._root = build(document, source)
        self.source = source

    def advice(self) -> list[Problem]:
        """Return warnings: rules open to every client, rules that are never evaluated."""
        return advise(self._root)

    def to_json(self) -> dict[str, Any]:
        """Return the rules as plain JSON, without the comments of `source`."""
        plain: dict[str, Any] = as_json(self._document)
        return plain

    def may_read(
        self,
        reader: Reader,
        path: Path,
        principal: Principal,
        now_ms: int,
        query: Query | None = None,
        trace: Trace | None = None,
    ) -> bool:
        """Whether `principal` may read `path`.

        `.read` rules are evaluated from the root down to the path; the first true one grants
        access, and no deeper rule can revoke it.

        Args:
            reader: the tree.
            path: the path to read.
            principal: the reader.
            now_ms: the time, in milliseconds since 1970.
            query: the query of the read.
            trace: receives every evaluated rule.
        """
        if principal.admin:
            return True
        context = Context(reader, reader, principal.as_auth(), now_ms, query)
        context.path = path = _without_priority(path)
        for node in self._root.along(path):
            if node.read is not None and _allows(node.read, context, trace):
                return True
        return False

    def authorize_stream(
        self,
        reader: Reader,
        path: Path,
        principal: Principal,
        now_ms: int,
        query: Query | None = None,
    ) -> tuple[bool, ReadSet]:
        """Return whether `may_read` allows the read, and the read set of that decision.

        An open stream repeats the check once a write touches the read set.
        """
        recording = RecordingReader(reader)
        allowed = self.may_read(recording, path, principal, now_ms, query)
        nodes = () if principal.admin else self._root.along(_without_priority(path))
        timed = any(node.read is not None and node.read.timed for node in nodes)
        return allowed, ReadSet(frozenset(recording.paths), timed)

    def may_write(
        self,
        before: Reader,
        after: Reader,
        places: Sequence[tuple[Path, Stored]],
        principal: Principal,
        now_ms: int,
        trace: Trace | None = None,
    ) -> bool:
        """Whether `principal` may write `places`, all of them together.

        Each place needs a true `.write` on its path from the root. Then, unless it is deleted, every
        `.validate` must be true: on the path, at the place, and below it where the new value has
        data.

        Args:
            before: the current tree.
            after: the tree after the write, for example an `Overlay`.
            places: written paths and values, no path an ancestor of another; None deletes.
            principal: the writer.
            now_ms: the time of the write, in milliseconds since 1970.
            trace: receives every evaluated rule.
        """
        if principal.admin:
            return True
        context = Context(before, after, principal.as_auth(), now_ms)
        for path, value in places:
            if path and path[-1] == PRIORITY:
                path = path[:-1]
                value = after.peek(path)
            context.path = path
            if not self._may_write(context, value, trace):
                return False
        return True

    def could_write(
        self,
        before: Reader,
        path: Path,
        principal: Principal,
        now_ms: int,
        *,
        below: bool = False,
    ) -> bool:
        """Whether `may_write` could allow a write at `path` whose value is not known yet.

        Args:
            before: the current tree.
            path: the path to write.
            principal: the writer.
            now_ms: the time, in milliseconds since 1970.
            below: the write is an update of paths below `path`, which are not known either.
        """
        if principal.admin:
            return True
        context = Context(before, UNWRITTEN, principal.as_auth(), now_ms)
        context.path = path = _without_priority(path)
        nodes = self._root.along(path)
        for node in nodes:
            if node.write is not None and could_allow(node.write, context):
                return True
        return below and len(nodes) > len(path) and has_write_rule(nodes[-1])

    def _may_write(self, context: Context, value: Stored, trace: Trace | None) -> bool:
        path = context.path
        nodes = self._root.along(path)
        for node in nodes:
            if node.write is not None and _allows(node.write, context, trace):
                break
        else:
            return False
        if value is None:
            return True
        for node in nodes:
            if node.validate is not None and not _allows(node.validate, context, trace):
                return False
        target = nodes[-1]
        if len(nodes) <= len(path) or not target.validates_below or not _is_map(value):
            return True
        return _valid_below(target, context, value, trace)

    def explain_read(
        self,
        reader: Reader,
        path: Path,
        principal: Principal,
        now_ms: int,
        query: Query | None = None,
    ) -> Explanation:
        """Evaluate `may_read` and explain the decision."""
        trace: list[Decision] = []
        allowed = self.may_read(reader, path, principal, now_ms, query, trace)
        return Explanation(allowed, ".read", format_path(path), trace)

    def explain_write(
        self,
        before: Reader,
        after: Reader,
        places: Sequence[tuple[Path, Stored]],
        principal: Principal,
        now_ms: int,
    ) -> Explanation:
        """Evaluate `may_write` and explain the decision."""
        trace: list[Decision] = []
        allowed, path = True, ROOT
        for place in places:
            path = place[0]
            allowed = self.may_write(before, after, [place], principal, now_ms, trace)
            if not allowed:
                break
        return Explanation(allowed, ".write", format_path(path), trace)

    def index_on(self, path: Path) -> tuple[str, ...]:
        """Return the indexes of the children of `path`: `.value`, or paths inside them."""
        node = self._root.at(path)
        return () if node is None else node.index_on

    def indexes(self) -> tuple[tuple[Pattern, tuple[str, ...]], ...]:
        """Return every `.indexOn` as its path pattern (None for a `$` variable) and its names."""
        return tuple(self._root.indexes())


def _allows(rule: Rule, context: Context, trace: Trace | None) -> bool:
    if trace is None:
        return rule.allows(context)
    decision = decided(rule, context)
    trace.append(decision)
    return decision.allowed


def _valid_below(
    node: RuleNode, context: Context, value: dict[str, Any] | LargeMap, trace: Trace | None
) -> bool:
    above = context.path
    for key, inner in value.items():
        below = node.child(key)
        if below is None or key[0] == ".":
            continue
        context.path = (*above, key)
        if below.validate is not None and not _allows(below.validate, context, trace):
            return False
        deeper = below.validates_below and _is_map(inner)
        if deeper and not _valid_below(below, context, inner, trace):
            return False
    return True


def _is_map(value: Stored) -> bool:
    return type(value) is dict or type(value) is LargeMap


def _without_priority(path: Path) -> Path:
    return path[:-1] if path and path[-1] == PRIORITY else path
