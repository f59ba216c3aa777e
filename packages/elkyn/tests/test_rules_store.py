"""Rules over a real store: what they cost, and that a large tree is never read for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from elkyn import ElkynStore
from elkyn.cli import main
from elkyn.storage.row_tree import Tree
from elkyn.tree.values import Stored
from sennit_core.errors import Denied


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ElkynStore]:
    with ElkynStore(tmp_path / "tree") as store:
        store.enable_auth("a secret of the tests, thirty-two bytes")
        yield store


def test_a_write_is_checked_on_its_resolved_values_in_its_transaction(store: ElkynStore) -> None:
    store.set_rules({"rules": {"n": {".write": "newData.val() === data.val() + 1"}}})
    ann = store.create_token("ann")
    with pytest.raises(Denied):
        store.set("/n", {".sv": {"increment": 1}}, token=ann)
    store.set_rules({"rules": {"n": {".write": "newData.val() <= 2", ".read": True}}})
    store.set("/n", {".sv": {"increment": 1}}, token=ann)
    store.set("/n", {".sv": {"increment": 1}}, token=ann)
    with pytest.raises(Denied, match="/n"):
        store.set("/n", {".sv": {"increment": 1}}, token=ann)
    assert store.get("/n", token=ann) == 2


def test_now_is_the_timestamp_of_the_same_write(store: ElkynStore) -> None:
    store.set_rules({"rules": {".write": True, "at": {".validate": "newData.val() === now"}}})
    store.set("/at", {".sv": "timestamp"}, token=store.create_token("ann"))


def test_an_update_of_many_paths_is_checked_whole(store: ElkynStore) -> None:
    store.set_rules(
        {"rules": {"$k": {".write": "newData.parent().hasChildren(['a', 'b'])", ".read": True}}}
    )
    ann = store.create_token("ann")
    with pytest.raises(Denied):
        store.update("/", {"a": 1}, token=ann)
    store.update("/", {"a": 1, "b": 2}, token=ann)
    with pytest.raises(Denied):
        store.update("/", {"b": None, "c": 1}, token=ann)
    assert (store.get("/a", token=ann), store.get("/c", token=ann)) == (1, None)


@pytest.mark.parametrize(
    "expression",
    [
        "root.child('big').exists() && data.exists()",
        "root.hasChild('big/k7') && root.hasChildren(['big', 'small'])",
        "root.child('big').hasChildren() && !root.child('big').isString()",
        "root.child('big').val() != null && root.child('big').val() != 'x'",
        "newData.parent().child('big/k9/name').val() == 'n9'",
        "newData.parent().hasChildren() && newData.parent().parent().val() != 1",
        "newData.parent().val() === newData.parent().val()",
    ],
)
def test_no_large_tree_is_read_for_a_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expression: str
) -> None:
    with ElkynStore(tmp_path / "tree") as store:
        big = {f"k{index}": {"name": f"n{index}"} for index in range(2000)}
        store.set("/in", {"big": big, "small": 1})
        moved = expression.replace("root.", "root.child('in').")
        store.set_rules({"rules": {"in": {"small": {".write": moved}}}})
        store.enable_auth("a secret of the tests, thirty-two bytes")
        ann = store.create_token("ann")

        def refuse(tree: Tree, node: int) -> Stored:
            raise AssertionError("a large tree was read")

        monkeypatch.setattr(Tree, "_read_branch", refuse)
        store.set("/in/small", 2, token=ann)


def test_rules_are_kept_with_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file = str(tmp_path / "data"), tmp_path / "rules.json"
    file.write_text('{"rules": {".read": "auth != null"}} // kept', encoding="utf-8")
    assert main(["rules", "set", "--data", data, str(file)]) == 0
    assert main(["rules", "show", "--data", data]) == 0
    assert capsys.readouterr().out == f"{file}: good\n" + file.read_text(encoding="utf-8") + "\n"
    file.write_text('{"rules": {".read": 1}}', encoding="utf-8")
    assert main(["rules", "set", "--data", data, str(file)]) == 1
    assert main(["rules", "show", "--data", data]) == 0
    assert "// kept" in capsys.readouterr().out


def test_a_shell_shows_which_rule_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = str(tmp_path / "data"), tmp_path / "rules.json"
    rule = "newData.val() > data.val() && auth.level === 2"
    file.write_text(json.dumps({"rules": {"n": {".write": rule}}}), encoding="utf-8")
    main(["rules", "set", "--data", data, str(file)])
    main(["set", "--data", data, "/n", "1"])
    capsys.readouterr()
    explain = ["rules", "explain", "--data", data, "/n"]
    assert main(explain) == 1
    assert capsys.readouterr().out == "denied: no .read rule grants access to /n\n"
    user = '{"uid": "ann", "level": 2}'
    assert main([*explain, "--as", user, "--write", '{".sv": {"increment": 1}}']) == 0
    output = capsys.readouterr().out
    assert output.startswith("allowed: .write of /n, line 1")
    assert "newData.val() = 2\n    data.val() = 1\n    auth.level = 2" in output
    assert main([*explain, "--as", "ann", "--write", "2"]) == 1
    assert main([*explain, "--as", "{}", "--write", "2"]) == 2
    assert main(["get", "--data", data, "/n"]) == 0
    assert capsys.readouterr().out.endswith("1\n")


def test_a_tree_without_rules_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tmp_path / "data")
    assert main(["set", "--data", data, "/a", "1"]) == 0
    assert main(["rules", "show", "--data", data]) == 1
    assert "without rules only admins have access" in capsys.readouterr().err
