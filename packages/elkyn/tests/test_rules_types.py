"""Type errors for which a rules file is refused, and expressions that are accepted."""

from __future__ import annotations

import pytest

from elkyn.rules import BadRules, parse_rules

REFUSED = [
    ("'yes'", "a rule must be a boolean, and this is a string"),
    ("1", "a rule must be a boolean, and this is a number"),
    ("null", "a rule must be a boolean, and this is null"),
    ("root", "a rule must be a boolean, and this is a snapshot"),
    ("root.val()", "a rule must be a boolean, and this is a stored value; compare it: … === true"),
    ("auth.admin", "a rule must be a boolean, and this is a value; compare it: … === true"),
    ("auth.admin && true", "&& needs a boolean"),
    ("true || root.val()", "|| needs a boolean"),
    ("!auth.admin", "! needs a boolean"),
    ("!'a'", "! needs a boolean"),
    ("auth.admin ? true : false", "the condition of ? must be a boolean"),
    ("foo == 1", "unknown name 'foo'"),
    ("auht == null", "unknown name 'auht'; did you mean auth?"),
    ("undefined == null", "unknown name 'undefined'"),
    ("$y == 'a'", "no level above this rule is named $y"),
    ("newData.exists()", "a .read rule has no newData"),
    ("root == null", "a snapshot cannot be an operand; compare its val() or call exists()"),
    ("null != data", "a snapshot cannot be an operand"),
    ("query == null", "the query cannot be an operand"),
    ("/a/ == /a/", "a regular expression cannot be an operand"),
    ("['a'] == ['a']", "a list cannot be an operand"),
    ("true < false", "< compares numbers or strings, and this is a boolean"),
    ("root.exists() > 1", "> compares numbers or strings, and this is a boolean"),
    ("1 < 'a'", "< cannot compare a number and a string"),
    ("now >= null", ">= cannot compare a number and null"),
    ("root.hasChildren('a', 'b')", "hasChildren needs 1 argument: a list of strings"),
    ("root.hasChildren('a')", "hasChildren needs a list, and this is a string"),
    ("root.hasChildren([])", "a list must not be empty"),
    ("root.hasChildren(['a', 1])", "a list must contain a string, and this is a number"),
    ("root.hasChildren(['a', true])", "a list must contain a string, and this is a boolean"),
    ("root.hasChildren(true ? ['a'] : ['b'])", "? cannot choose between a list and a list"),
    ("$x.matches('a')", "matches needs a regular expression, and this is a string"),
    ("$x.matches(auth.uid)", "matches needs a regular expression, and this is a value"),
    ("$x.matches(/a/g)", "the only flag is i"),
    ("$x.matches(/a/im)", "the only flag is i"),
    ("$x.matches(/(^a)/)", "^ is only allowed first"),
    ("$x.matches(/(a$)/)", "$ is only allowed last"),
    ("$x.matches(/a|/)", "an empty branch"),
    ("$x.matches(/(a||b)/)", "an empty branch"),
    ("$x.replace(/a/, 'b') == 'c'", "replace needs a string, and this is a regular expression"),
    ("root.foo()", "a snapshot has no member 'foo'"),
    ("root.exist()", "a snapshot has no member 'exist'; did you mean exists?"),
    ("root.length == 1", "a snapshot has no member 'length'"),
    ("$x.foo() == 1", "a string has no member 'foo'"),
    ("auth.uid.startsWith('a')", "a value has no member 'startsWith'"),
    ("root.val().name == 1", "a stored value has no member 'name'"),
    ("now.length == 1", "a number has no member 'length'"),
    ("null.foo == null", "null has no member 'foo'"),
    ("query.foo == 1", "the query has no member 'foo'"),
    ("query.limitToFirst() == 1", "limitToFirst is not a method"),
    ("$x.length() == 1", "length is not a method"),
    ("root.exists", "exists is a method: call it"),
    ("$x.contains", "contains is a method: call it"),
    ("exists()", "this is not a method"),
    ("root.val()()", "this is not a method"),
    ("root[$x]()", "members of a snapshot must be literal names, not computed"),
    ("root['ex' + 'ists']()", "members of a snapshot must be literal names, not computed"),
    ("query[$x] == 1", "members of the query must be literal names, not computed"),
    ("$x[0] == 'a'", "members of a string must be literal names, not computed"),
    ("auth[$x]()", "the name of a method cannot be computed"),
    ("auth[null] == 1", "null cannot be the name of a property"),
    ("root.child(1).exists()", "child needs a string, and this is a number"),
    ("root.child(root).exists()", "child needs a string, and this is a snapshot"),
    ("root.child().exists()", "child needs 1 argument, and the call has 0"),
    ("root.exists(1)", "exists needs no argument, and the call has 1"),
    ("$x.replace('a') == 'a'", "replace needs 2 arguments, and the call has 1"),
    ("$x.contains(1)", "contains needs a string, and this is a number"),
    ("1 + true == 2", "+ needs numbers or strings, and this is a boolean"),
    ("'a' + null == 'a'", "+ needs numbers or strings, and this is null"),
    ("'a' + root == 'a'", "a snapshot cannot be an operand"),
    ("'a' - 1 == 1", "- needs numbers, and this is a string"),
    ("1 * null == 1", "* needs numbers, and this is null"),
    ("true / 2 == 1", "/ needs numbers, and this is a boolean"),
    ("$x % 2 == 1", "% needs numbers, and this is a string"),
    ("-true == 1", "- needs a number, and this is a boolean"),
    ("-'1' == 1", "- needs a number, and this is a string"),
    ("(true ? root : 'a') == null", "? cannot choose between a snapshot and a string"),
]

UNREADABLE = [
    ("", "expected an expression, found the end"),
    ("true;", "unexpected ';'"),
    ("true; true", "unexpected ';'"),
    ("true, true", "unexpected ',' after the expression"),
    ("2 ** 2 == 4", "unexpected '**' after the expression"),
    ("auth = null", "unexpected '='"),
    ("now++ > 1", "unexpected '++'"),
    ("--now > 1", "expected an expression, found '--'"),
    ("+now > 1", "expected an expression, found '+'"),
    ("~now == 1", "unexpected '~'"),
    ("now & 1", "unexpected '&'"),
    ("now | 1", "unexpected '|'"),
    ("now ^ 1", "unexpected '^'"),
    ("auth?.uid == 1", "expected an expression, found '.'"),
    ("auth ?? 1", "expected an expression, found '?'"),
    ("`a` == 'a'", "unexpected '`'"),
    ("typeof now == 'number'", "unexpected 'now' after the expression"),
    ("new Date() == 1", "unexpected 'Date' after the expression"),
    ("'a' in root", "unexpected 'in' after the expression"),
    ("function () { return true }", "unexpected '{'"),
    ("() => true", "unexpected '='"),
    ("(true", "expected ')' to close the bracket, found the end"),
    ("true ? true", "expected ':' between the branches of ?, found the end"),
    ("root.", "expected 'name' after the dot, found the end"),
    ("root.hasChildren(['a'", "expected ',' or ']' in a list, found the end"),
    ("'a", "unterminated string"),
    (r"'\q' == 'a'", "unknown escape in a string"),
    (r"'\ud800' == 'a'", "this string contains a lone surrogate"),
    ("01 == 1", "malformed number"),
    ("1.2.3 == 1", "malformed number"),
    ("1a == 1", "malformed number"),
    ("$x.matches(/a", "unterminated regular expression"),
    ("true /* no end", "unterminated comment"),
    ("è == 1", "unexpected 'è'"),
]

ACCEPTED = [
    "root['exists']()",
    "auth['uid'] == $x",
    "auth[$x] == null",
    "auth.token['groups'][$x] === true",
    "auth.token.list[0] == 'x'",
    "auth == null || auth.uid.length > 3",
    "root.val() > 1 && root.val() < 'a'",
    "root.val().contains('a')",
    "root.val().length > auth.none",
    "root.val() + 1 == root.val() + 'a'",
    "-auth.level < 0",
    "(true ? 1 : 'a') == root.val()",
    "(true ? root : data).exists()",
    "(true ? true : false)",
    "query.orderByChild == null || query.limitToFirst <= 10",
    "query.startAt < query.endAt || query.equalTo == auth.uid",
    "root.hasChildren() || root.hasChildren([$x, auth.uid, 'a' + $x])",
    "$x.matches(/^[a-z]+$/i)",
    "!!true && !(1 == 2)",
    "1 < 2 === true",
    "now > 1.5e3 + .5 - 2. * 1",
    "true // why\n && true /* because */",
    r"""'it\'s' == "it's" && '\x41\u0042\ud83d\ude00' != '\n'""",
    "root.getPriority() == null",
]


def read_rule(expression: str) -> None:
    parse_rules({"rules": {"$x": {".read": expression}}})


@pytest.mark.parametrize(("expression", "text"), REFUSED)
def test_rules_that_can_never_work_are_refused(expression: str, text: str) -> None:
    with pytest.raises(BadRules) as refused:
        read_rule(expression)
    (problem,) = refused.value.problems
    assert problem.path == "/$x/.read"
    assert problem.text.startswith(text) or text in problem.text


@pytest.mark.parametrize(("expression", "text"), UNREADABLE)
def test_an_invalid_expression_is_refused(expression: str, text: str) -> None:
    with pytest.raises(BadRules) as refused:
        read_rule(expression)
    assert text in refused.value.problems[0].text


@pytest.mark.parametrize("expression", ACCEPTED)
def test_rules_that_may_work_are_accepted(expression: str) -> None:
    read_rule(expression)


def test_write_and_validate_rules_see_new_data() -> None:
    parse_rules({"rules": {".write": "newData.exists()", ".validate": "newData.val() != 1"}})


@pytest.mark.parametrize(
    ("expression", "column"),
    [("foo == 1", 13), ("1 == foo", 18), ("true && $q", 21), ("root.foo()", 17), ("1 ==", 17)],
)
def test_a_problem_points_at_its_character(expression: str, column: int) -> None:
    with pytest.raises(BadRules) as refused:
        parse_rules(f'{{"rules": {{\n  ".read": "{expression}"}}}}')
    assert refused.value.problems[0][:2] == (2, column)


def test_a_problem_behind_escapes_and_lines_points_at_its_character() -> None:
    source = '{"rules": {".read": "\\"a\\" == \\"\\u0041\\" &&\n   foo"}}'
    with pytest.raises(BadRules) as refused:
        parse_rules(source)
    assert refused.value.problems[0][:2] == (2, 4)


def test_a_problem_in_a_regular_expression_points_into_it() -> None:
    source = '{"rules": {"$x": {".read": "$x.matches(/ab(c$)/)"}}}'
    with pytest.raises(BadRules) as refused:
        parse_rules(source)
    assert refused.value.problems[0].column == source.index("$)") + 1


def test_all_problems_are_reported_at_once_in_order() -> None:
    with pytest.raises(BadRules) as refused:
        parse_rules('{"rules": {".read": "a",\n ".write": "b", ".validate": 1,\n "x": 2}}')
    assert [problem.line for problem in refused.value.problems] == [1, 2, 2, 3]
    assert str(refused.value).startswith("line 1, column 22 (/.read): unknown name 'a'")
