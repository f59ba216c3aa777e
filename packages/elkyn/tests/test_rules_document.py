"""Rules files as text: comments, lines, places, and the structure of a rules file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.rules import BadRules, parse_rules
from elkyn.rules.document import Members, Text, as_json, read_document

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(JSON, st.booleans())
def test_json_reads_as_json(value: Any, ascii_only: bool) -> None:
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, indent=1)
    except ValueError:  # infinite
        return
    if "\\ud" in text.lower() and any("\ud800" <= c < "\ue000" for c in json.dumps(value)):
        return
    assert as_json(read_document(text)) == value


def test_comments_and_lines_in_texts_are_read() -> None:
    source = '// first\n{"a": /* in\n between */ "x\ny", "b": [1, // one\n 2]} // last'
    assert as_json(read_document(source)) == {"a": "x\ny", "b": [1, 2]}


def test_slashes_in_texts_are_no_comments() -> None:
    assert as_json(read_document('{"a": "http://x /* y */"}')) == {"a": "http://x /* y */"}


def test_every_character_of_a_text_knows_its_place() -> None:
    source = '{"k": "a\\n\\u0041\\ud83d\\ude00b"}'
    part = read_document(source)
    assert isinstance(part, Members)
    text = part.parts[0][1]
    assert isinstance(text, Text)
    assert text.value == "a\nA😀b"
    assert [source[text.place(index)] for index in (0, 4)] == ["a", "b"]
    assert source[text.place(5)] == '"'
    assert source[text.place(2) :].startswith("\\u0041")


@pytest.mark.parametrize(
    ("source", "place", "text"),
    [
        ("", (1, 1), "the file ends too early"),
        ('{"a": 1', (1, 8), "expected ',' or '}' after a member, found the end of the file"),
        ('{"a": 1,}', (1, 9), "expected a key in double quotes"),
        ('{"a": 1 "b": 2}', (1, 9), "expected ','"),
        ('{"a" 1}', (1, 6), "expected ':' after a key, found '1'"),
        ("{'a': 1}", (1, 2), "expected a key in double quotes"),
        ("{a: 1}", (1, 2), "expected a key in double quotes"),
        ('{"a": 1,\n "a": 2}', (2, 2), "duplicate key 'a'"),
        ('{"a": tru}', (1, 7), "unexpected 't'"),
        ('{"a": 01}', (1, 7), "unexpected '0'"),
        ('{"a": 1} x', (1, 10), "unexpected text after"),
        ('{"a": "x', (1, 7), "unterminated string"),
        ('{"a": "x\\q"}', (1, 9), "unknown escape"),
        ('{"a": "x\x01"}', (1, 9), "a character that a string must not contain"),
        ('{"a": "\\ud800"}', (1, 8), "half of a surrogate pair"),
        ('{\n/* "a": 1}', (2, 1), "unterminated comment"),
        ("[1, 2", (1, 6), "expected ',' or ']'"),
        ("NaN", (1, 1), "unexpected 'N'"),
    ],
)
def test_a_syntax_error_is_reported_with_its_position(
    source: str, place: tuple[int, int], text: str
) -> None:
    with pytest.raises(BadRules) as refused:
        parse_rules(source)
    (problem,) = refused.value.problems
    assert problem[:2] == place
    assert text in problem.text


@pytest.mark.parametrize(
    ("rules", "path", "text"),
    [
        ({".reed": "true"}, "", "unknown key '.reed'; did you mean .read?"),
        ({".sv": "true"}, "", "unknown key '.sv'; use one of .read"),
        ({"a": {".priority": "true"}}, "/a", "unknown key '.priority'"),
        ({".read": 1}, "/.read", "a rule must be an expression in a string, true or false"),
        ({".write": None}, "/.write", "a rule must be an expression in a string, true or false"),
        ({".validate": ["true"]}, "/.validate", "a rule must be an expression in a string"),
        ({"a": True}, "/a", "the rules of a path must be an object"),
        ({"a": None}, "/a", "the rules of a path must be an object"),
        ({"a": "true"}, "/a", "the rules of a path must be an object"),
        ({"$a": {}, "$b": {}}, "", "a second variable at one level: $b"),
        ({"$a": {"x": {"$a": {}}}}, "/$a/x", "a level above is already named $a"),
        ({"$": {}}, "", "'$' is not a valid name"),
        ({"$a-b": {}}, "", "'$a-b' is not a valid name"),
        ({"a/b": {}}, "", "keys must not hold"),
        ({"a#": {}}, "", "keys must not hold"),
        ({"": {}}, "", "a key must not be empty"),
        ({"x" * 769: {}}, "", "the limit is 768"),
        ({".indexOn": 1}, "/.indexOn", "an index must be a string, or a list of strings"),
        ({".indexOn": ["a", 1]}, "/.indexOn", "an index must be a string, or a list of strings"),
        ({".indexOn": ""}, "/.indexOn", "'' is neither a path"),
        ({".indexOn": ".size"}, "/.indexOn", "'.size' is neither a path"),
        ({".indexOn": ["a", "$b"]}, "/.indexOn", "'$b' is neither a path"),
    ],
)
def test_a_structure_that_is_wrong_is_refused(rules: Any, path: str, text: str) -> None:
    with pytest.raises(BadRules) as refused:
        parse_rules({"rules": rules})
    (problem,) = refused.value.problems
    assert problem.path == path
    assert text in problem.text


@pytest.mark.parametrize("source", ["[]", "1", '"rules"', "{}", '{"rules": []}', '{"ruls": {}}'])
def test_a_rules_file_is_an_object_with_rules(source: str) -> None:
    with pytest.raises(BadRules, match="rules"):
        parse_rules(source)


def test_no_other_key_is_allowed_next_to_the_rules() -> None:
    with pytest.raises(BadRules, match="unexpected 'data'"):
        parse_rules('{"rules": {}, "data": {}}')


def test_rules_are_not_deeper_than_a_tree() -> None:
    rules: dict[str, Any] = {".read": "true"}
    for _level in range(32):
        rules = {"a": rules}
    parse_rules({"rules": rules})
    with pytest.raises(BadRules, match="a tree is at most 32 levels deep"):
        parse_rules({"rules": {"a": rules}})


def test_booleans_are_rules_too() -> None:
    parse_rules('{"rules": {".read": true, ".write": false, ".validate": true}}')


@pytest.mark.parametrize("source", [b"\xff", {"rules": {".read": float("nan")}}, {"rules": {1, 2}}])
def test_bytes_that_are_not_text_are_refused(source: Any) -> None:
    with pytest.raises(BadRules, match=r"UTF-8|JSON"):
        parse_rules(source)


def test_bytes_and_mappings_are_sources_too() -> None:
    text = '{"rules": {".read": true}} // ü'
    assert parse_rules(text.encode()).source == parse_rules(text).source == text
    assert json.loads(parse_rules({"rules": {}}).source) == {"rules": {}}
    assert parse_rules("\ufeff" + text).source.endswith("ü")


def test_rules_are_plain_json_on_request() -> None:
    rules = parse_rules('{"rules": { // all\n ".read": "true\n|| false", ".indexOn": ["a"]}}')
    assert rules.to_json() == {"rules": {".read": "true\n|| false", ".indexOn": ["a"]}}


def test_bad_rules_have_specific_errors() -> None:
    with pytest.raises(BadRules) as refused:
        parse_rules({"rules": {f"k{index}": {".read": "x"} for index in range(200)}})
    document = refused.value.to_json()
    assert document["code"] == "bad-rules"
    assert len(document["details"]["problems"]) == 100
    assert str(refused.value).endswith("and 95 more")
