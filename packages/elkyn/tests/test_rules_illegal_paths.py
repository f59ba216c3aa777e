"""Paths in rules with characters that no key can have, as the live service evaluates them.

The expressions in `RECORDED` and their results are what the live service answered to the fixtures of
goldibex/targaryen (test/spec/lib/parser/fixtures.json, recorded by its `bin/targaryen-specs`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from elkyn.auth.principal import Principal
from elkyn.cli import main
from elkyn.rules import Decision, parse_rules
from elkyn.rules.memory import MemoryReader
from elkyn.tree.paths import PRIORITY
from sennit_core.errors import Denied

BOB = Principal("bob@example.com")
DATA = {"banned": {"ann": True, PRIORITY: 1}, "open": 1}

RECORDED = [
    'root.child("banned/" + auth.uid).val() != true',
    'root.hasChild("banned/" + auth.uid) == false',
    'root.hasChildren(["banned/" + auth.uid]) == false',
    'root.child("banned/bob@example.com").val() != true',
    'root.hasChild("banned/bob@example.com") == false',
    'root.hasChildren(["banned/bob@example.com"]) == false',
]

FOLLOWING = [
    *(f"!root.child('a{character}b').exists()" for character in ".#$[]"),
    *(f"!root.hasChild('banned/' + 'a{character}b')" for character in ".#$[]"),
    "root.child('banned/a.b').val() == null && root.child('banned/a.b').getPriority() == null",
    "!root.child('a.b').hasChildren() && !root.child('a.b').isString()",
    "!root.child('banned').child(auth.uid).child('deeper').exists()",
    "!root.hasChildren(['open', 'a.b']) && !root.hasChildren(['open', auth.uid])",
    "root.child('banned/a.b').parent().child('ann').val() === true",
    "root.child('banned').child(auth.uid).parent().hasChild('ann')",
    "!root.child('none/a.b').parent().exists() && root.child('none/a.b').parent().parent().exists()",
    "!root.child('banned/a.b/ann').parent().exists()",
    "!root.child('a.b').child('c#d').parent().exists()",
    "root.child('a.b').child('c#d').parent().parent().hasChild('open')",
    "!root.child('a.b/banned').parent().hasChild('ann')",
    "!root.child('.priority').exists() && !root.child('banned/.priority').exists()",
    "!root.child('banned/.value').exists() && !root.child('..').exists()",
]


def decide(expression: str, principal: Principal = BOB) -> Decision:
    rules = parse_rules({"rules": {".read": expression}})
    explanation = rules.explain_read(MemoryReader(DATA), (), principal, 1000)
    assert rules.may_read(MemoryReader(DATA), (), principal, 1000) is explanation.allowed
    return explanation.decisions[0]


@pytest.mark.parametrize("expression", RECORDED)
def test_answers_of_the_live_service(expression: str) -> None:
    assert decide(expression).allowed
    assert not decide(f"!({expression})").allowed  # no failure: that would be false both times


@pytest.mark.parametrize("expression", FOLLOWING)
def test_nothing_exists_at_an_illegal_path(expression: str) -> None:
    decision = decide(expression)
    assert decision.allowed, decision
    assert not decide(f"!({expression})").allowed


def test_the_parent_of_the_root_is_a_failure_still() -> None:
    assert not decide("root.child('a.b').parent().parent().exists() || true").allowed
    assert decide("root.child('a.b').parent().exists() || true").allowed


def test_a_long_key_is_as_one_with_illegal_characters() -> None:
    long = Principal("x" * 1000)
    assert decide("!root.child('banned/' + auth.uid).exists()", long).allowed
    assert decide(f"!root.child('{'y' * 1000}').exists()").allowed


def test_users_with_an_email_as_their_id_write_where_rules_look_them_up() -> None:
    rules: dict[str, Any] = {".write": "!root.child('banned/' + auth.token.email).exists()"}
    with ElkynStore(mode="memory") as store:
        store.enable_auth("a secret of at least 32 bytes, kept well")
        store.set_rules({"rules": {"notes": rules}})
        token = store.create_token("bob", email="bob@example.com")
        store.set("/notes/a", 1, token=token)
        store.set_rules({"rules": {"notes": {".write": "root.hasChild(auth.token.email)"}}})
        with pytest.raises(Denied):
            store.set("/notes/a", 2, token=token)


def test_a_check_of_rules_notes_a_path_where_nothing_can_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rules.json"
    expression = "root.child('banned/a.b').exists() || root.hasChildren(['open', 'c#d'])"
    file.write_text(json.dumps({"rules": {"x": {".read": expression}}}))
    assert main(["rules", "check", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "/x/.read: note: no data can exist at 'banned/a.b': key 'a.b' holds '.'" in printed
    assert "/x/.read: note: no data can exist at 'c#d': key 'c#d' holds '#'" in printed
