"""Rule tests: test cases of requests that rules should allow or deny.

A test file is JSON with comments:

    {
      "rules": "rules.json",          // or the rules themselves
      "data": {…},                    // the tree's data; optional
      "now": 1700000000000,           // optional
      "users": {"ann": {"uid": "u1", "admin": true}},       // optional
      "cases": [
        {"as": "ann", "write": "/users/u1", "value": {"name": "Ann"}, "expect": "allow"},
        {"as": null, "read": "/users", "query": {"orderBy": "$key"}, "expect": "deny"}
      ]
    }

A case has one of `read`, `write` (with `value`), `update` (with `value`) and `delete`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, NoReturn, TypeVar

from elkyn.auth.principal import UNAUTHENTICATED, Principal
from elkyn.rules.document import Elements, Members, Part, Text, as_json, read_document
from elkyn.rules.memory import MemoryReader
from elkyn.rules.problems import BadRules, Lines, Problem
from elkyn.rules.ruleset import RuleSet, parse_rules
from elkyn.rules.trace import Explanation
from elkyn.tree.paths import Path, format_path, parse_path
from elkyn.tree.query import Query
from elkyn.tree.reader import Overlay
from elkyn.tree.values import Stored, prepare, resolve
from sennit_core.errors import SennitError

__all__ = ["Case", "Outcome", "RuleTests", "principal_of", "read_tests"]

T = TypeVar("T")

_FILE_KEYS = ("rules", "data", "now", "users", "cases")
_CASE_KEYS = ("name", "as", "value", "query", "now", "expect")
_ACTIONS = ("read", "write", "update", "delete")
_EXPECTED = {"allow": True, "deny": False}


@dataclass(frozen=True, slots=True)
class Case:
    """One case: caller, request, and whether it should be allowed."""

    name: str
    line: int
    user: str
    principal: Principal
    action: str
    path: Path
    places: tuple[tuple[Path, Stored], ...]
    query: Query | None
    now_ms: int
    expected: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a case."""

    case: Case
    explanation: Explanation

    @property
    def passed(self) -> bool:
        """Whether the rules decided as expected."""
        return self.explanation.allowed is self.case.expected


@dataclass(frozen=True, slots=True)
class RuleTests:
    """A parsed test file."""

    rules: RuleSet
    before: MemoryReader
    cases: tuple[Case, ...]

    def run(self) -> list[Outcome]:
        """Run every case; no case changes the data."""
        return [Outcome(case, self._explain(case)) for case in self.cases]

    def _explain(self, case: Case) -> Explanation:
        if case.action == "read":
            return self.rules.explain_read(
                self.before, case.path, case.principal, case.now_ms, case.query
            )
        after = Overlay(self.before, case.places)
        return self.rules.explain_write(
            self.before, after, case.places, case.principal, case.now_ms
        )


def read_tests(source: str, folder: FilePath) -> RuleTests:
    """Read a test file.

    Args:
        source: the text of the file.
        folder: the folder of a rules file that it names.

    Raises:
        BadRules: the file or its rules are invalid; the problems name the places.
        OSError: the rules file it names cannot be read.
    """
    return _TestReader(source, folder).read(read_document(source))


class _TestReader:
    def __init__(self, source: str, folder: FilePath) -> None:
        self.source = source
        self.folder = folder
        self.lines = Lines(source)

    def read(self, document: Part) -> RuleTests:
        parts = self.members(document, "a test file", _FILE_KEYS)
        for name in ("rules", "cases"):
            if name not in parts:
                self.refuse(document, f"the member {name!r} is missing")
        rules = self.rules(document, parts["rules"])
        before = MemoryReader()
        if "data" in parts:
            before = self.checked(parts["data"], lambda: MemoryReader(as_json(parts["data"])))
        now_ms = self.now(parts)
        users = self.members(parts["users"], "the users") if "users" in parts else {}
        listed = parts["cases"]
        if not isinstance(listed, Elements):
            self.refuse(listed, "the cases must be a list")
        reader = _CaseReader(self, before, users, now_ms)
        return RuleTests(rules, before, tuple(map(reader.read, listed.parts)))

    def rules(self, document: Part, part: Part) -> RuleSet:
        if isinstance(part, Text):
            text = (self.folder / part.value).read_text(encoding="utf-8")
            try:
                return parse_rules(text)
            except BadRules as error:
                found = [
                    problem._replace(path=f"{part.value} {problem.path}".strip())
                    for problem in error.problems
                ]
                raise BadRules(found) from None
        whole = isinstance(part, Members) and [key.value for key, _ in part.parts] == ["rules"]
        if not whole:
            assert isinstance(document, Members)
            pairs = tuple(pair for pair in document.parts if pair[0].value == "rules")
            part = Members(pairs, document.at)
        return RuleSet(part, self.source)

    def refuse(self, part: Part, text: str) -> NoReturn:
        raise BadRules([Problem(*self.lines.place(part.at), "", text)])

    def members(self, part: Part, what: str, known: tuple[str, ...] = ()) -> dict[str, Part]:
        if not isinstance(part, Members):
            self.refuse(part, f"{what} must be an object")
        for key, _value in part.parts:
            if known and key.value not in known:
                self.refuse(
                    key, f"unknown member {key.value[:80]!r} of {what}; use {', '.join(known)}"
                )
        return {key.value: value for key, value in part.parts}

    def checked(self, part: Part, make: Callable[[], T]) -> T:
        try:
            return make()
        except SennitError as error:
            self.refuse(part, str(error))

    def now(self, parts: Mapping[str, Part], default: int = 1_700_000_000_000) -> int:
        if "now" not in parts:
            return default
        now_ms = as_json(parts["now"])
        if type(now_ms) is not int:
            self.refuse(parts["now"], "now must be an integer: milliseconds since 1970")
        return now_ms


class _CaseReader:
    def __init__(
        self, file: _TestReader, before: MemoryReader, users: Mapping[str, Part], now_ms: int
    ) -> None:
        self.file = file
        self.before = before
        self.users = users
        self.now_ms = now_ms

    def read(self, part: Part) -> Case:
        parts = self.file.members(part, "a case", (*_CASE_KEYS, *_ACTIONS))
        actions = [name for name in _ACTIONS if name in parts]
        if len(actions) != 1:
            self.file.refuse(part, f"a case must have exactly one of {', '.join(_ACTIONS)}")
        expected = as_json(parts["expect"]) if "expect" in parts else None
        if expected not in ("allow", "deny"):
            self.file.refuse(parts.get("expect", part), 'expect must be "allow" or "deny"')
        action = actions[0]
        path = self.path(parts[action])
        now_ms = self.file.now(parts, self.now_ms)
        user, principal = self.principal(parts.get("as"))
        name = as_json(parts["name"]) if "name" in parts else ""
        return Case(
            name=str(name or f"{user}: {action} {format_path(path)}"),
            line=self.file.lines.place(part.at)[0],
            user=user,
            principal=principal,
            action=action,
            path=path,
            places=self.places(part, action, path, parts.get("value"), now_ms),
            query=self.query(parts.get("query")),
            now_ms=now_ms,
            expected=_EXPECTED[expected],
        )

    def path(self, part: Part) -> Path:
        text = as_json(part)
        return self.file.checked(part, lambda: parse_path(text))

    def principal(self, part: Part | None) -> tuple[str, Principal]:
        if part is None:
            return "unauthenticated", UNAUTHENTICATED
        user = as_json(part)
        name = user if isinstance(user, str) else json.dumps(user)
        if isinstance(user, str):
            user = as_json(self.users[user]) if user in self.users else {"uid": user}
        if user is None:
            return "unauthenticated", UNAUTHENTICATED
        if not isinstance(user, dict) or not isinstance(user.get("uid"), str):
            self.file.refuse(
                part, 'a user must be null, a uid, or an object with a "uid" and claims'
            )
        return name, principal_of(user)

    def places(
        self, case: Part, action: str, path: Path, part: Part | None, now_ms: int
    ) -> tuple[tuple[Path, Stored], ...]:
        if action in ("read", "delete"):
            if part is not None:
                self.file.refuse(part, f"a {action} must not have a value")
            return ((path, None),) if action == "delete" else ()
        if part is None:
            self.file.refuse(case, f"this {action} needs a value")
        if action == "write":
            return (self.place(part, path, now_ms),)
        self.file.members(part, "the value of an update")
        if not isinstance(part, Members):
            return ()
        places = [self.place(value, path + self.path(key), now_ms) for key, value in part.parts]
        for above, _value in places:
            if any(other != above and other[: len(above)] == above for other, _value in places):
                self.file.refuse(
                    part, f"the update writes {format_path(above)} and a path below it"
                )
        return tuple(places)

    def place(self, part: Part, path: Path, now_ms: int) -> tuple[Path, Stored]:
        prepared = self.file.checked(part, lambda: prepare(as_json(part), path)).value
        return path, resolve(prepared, self.before.get, path, now_ms)

    def query(self, part: Part | None) -> Query | None:
        if part is None:
            return None
        members = self.file.members(part, "a query")
        params = {name: json.dumps(as_json(value)) for name, value in members.items()}
        return self.file.checked(part, lambda: Query.of_rest(params))


def principal_of(user: Mapping[str, Any]) -> Principal:
    """Return the principal of `{"uid": …, claims…}`, with optional `provider` and `token`."""
    custom = {
        name: value for name, value in user.items() if name not in ("uid", "provider", "token")
    }
    token = user.get("token")
    claims = {**(token if isinstance(token, dict) else {}), **custom}
    return Principal(user["uid"], str(user.get("provider", "custom")), claims, tuple(custom))
