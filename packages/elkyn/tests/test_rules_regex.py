"""Regular expressions of rules: the dialect, and that no text makes them slow."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn.rules import parse_rules
from elkyn.rules.problems import ExpressionError
from elkyn.rules.regex import compile_regex, translate
from sennit_core.errors import Unsupported

REFUSED = [
    (r"a^b", 1, "^ is only allowed first"),
    (r"^^a", 1, "^ is only allowed first"),
    (r"a$b", 1, "$ is only allowed last"),
    (r"^a$|^b$", 2, "$ is only allowed last"),
    (r"(^a)", 1, "^ is only allowed first"),
    (r"(a$)", 2, "$ is only allowed last"),
    (r"a|", 2, "an empty branch"),
    (r"|a", 0, "an empty branch"),
    (r"()", 1, "an empty branch"),
    (r"(a|)", 3, "an empty branch"),
    (r"(?:a)", 0, "none that begin with (?"),
    (r"(?=a)", 0, "none that begin with (?"),
    (r"(?<n>a)", 0, "none that begin with (?"),
    (r"(a", 0, "unterminated group"),
    (r"a)", 1, "unexpected ')'"),
    (r"[a", 0, "unterminated set"),
    (r"[]", 0, "an empty set"),
    (r"[^]", 0, "an empty set"),
    (r"[z-a]", 1, "the range is out of order"),
    (r"[a-\d]", 1, "a range must end with a character"),
    (r"*a", 0, "unexpected '*'"),
    (r"a|+", 2, "unexpected '+'"),
    (r"{2}", 0, "unexpected '{'"),
    (r"a{x}", 1, "unexpected '{'"),
    (r"a{,2}", 1, "unexpected '{'"),
    (r"a{3,2}", 1, "the minimum number of repetitions exceeds the maximum"),
    (r"a{1001}", 1, "more than 1000 repetitions"),
    (r"a**", 2, "a repetition cannot be repeated, nor be lazy"),
    (r"a+?", 2, "a repetition cannot be repeated, nor be lazy"),
    (r"a{2}{3}", 4, "a repetition cannot be repeated, nor be lazy"),
    (r"\b", 0, r"unknown escape \b"),
    (r"\1", 0, r"unknown escape \1"),
    (r"\n", 0, r"unknown escape \n"),
    (r"\x41", 0, r"unknown escape \x"),
    (r"\p{L}", 0, r"unknown escape \p"),
    (r"[\b]", 1, r"unknown escape \b"),
    ("a\\", 1, "a backslash at the end of the expression"),
    ("(" * 31 + "a" + ")" * 31, 30, "groups nested more than 30"),
    (r"x((a{1000}){1000}){9}", 2, "too large"),
]

MATCHING = [
    (r"^(19|20)[0-9][0-9][-\/. ](0[1-9]|1[012])$", "1999-12", "1999-13"),
    (r"^[A-Z0-9._%+-]+@[A-Z0-9.-]+\.[A-Z]{2,4}$", "A.B@C.ORG", "A.B@C"),
    (r"foo", "a foo", "a fo"),
    (r"^a|b$", "ax", "xa"),
    (r"^a|b$", "xb", "bx"),
    (r"^$", "", "a"),
    (r"^a{2}$", "aa", "aaa"),
    (r"^a{2,}$", "aaaa", "a"),
    (r"^a{0,1}b?c*d+$", "bccd", "aabd"),
    (r"^.$", "é", "\n"),
    (r"^.$", "😀", "\u2028"),
    (r"^\d\D\w\W\s\S$", "1a_- x", "aa_- x"),
    (r"^\w$", "Z", "é"),
    (r"^\s$", "\u00a0", "x"),
    (r"^\S$", "é", "\u2003"),
    (r"^[\w.-]+$", "a.b-c", "a b"),
    (r"^[^\d\s]$", "x", "1"),
    (r"^[-a]$", "-", "b"),
    (r"^[a-]$", "-", "b"),
    (r"^[\]\\^]$", "^", "a"),
    (r"^\/\.\*\(\)\[\]\{\}\+\?\|\^\$$", "/.*()[]{}+?|^$", ""),
    (r"^a]b}c$", "a]b}c", "abc"),
    (r"^[[:alpha:]]$", ":]", "a"),
    (r"^(a(b)*)+$", "abba", "ba"),
]


@pytest.mark.parametrize(("pattern", "at", "text"), REFUSED)
def test_expressions_outside_the_dialect_are_refused(pattern: str, at: int, text: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_regex(pattern, "")
    assert text in refused.value.text
    assert refused.value.at == at


@pytest.mark.parametrize(("pattern", "matching", "other"), MATCHING)
def test_it_matches_as_javascript_does(pattern: str, matching: str, other: str) -> None:
    compiled = compile_regex(pattern, "")
    assert compiled.search(matching)
    assert not compiled.search(other)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"^[a-c]x$", "BX", "dx"),
        (r"^é$", "É", "e"),
        (r"^[^a]$", "b", "A"),
        (r"^[а-я]+$", "ЖУК", "x"),
        (r"^k$", "K", "\u212a"),
        (r"^[a-z]$", "S", "\u017f"),
    ],
)
def test_the_flag_i_folds_case_as_javascript_does(pattern: str, matching: str, other: str) -> None:
    compiled = compile_regex(pattern, "i")
    assert compiled.search(matching)
    assert not compiled.search(other)


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\d", "(a|b)", "(ab)", r"\."])
PIECES = st.tuples(ATOMS, st.sampled_from(["", "*", "+", "?", "{2}", "{1,2}", "{2,}"])).map("".join)
BRANCHES = st.lists(PIECES, min_size=1, max_size=4).map("".join)
PATTERNS = st.tuples(
    st.sampled_from(["", "^"]),
    st.lists(BRANCHES, min_size=1, max_size=3).map("|".join),
    st.sampled_from(["", "$"]),
).map("".join)


@pytest.mark.slow
@given(PATTERNS, st.text("ab1.x", max_size=8))
def test_the_dialect_agrees_with_another_engine(pattern: str, text: str) -> None:
    expected = re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None
    assert (compile_regex(pattern, "").search(text) is not None) is expected


@given(st.text("ab[](){}|^$.*+?\\-,12dws", max_size=20), st.sampled_from(["", "i"]))
def test_any_text_is_a_pattern_or_is_refused(pattern: str, flags: str) -> None:
    try:
        translated = translate(pattern, fold=bool(flags))
    except ExpressionError as error:
        assert 0 <= error.at <= len(pattern)  # noqa: PT017
    else:
        assert "(?=" not in translated
        compile_regex(pattern, flags)


def test_no_text_makes_it_slow() -> None:
    assert not compile_regex(r"^(a*)*(a|aa)+(a+b?)*c$", "").search("a" * 500_000)


def test_without_the_engine_the_upload_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    parse_rules({"rules": {".read": "auth != null"}})
    with pytest.raises(Unsupported) as refused:
        parse_rules({"rules": {".read": "auth.uid.matches(/not compiled before/)"}})
    assert "google-re2" in str(refused.value.hint)
