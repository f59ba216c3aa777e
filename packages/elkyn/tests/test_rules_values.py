"""Results of expressions when a rule runs: values, nulls, and failures that make a rule false."""

from __future__ import annotations

from typing import Any

import pytest

from elkyn.auth.principal import UNAUTHENTICATED, Principal
from elkyn.rules import Decision, parse_rules
from elkyn.rules.memory import MemoryReader
from elkyn.tree.query import Query

DATA = {"a": 1, "b": "x", "c": True, "f": 2.5, "d": {"e": {"f": 2}, "g": "hello"}, "list": [1, 2]}
CLAIMS = {"email": "a@b.c", "groups": {"d": True}, "list": ["x", "y"], "admin": True, "level": 3}
ANN = Principal("u1", claims=CLAIMS, custom=("admin", "level"))

TRUE = [
    # literals, names, equality without conversion
    "1 == 1.0 && 1 === 1 && 'a' == 'a' && null == null && true == true",
    "1 != '1' && 0 != false && 1 != true && null != false && '' != null && 'true' != true",
    "now == 1000 && $x == 'd'",
    "auth.uid == 'u1' && auth.provider == 'custom'",
    "auth.admin === true && auth.token.admin === true && auth.level == auth.token.level",
    "auth.email == null && auth.token.email == 'a@b.c'",
    "auth['uid'] == auth.uid && auth[$x] == null && auth.token['groups'][$x] === true",
    "auth.token.list[1] == 'y' && auth.token.list[2] == null && auth.token.list.length == 2",
    "auth == auth && auth != null && auth.token.groups == auth.token['groups']",
    # null has null properties
    "auth.none == null && auth.none.deep.deeper == null && auth.none.length == null",
    "root.child('none').val().length == null && root.child('a').val().length == null",
    "root.child('b').val().length == 1 && auth.uid.length == 2",
    "auth[auth.none] == null && auth[true ? 1.5 : 2] == null",
    # snapshots
    "root.exists() && data.exists() && !root.child('none').exists()",
    "data.child('g').val() == 'hello' && data.child('e/f').val() == 2",
    "data.child('e').child('f').val() == 2 && root.child('/d//e/f/').val() == 2",
    "root.child($x).child('g').val() == root.child($x + '/g').val()",
    "data.parent().child('a').val() == 1 && data.child('e').parent().parent().hasChild('a')",
    "root.hasChildren() && data.hasChildren(['e', 'g', 'e/f']) && !data.hasChildren(['e', 'x'])",
    "root.hasChildren([$x, 'a']) && !root.hasChildren([auth.uid]) && !data.child('g').hasChildren()",
    "root.hasChild('d/e') && !root.hasChild('d/x') && !root.hasChild('a/x')",
    "!root.hasChild('') && !root.child('').exists() && !root.hasChildren([''])",
    "root.child('a').isNumber() && root.child('f').isNumber() && !root.child('c').isNumber()",
    "root.child('b').isString() && root.child('c').isBoolean() && !root.child('d').isString()",
    "!root.child('none').isString() && !root.child('none').isNumber() && !root.isBoolean()",
    "root.val() != null && root.val() != 1 && data.val() == root.child('d').val()",
    "root.val() != data.val() && data.child('e').val() != data.child('g').val()",
    "root.child('list/0').val() == 1 && root.child('list').hasChildren(['0', '1'])",
    "root.getPriority() == null && (true ? root : data).child('a').val() == 1",
    "root['exists']() && root['child']('a')['val']() == 1",
    # strings
    "'abc'.contains('b') && 'abc'.contains('') && !'abc'.contains('x')",
    "'abc'.beginsWith('ab') && !'abc'.beginsWith('b')",
    "'abc'.endsWith('bc') && 'abcb'.endsWith('b') && 'abc'.endsWith('')",
    "'a.b.c'.replace('.', ',') == 'a,b,c' && 'a'.replace('x', 'y') == 'a'",
    "'aB'.toLowerCase() == 'ab' && 'aB'.toUpperCase() == 'AB'",
    "'abc'.matches(/^a.c$/) && !'abc'.matches(/B/) && 'abc'.matches(/B/i)",
    "auth.token.email.matches(/^[^@]+@[^@]+$/) && auth.uid.contains('u')",
    "'😀'.length == 2 && 'é'.length == 1 && ''.length == 0",
    "'a' < 'b' && 'a' < 'aa' && 'Z' < 'a' && '\uffff' > '😀'",
    # arithmetic
    "1 + 1 == 2 && 3 - 5 == -2 && 2 * 2.5 == 5 && 7 / 2 == 3.5",
    "7 % 3 == 1 && -7 % 3 == -1 && 7 % -3 == 1 && 5.5 % 2 == 1.5",
    "2 + 3 * 4 == 14 && (2 + 3) * 4 == 20 && 10 - 2 - 3 == 5 && - -1 == 1",
    "'a' + 'b' == 'ab' && 'a' + 1 == 'a1' && 1.5 + 'a' == '1.5a' && '' + -0.5 == '-0.5'",
    "'' + 1e21 == '1e+21' && '' + 1e-7 == '1e-7' && '' + 0.00001 == '0.00001'",
    "'' + 100000000000000000000 == '100000000000000000000' && '' + 1.0 == '1'",
    "'' + 1/0 == 'NaN' || '' + (1/0) == 'NaN'",
    "root.child('a').val() + root.child('b').val() == '1x'",
    "1 < 2 && 2 <= 2 && 2.5 > 2 && 2 >= 2 && !(1 > 2)",
    # 1/0 is NaN: every comparison with it is false
    "!(1/0 > 0) && !(1/0 < 0) && !(1/0 == 1/0) && 1/0 != 1/0 && !(1 % 0 >= 0)",
    # short circuits and conditionals
    "true || auth.none.contains('a')",
    "!(false && auth.none.contains('a'))",
    "(false ? auth.none.contains('a') : true)",
    "false ? false : 1 == 2 ? false : true",
    "false || false || true",
    "true && true && true",
    "1 == 1 == true && 1 < 2 == true",
    "/* c */ true // d",
    # no query: ordered by key
    "query.orderByKey && !query.orderByValue && !query.orderByPriority",
    "query.orderByChild == null && query.startAt == null && query.equalTo == null",
    "query.limitToFirst == null && query.limitToLast == null && query.endAt == null",
]

FAILING = [
    ("auth.none.contains('a')", "contains() on null"),
    ("auth.level.contains('a')", "contains() on a number"),
    ("root.val().contains('a')", "contains() on an object"),
    ("root.child('none').val().matches(/a/)", "matches() on null"),
    ("'a'.contains(auth.none)", "contains() of null"),
    ("'a'.replace('a', auth.admin) == 'b'", "replace() of a boolean"),
    ("root.child(null == 1 ? 'a' : auth.none).exists()", "child() of null"),
    ("root.child(auth.none).exists()", "child() of null"),
    ("root.hasChild(auth.level)", "child() of a number"),
    ("root.hasChildren(['a', auth.none])", "child() of null"),
    ("auth.none < 1", "< between null and a number"),
    ("auth.none >= auth.nothing", ">= between null and null"),
    ("null < null", "< between null and null"),
    ("root.child('b').val() > 1", "> between a string and a number"),
    ("root.child('c').val() > 1", "> between a boolean and a number"),
    ("root.val() > 1", "> between an object and a number"),
    ("auth.none + 1 == 1", "+ between null and a number"),
    ("auth.none + 'a' == 'a'", "+ between null and a string"),
    ("'a' + auth.admin == 'atrue'", "+ between a string and a boolean"),
    ("auth.admin * 2 == 2", "* between a boolean and a number"),
    ("auth.uid - 1 == 1", "- between a string and a number"),
    ("auth.none / 1 == 1", "/ between null and a number"),
    ("auth.level % auth.uid == 1", "% between a number and a string"),
    ("-auth.none == 1", "- before null"),
    ("-auth.uid == 1", "- before a string"),
    ("root.parent().exists()", "parent() of the root"),
    ("data.parent().parent().exists()", "parent() of the root"),
    ("root.child('').parent().exists()", "parent() of the root"),
    ("root.parent().child('').exists() || true", "parent() of the root"),
    ("!root.parent().hasChildren([''])", "parent() of the root"),
    ("!root.parent().hasChildren(['a.b'])", "parent() of the root"),
    ("query.limitToFirst <= 10", "<= between null and a number"),
]


def decide(expression: str, principal: Principal = ANN, query: Query | None = None) -> Decision:
    rules = parse_rules({"rules": {"$x": {".read": expression}}})
    explanation = rules.explain_read(MemoryReader(DATA), ("d",), principal, 1000, query)
    (decision,) = explanation.decisions
    plain = rules.may_read(MemoryReader(DATA), ("d",), principal, 1000, query)
    assert plain is explanation.allowed is decision.allowed
    return decision


@pytest.mark.parametrize("expression", TRUE)
def test_is_true(expression: str) -> None:
    decision = decide(expression)
    assert decision.allowed, decision


@pytest.mark.parametrize(("expression", "reason"), FAILING)
@pytest.mark.parametrize(
    "around", ["{}", "!({})", "({}) || true", "({}) ? true : true", "({}) == false", "!!!({})"]
)
def test_a_failure_makes_the_whole_rule_false(expression: str, reason: str, around: str) -> None:
    decision = decide(around.format(expression))
    assert not decision.allowed
    assert decision.failure == reason


def test_auth_of_an_anonymous_user_is_null() -> None:
    assert decide(
        "auth == null && auth.uid == null && auth.token.email == null", UNAUTHENTICATED
    ).allowed
    assert not decide("auth.uid === $x", UNAUTHENTICATED).allowed


def test_an_override_replaces_auth() -> None:
    principal = Principal(override={"uid": "x", "anything": [1]})
    assert decide(
        "auth.uid == 'x' && auth.anything[0] == 1 && auth.token == null", principal
    ).allowed


def test_true_is_not_one_in_claims_and_data() -> None:
    principal = Principal("u", override={"uid": "u", "one": 1, "yes": True})
    assert decide("auth.one != auth.yes && auth.yes != 1 && auth.one != true", principal).allowed
    assert decide("auth.one == root.child('a').val()", principal).allowed


@pytest.mark.parametrize(
    ("query", "expression"),
    [
        (Query.build("$key", limit_to_first=3), "query.orderByKey && query.limitToFirst <= 3"),
        (
            Query.build("$key", limit_to_last=9),
            "query.limitToLast > 3 && query.limitToFirst == null",
        ),
        (Query.build("$value", start_at=2), "query.orderByValue && query.startAt == 2"),
        (Query.build("$priority", end_at="z"), "query.orderByPriority && query.endAt == 'z'"),
        (
            Query.build("owner", equal_to="u1"),
            "query.orderByChild == 'owner' && query.equalTo == auth.uid && !query.orderByKey",
        ),
        (Query.build("a/b", start_at=1, end_at=2), "query.orderByChild == 'a/b'"),
        (Query.build("a", start_at=1, end_at=2), "query.equalTo == null && query.endAt == 2"),
        (Query(), "query.orderByKey && query.limitToFirst == null"),
    ],
)
def test_a_rule_sees_the_query(query: Query, expression: str) -> None:
    assert decide(expression, query=query).allowed


@pytest.mark.parametrize(
    "expression", ["'a'.replace('a', {big})", "{big} + {big}", "('a' + {big}).replace('a', {big})"]
)
def test_strings_do_not_grow_without_end(expression: str) -> None:
    principal: Any = Principal("u", override={"uid": "u", "big": "a" * 6_000_000})
    text = expression.format(big="(auth.big + '')") + " == ''"
    decision = decide(text.replace("'a'.replace", "auth.big.replace"), principal)
    assert decision.failure is not None
    assert "too long" in decision.failure
