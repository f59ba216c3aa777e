"""Permission to read and write: the walk from the root, validation, multi-path updates, deletes."""

from __future__ import annotations

from typing import Any

import pytest

from elkyn.auth.principal import ADMIN, UNAUTHENTICATED, Principal
from elkyn.rules import Explanation, RuleSet, default_rules, parse_rules
from elkyn.rules.memory import MemoryReader
from elkyn.tree.paths import Path, parse_path
from elkyn.tree.reader import Overlay, peek_of
from elkyn.tree.values import Stored, prepare

ANN = Principal("ann")

USERS = {
    "users": {
        "$uid": {
            ".write": True,
            ".validate": "newData.hasChildren(['name', 'age'])",
            "name": {".validate": "newData.isString()"},
            "age": {".validate": "newData.isNumber() && newData.val() >= 0"},
            "tags": {"$tag": {".validate": "newData.val() === true"}},
            "$other": {".validate": False},
        }
    }
}

EQUALS = {
    "a": {".write": "newData.parent().child('b').val() == newData.val()"},
    "b": {".write": True},
    "c": {".write": False},
}


def may_read(rules: Any, path: str, data: Any = None, principal: Principal = ANN) -> bool:
    return parse_rules({"rules": rules}).may_read(
        MemoryReader(data), parse_path(path), principal, 1000
    )


def explain(
    rules: RuleSet, places: dict[str, Any], data: Any = None, principal: Principal = ANN
) -> Explanation:
    before = MemoryReader(data)
    written = [(parse_path(path), prepare(value).value) for path, value in places.items()]
    after = Overlay(before, written)
    explanation = rules.explain_write(before, after, written, principal, 1000)
    assert rules.may_write(before, after, written, principal, 1000) is explanation.allowed
    return explanation


def may_write(
    rules: Any, places: dict[str, Any], data: Any = None, principal: Principal = ANN
) -> bool:
    return explain(parse_rules({"rules": rules}), places, data, principal).allowed


class TestTheWalk:
    def test_nothing_is_granted_without_a_rule(self) -> None:
        assert not may_read({}, "/")
        assert not may_read({"a": {".write": True}}, "/a")
        assert not may_write({"a": {".read": True, ".validate": True}}, {"/a": 1})

    def test_the_first_true_rule_grants_all_below(self) -> None:
        rules = {"a": {".read": True, ".write": True, "b": {".read": False, ".write": False}}}
        assert may_read(rules, "/a/b/c")
        assert may_write(rules, {"/a/b/c": 1})

    def test_nothing_is_granted_upwards(self) -> None:
        rules = {"a": {"b": {".read": True, ".write": True}}}
        assert may_read(rules, "/a/b")
        assert not may_read(rules, "/a")
        assert not may_read(rules, "/")
        assert not may_write(rules, {"/a": {"b": 1}})

    def test_a_deeper_rule_grants_when_those_above_do_not(self) -> None:
        rules = {".read": "1 == 2", "a": {".read": "auth.x.y.contains('z')", "b": {".read": True}}}
        assert may_read(rules, "/a/b")

    def test_rules_do_not_filter(self) -> None:
        rules = {"list": {"$id": {".read": "data.child('owner').val() == auth.uid"}}}
        data = {"list": {"1": {"owner": "ann"}}}
        assert may_read(rules, "/list/1", data)
        assert not may_read(rules, "/list", data)

    def test_a_named_key_hides_the_variable_next_to_it(self) -> None:
        rules = {"$any": {".read": True, "$more": {".read": True}}, "closed": {"x": {}}}
        assert may_read(rules, "/open")
        assert not may_read(rules, "/closed")
        assert not may_read(rules, "/closed/x")

    def test_variables_are_the_keys_on_the_way(self) -> None:
        rules = {"$a": {"mid": {"$b": {".read": "$a + '-' + $b == 'x-y'"}}}}
        assert may_read(rules, "/x/mid/y")
        assert may_read(rules, "/x/mid/y/below")
        assert not may_read(rules, "/y/mid/x")

    def test_data_and_new_data_are_at_the_rule_not_at_the_target(self) -> None:
        data = {"a": {"owner": "ann"}}
        assert may_read({"a": {".read": "data.child('owner').val() == auth.uid"}}, "/a/b/c", data)
        rules = {"a": {".write": "newData.child('b').val() == 1 && !data.hasChild('b')"}}
        assert may_write(rules, {"/a/b": 1}, data)

    def test_root_and_data_are_before_the_write(self) -> None:
        rules = {
            ".write": "!root.hasChild('new') && !data.hasChild('new') && newData.hasChild('new')"
        }
        assert may_write(rules, {"/new": 1}, {"old": 1})

    def test_now_is_the_time_of_the_write(self) -> None:
        assert may_write({".write": "newData.child('at').val() == now"}, {"/at": 1000})

    def test_an_admin_bypasses_the_rules(self) -> None:
        rules = {".read": False, ".write": False, ".validate": False}
        assert may_read(rules, "/", principal=ADMIN)
        assert may_write(rules, {"/": 1}, principal=ADMIN)


class TestValidation:
    @pytest.mark.parametrize(
        ("user", "allowed"),
        [
            ({"name": "Ann", "age": 3}, True),
            ({"name": "Ann"}, False),
            ({"name": 1, "age": 3}, False),
            ({"name": "Ann", "age": -1}, False),
            ({"name": "Ann", "age": 3, "more": 1}, False),
            ({"name": "Ann", "age": 3, "tags": {"a": True}}, True),
            ({"name": "Ann", "age": 3, "tags": {"a": True, "b": 1}}, False),
            (None, True),
        ],
    )
    def test_every_rule_at_and_below_the_target_is_evaluated(
        self, user: Any, allowed: bool
    ) -> None:
        assert may_write(USERS, {"/users/u": user}) is allowed

    def test_it_grants_nothing(self) -> None:
        assert not may_write({".validate": True, "a": {".validate": True}}, {"/a": 1})

    def test_rules_above_see_the_merged_value(self) -> None:
        whole = {"users": {"u": {"name": "Ann", "age": 3}}}
        assert may_write(USERS, {"/users/u/age": 4}, whole)
        assert not may_write(USERS, {"/users/u/age": 4}, {"users": {"u": {"x": 1}}})
        assert not may_write(USERS, {"/users/u/tags/a/deep": 1}, whole)

    def test_it_is_evaluated_above_the_grant_too(self) -> None:
        assert not may_write({".validate": False, "a": {".write": True}}, {"/a": 1})

    def test_it_is_not_evaluated_for_unchanged_siblings(self) -> None:
        rules = {".write": True, "old": {".validate": False}, "new": {".validate": True}}
        assert may_write(rules, {"/new": 1}, {"old": 1})

    def test_a_delete_is_not_validated(self) -> None:
        whole = {"users": {"u": {"name": "Ann", "age": 3}}}
        assert may_write(USERS, {"/users/u": None}, whole)
        assert may_write(USERS, {"/users/u/name": None}, whole)
        assert may_write(USERS, {"/users": None, "/x": None}, whole) is False

    def test_a_failure_denies(self) -> None:
        rules = {".write": True, "a": {".validate": "newData.val().length > 1"}}
        assert may_write(rules, {"/a": "ab"})
        assert not may_write(rules, {"/a": 1})

    def test_an_object_is_valid_above_a_scalar_rule(self) -> None:
        rules = {".write": True, "a": {"b": {"c": {".validate": False}}}}
        assert may_write(rules, {"/a": {"b": 1}})
        assert not may_write(rules, {"/a": {"b": {"c": 1}}})


class TestUpdates:
    def test_every_place_is_checked_on_its_own(self) -> None:
        assert may_write(EQUALS, {"/a": 1, "/b": 1})
        assert not may_write(EQUALS, {"/b": 1, "/c": 1})

    def test_all_are_checked_against_one_final_tree(self) -> None:
        assert not may_write(EQUALS, {"/a": 1}, {"b": 2})
        assert may_write(EQUALS, {"/a": 1, "/b": 1}, {"b": 2})

    def test_root_stays_as_it_was(self) -> None:
        rules = {"$k": {".write": "!root.hasChild('a') && !data.parent().hasChild('b')"}}
        assert may_write(rules, {"/a": 1, "/b": 1})

    def test_a_delete_in_the_same_update_is_seen_by_validation(self) -> None:
        rules = {".write": True, ".validate": "newData.hasChildren(['a', 'b'])"}
        data = {"a": 1, "b": 1}
        assert may_write(rules, {"/a": 2}, data)
        assert may_write(rules, {"/b": None}, data)
        assert not may_write(rules, {"/a": 2, "/b": None}, data)


class TestPriorities:
    def test_a_rule_sees_them_and_not_as_children(self) -> None:
        rules = {
            ".write": "newData.child('x').getPriority() == 5 && newData.child('x').val() == 'v'",
            "x": {"$any": {".validate": False}},
        }
        assert may_write(rules, {"/x": {".value": "v", ".priority": 5}})
        assert may_write(
            {".write": True, "$k": {".validate": True}}, {"/": {".priority": 1, "a": 2}}
        )

    def test_writing_one_is_a_write_of_its_place(self) -> None:
        rules = {"x": {".write": "newData.getPriority() < 10", ".validate": "newData.val() == 'v'"}}
        assert may_write(rules, {"/x/.priority": 5}, {"x": "v"})
        assert not may_write(rules, {"/x/.priority": 50}, {"x": "v"})
        assert not may_write(rules, {"/x/.priority": 5}, {"x": "other"})
        assert may_read({"x": {".read": "data.getPriority() == null"}}, "/x/.priority", {"x": 1})

    def test_reserved_names_are_no_variables(self) -> None:
        rules = {"x": {"$any": {".write": True, ".read": True}}}
        assert not may_write(rules, {"/x/.priority": 5}, {"x": {"a": 1}})
        assert not may_read(rules, "/x/.priority", {"x": {"a": 1}})

    def test_deleting_one_is_no_delete_of_its_place(self) -> None:
        rules = {"x": {".write": True, ".validate": "newData.getPriority() != null"}}
        data = {"x": {".value": 1, ".priority": 2}}
        assert not may_write(rules, {"/x/.priority": None}, data)
        assert may_write(rules, {"/x": None}, data)


class TestIndexes:
    RULES = parse_rules(
        """{"rules": {
          ".indexOn": ".value",
          "users": {"$uid": {".indexOn": ["name", "a/b", ".key", "name"]}, "boss": {}},
          "posts": {".indexOn": "at"}
        }}"""
    )

    @pytest.mark.parametrize(
        ("path", "names"),
        [
            ("/", (".value",)),
            ("/posts", ("at",)),
            ("/users", ()),
            ("/users/u1", ("name", "a/b")),
            ("/users/boss", ()),
            ("/users/u1/deep", ()),
            ("/none", ()),
        ],
    )
    def test_they_are_found_by_path(self, path: str, names: tuple[str, ...]) -> None:
        assert self.RULES.index_on(parse_path(path)) == names

    def test_all_are_listed_by_pattern(self) -> None:
        assert self.RULES.indexes() == (
            ((), (".value",)),
            (("users", None), ("name", "a/b")),
            (("posts",), ("at",)),
        )


class TestExplanations:
    RULES = parse_rules(
        """{"rules": {"a": {
          ".write": "auth.uid == 'bob' || newData.val() > 1",
          "b": {".write": "auth != null", ".validate": "newData.isString()"}
        }}}"""
    )

    def test_a_grant_names_its_rule_and_its_inputs(self) -> None:
        explanation = explain(self.RULES, {"/a/b": "x"})
        assert explanation.decisive is not None
        assert explanation.decisive[:6] == (".write", "/a/b", "/a/b", "auth != null", 3, 27)
        assert explanation.decisive.values == {"auth": ANN.as_auth()}
        first = explanation.decisions[0]
        assert first.values["auth.uid"] == "ann"
        assert first.failure == "> between an object and a number"
        assert str(explanation).startswith("allowed: .write of /a/b, line 3\n.write of /a at /a")

    def test_a_refusal_by_validation_names_it(self) -> None:
        explanation = explain(self.RULES, {"/a/b": 1})
        assert not explanation.allowed
        assert explanation.decisive is not None
        assert explanation.decisive.kind == ".validate"
        assert explanation.decisive.values == {"newData.isString()": False}

    def test_a_default_refusal_has_no_rule(self) -> None:
        explanation = explain(self.RULES, {"/a": 1}, principal=UNAUTHENTICATED)
        assert explanation.decisive is None
        assert str(explanation).startswith("denied: no .write rule grants access to /a\n")
        assert explain(self.RULES, {"/z": 1}).decisions == []

    def test_the_place_that_was_refused_is_named(self) -> None:
        explanation = explain(self.RULES, {"/a/b": "x", "/y": 1, "/z": 1})
        assert str(explanation).startswith(
            "denied: no .write rule grants access to /y\n.write of /a"
        )
        assert [decision.place for decision in explanation.decisions] == ["/a", "/a/b", "/a/b"]

    def test_an_admin_needs_no_rule(self) -> None:
        explanation = explain(self.RULES, {"/z": 1}, principal=ADMIN)
        assert str(explanation) == "allowed: the rules do not apply"


class CountingReader(MemoryReader):
    """Counts the reads of the tree."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.peeks = 0

    def get(self, path: Path) -> Stored:
        raise AssertionError(f"the value at {path} was read")

    def keys(self, path: Path) -> list[str] | None:
        raise AssertionError(f"the keys of {path} were read")

    def peek(self, path: Path) -> Stored:
        self.peeks += 1
        return peek_of(super().get(path))


class TestCost:
    @pytest.mark.parametrize(
        ("expression", "peeks"),
        [
            ("auth.uid == 'ann'", 0),
            ("root.exists()", 1),
            ("root.val() != null", 1),
            ("data.hasChild('a')", 1),
            ("data.hasChildren()", 1),
            ("data.hasChildren(['a', 'b'])", 2),
            ("!data.hasChildren(['x', 'a', 'b'])", 1),
            ("root.child('a').child('n').parent().parent().child('b').val() == 2", 1),
            ("data.isString() || root.exists()", 2),
            ("root.child('a/n').val() == 1 && auth != null", 1),
            ("auth != null || root.exists()", 0),
        ],
    )
    def test_a_rule_reads_only_the_paths_it_names(self, expression: str, peeks: int) -> None:
        reader = CountingReader({"a": {"n": 1}, "b": 2})
        rules = parse_rules({"rules": {".read": expression}})
        assert rules.may_read(reader, ("a", "n"), ANN, 1000)
        assert reader.peeks == peeks

    def test_a_write_reads_nothing_that_no_rule_reads(self) -> None:
        reader = CountingReader({"a": {"n": 1}})
        rules = parse_rules(
            {"rules": {"a": {".write": "auth != null"}, "b": {".validate": "false"}}}
        )
        assert rules.may_write(reader, reader, [(("a", "x"), {"big": {"tree": 1}})], ANN, 1000)
        assert reader.peeks == 0

    def test_validation_visits_only_places_with_rules(self) -> None:
        reader = CountingReader({})
        rules = parse_rules(
            {"rules": {".write": True, "n": {"$k": {"id": {".validate": "newData.isNumber()"}}}}}
        )
        value = {
            "n": {f"k{i}": {"id": i, "rest": {"deep": 1}} for i in range(1, 11)},
            "m": {"x": 1},
        }
        rules.may_write(reader, reader, [((), value)], ANN, 1000)
        assert reader.peeks == 1  # the first number is not in `reader`: the rule is false

    def test_equal_subtrees_are_equal_however_large(self) -> None:
        rules = parse_rules({"rules": {"a": {".write": "newData.val() === data.val()"}}})
        tree = {"a": {"x": {"y": [1, 2, {"z": True}]}}}
        assert explain(rules, {"/a": tree["a"]}, tree).allowed
        assert not explain(rules, {"/a/x/y/2/z": 1}, tree).allowed
        assert not explain(rules, {"/a/x/w": 1}, tree).allowed


def test_the_default_rules_open_users_to_themselves() -> None:
    rules = default_rules()
    reader = MemoryReader({"users": {"ann": {"name": "Ann"}}})
    assert rules.may_read(reader, ("users", "ann", "name"), ANN, 0)
    assert not rules.may_read(reader, ("users", "bob"), ANN, 0)
    assert not rules.may_read(reader, ("users", "null"), UNAUTHENTICATED, 0)
    assert not rules.may_read(reader, ("users",), ANN, 0)
    assert explain(rules, {"/users/ann/x": 1}).allowed
    assert not explain(rules, {"/users/ann": 1, "/other": 1}).allowed


def test_the_rules_of_the_original_readme() -> None:
    rules = parse_rules(
        """
        {
          "rules": {
            "users": {
              "$userId": {
                ".read": "$userId === auth.uid || auth.admin === true",
                ".write": "$userId === auth.uid",
                "email": {
                  ".read": "$userId === auth.uid"
                }
              }
            }
          }
        }
        """
    )
    admin = Principal("root", claims={"admin": True}, custom=("admin",))
    reader = MemoryReader({"users": {"ann": {"email": "a@b.c"}}})
    for principal, readable in ((ANN, True), (admin, True), (Principal("bob"), False)):
        assert rules.may_read(reader, ("users", "ann", "email"), principal, 0) is readable
    assert not rules.may_read(reader, ("users", "ann"), UNAUTHENTICATED, 0)
    assert explain(rules, {"/users/ann": {"email": "x"}}).allowed
    assert not explain(rules, {"/users/ann": 1}, principal=admin).allowed
