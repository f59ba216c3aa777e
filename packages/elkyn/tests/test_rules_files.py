"""Rules files on the command line, their tests, and what the documentation shows."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from elkyn.cli import main
from elkyn.rules import parse_rules
from elkyn.rules.files import check_file, run_test_file
from sennit_core.testing import run_markdown

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"

RULES = {"rules": {"$uid": {".read": "auth.uid === $uid", ".write": "newData.isString()"}}}
CASES = [
    {"as": "ann", "read": "/ann", "expect": "allow"},
    {"as": None, "read": "/ann", "expect": "deny"},
    {"as": "ann", "write": "/bob", "value": "x", "expect": "allow"},
    {"as": "ann", "write": "/bob", "value": 1, "expect": "deny"},
    {"as": "ann", "update": "/", "value": {"a": "x", "b": 1}, "expect": "deny"},
    {"as": "ann", "delete": "/ann", "expect": "deny"},
]


def run(folder: Path, document: Any, explain: bool = False) -> tuple[int, str]:
    file = folder / "cases.json"
    text = document if isinstance(document, str) else json.dumps(document, indent=1)
    file.write_text(text, encoding="utf-8")
    stream = io.StringIO()
    code = run_test_file(file, stream, explain=explain)
    return code, stream.getvalue().replace(str(folder), "")


def test_good_rules_are_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(RULES), encoding="utf-8")
    assert main(["rules", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good\n"


def test_every_problem_is_reported_with_its_position(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text('{"rules": {".read": "a",\n ".writ": true}}', encoding="utf-8")
    stream = io.StringIO()
    assert check_file(file, stream) == 1
    assert stream.getvalue().replace(str(tmp_path), "").splitlines() == [
        "/rules.json:1:22: /.read: unknown name 'a'",
        "/rules.json:2:2: unknown key '.writ'; did you mean .write?",
        "2 problems",
    ]


def test_dubious_rules_are_reported_and_pass(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(
        """{"rules": {
          ".read": true, ".write": "true", ".validate": true,
          "a": {".read": false, "$k": {".write": "auth != null", ".validate": "true"}}
        }}""",
        encoding="utf-8",
    )
    stream = io.StringIO()
    assert check_file(file, stream) == 0
    assert stream.getvalue().replace(str(tmp_path), "").splitlines() == [
        "/rules.json:2:20: /.read: note: every client, even unauthenticated, may read everything",
        "/rules.json:2:36: /.write: note: every client, even unauthenticated, may write everything",
        "/rules.json:3:26: /a/.read: note: never evaluated: .read of / grants everything below it",
        "/rules.json:3:50: /a/$k/.write: note: never evaluated: .write of / grants everything below it",
        "/rules.json: good",
    ]


def test_rules_that_are_evaluated_are_not_dubious() -> None:
    rules = {
        "a": {".read": True, ".write": "auth != null", "b": {".write": True}},
        "$k": {".read": True},
    }
    assert parse_rules({"rules": rules}).advice() == []


def test_a_missing_file_has_an_error_of_its_own(tmp_path: Path) -> None:
    for run_on in (check_file, run_test_file):
        stream = io.StringIO()
        assert run_on(tmp_path / "none", stream) == 2
        assert "none: No such file" in stream.getvalue()
    code, output = run(tmp_path, {"rules": "none.json", "cases": []})
    assert (code, output) == (2, "/none.json: No such file or directory\n")


def test_cases_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.json").write_text(json.dumps(RULES), encoding="utf-8")
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"rules": "rules.json", "cases": CASES}), encoding="utf-8")
    assert main(["rules", "test", str(file)]) == 0
    assert capsys.readouterr().out == "6 cases: 6 passed, 0 failed\n"
    assert main(["rules", "test", "--explain", str(file)]) == 0
    assert "ann: read /ann: ok\n  allowed: .read of /$uid, line 1" in capsys.readouterr().out


def test_a_failed_case_is_reported_with_the_inputs_of_the_rules(tmp_path: Path) -> None:
    case = {"name": "other users read", "as": "bob", "read": "/ann", "expect": "allow"}
    code, output = run(tmp_path, {"rules": RULES, "cases": [case]})
    assert code == 1
    assert output.splitlines() == [
        "/cases.json:11: other users read: FAILED: expected to be allowed",
        "  denied: no .read rule grants access to /ann",
        "  .read of /$uid at /ann (line 5): false",
        "      auth.uid === $uid",
        '      auth.uid = "bob"',
        '      $uid = "ann"',
        "1 cases: 0 passed, 1 failed",
    ]


def test_rules_files_are_read_with_or_without_the_outer_rules_key(tmp_path: Path) -> None:
    assert run(tmp_path, {"rules": RULES["rules"], "cases": CASES})[0] == 0
    assert run(tmp_path, {"rules": RULES, "cases": CASES})[0] == 0


def test_users_data_times_and_queries_reach_the_rules(tmp_path: Path) -> None:
    rules = {
        ".read": "auth.token.email.endsWith('@x') && auth.level > 1 && query.limitToFirst == 5",
        ".write": "auth.provider == 'anonymous' && newData.child('n').val() == 3 && now == 77",
    }
    users = {
        "ann": {"uid": "u", "level": 2, "token": {"email": "a@x"}},
        "guest": {"uid": "g", "provider": "anonymous"},
    }
    increment = {".sv": {"increment": 1}}
    cases = [
        {"as": "ann", "read": "/", "query": {"orderBy": "a", "limitToFirst": 5}, "expect": "allow"},
        {"as": "ann", "read": "/", "expect": "deny"},
        {"as": {"uid": "u", "level": 9}, "read": "/", "expect": "deny"},
        {"as": "guest", "write": "/n", "value": increment, "now": 77, "expect": "allow"},
        {"as": "guest", "write": "/n", "value": increment, "expect": "deny"},
    ]
    document = {"rules": rules, "data": {"n": 2}, "users": users, "cases": cases}
    assert run(tmp_path, document) == (0, "5 cases: 5 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[", "1:2: the file ends too early"),
        ("[]", "1:1: a test file must be an object"),
        ('{"cases": []}', "1:1: the member 'rules' is missing"),
        ('{"rules": {}}', "1:1: the member 'cases' is missing"),
        ('{"rules": {}, "cases": [], "x": 1}', "1:28: unknown member 'x' of a test file"),
        ('{"rules": {}, "cases": {}}', "1:24: the cases must be a list"),
        ('{"rules": 1, "cases": []}', '1:11: "rules" must be an object'),
        ('{"rules": {".read": "a"}, "cases": []}', "1:22: /.read: unknown name 'a'"),
        ('{"rules": {}, "now": "x", "cases": []}', "1:22: now must be an integer"),
        ('{"rules": {}, "data": {"a.b": 1}, "cases": []}', "1:23: value at /"),
        ('{"rules": {}, "cases": [1]}', "1:25: a case must be an object"),
        (
            '{"rules": {}, "cases": [{"expect": "deny"}]}',
            "1:25: a case must have exactly one of read",
        ),
        ('{"rules": {}, "cases": [{"read": "/"}]}', '1:25: expect must be "allow" or "deny"'),
        ('{"rules": {}, "cases": [{"read": "/", "expect": 1}]}', "1:49: expect must be"),
        ('{"rules": {}, "cases": [{"read": "/a.b", "expect": "deny"}]}', "1:34: path /a.b"),
        ('{"rules": {}, "cases": [{"read": 1, "expect": "deny"}]}', "1:34: path 1: a path must be"),
        ('{"rules": {}, "cases": [{"write": "/", "expect": "deny"}]}', "1:25: this write needs a"),
        (
            '{"rules": {}, "cases": [{"read": "/", "value": 1, "expect": "deny"}]}',
            "1:48: a read must not have a value",
        ),
        (
            '{"rules": {}, "cases": [{"update": "/", "value": 1, "expect": "deny"}]}',
            "1:50: the value of an update must be an object",
        ),
        (
            '{"rules": {}, "cases": [{"update": "/", "value": {"a": 1, "a/b": 2}, "expect": "deny"}]}',
            "1:50: the update writes /a and a path below it",
        ),
        (
            '{"rules": {}, "cases": [{"as": 1, "read": "/", "expect": "deny"}]}',
            "1:32: a user must be",
        ),
        (
            '{"rules": {}, "cases": [{"read": "/", "query": {"limitToFirst": 1}, "expect": "deny"}]}',
            "1:48: orderBy must be defined",
        ),
    ],
)
def test_a_wrong_test_file_is_reported_with_its_position(
    tmp_path: Path, document: str, message: str
) -> None:
    code, written = run(tmp_path, document)
    assert code == 1
    assert written.startswith(f"/cases.json:{message}")


def test_bytes_that_are_not_text_are_reported(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff")
    stream = io.StringIO()
    assert (check_file(tmp_path / "x", stream), run_test_file(tmp_path / "x", stream)) == (1, 1)
    assert stream.getvalue().count("byte 0 is not UTF-8") == 2


def test_the_pages_python_runs() -> None:
    assert run_markdown(PAGE)["why"].allowed is False


def test_the_pages_rules_and_cases_work(tmp_path: Path) -> None:
    rules, cases = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parse_rules(rules)
    (tmp_path / "rules.json").write_text(rules, encoding="utf-8")
    assert run(tmp_path, cases) == (0, "6 cases: 6 passed, 0 failed\n")
    explained = re.findall(r"```\n(rules.test.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert explained[0].split("\n", 1)[1] in run(tmp_path, cases, explain=True)[1]
