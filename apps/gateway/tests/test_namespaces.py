"""Trees of a node beyond those of its settings: created by an admin, used by roles."""

from __future__ import annotations

from pathlib import Path

import pytest
from opened_node import OpenNode, open_node

from elkyn.cli import main

PAGE = "/.settings/namespaces.json"


def test_a_namespace_is_created_by_an_admin_and_used_by_roles(plain: OpenNode) -> None:
    with plain.client_of("writer") as writer, plain.client_of("reader") as reader:
        missing = writer.put("/a.json?ns=app", json=1)
        assert missing.status_code == 404
        assert "create it with: elkyn namespace add app" in missing.json()["error"]
        assert writer.post(PAGE, json={"name": "app"}).status_code == 403
        assert plain.client.post(f"/db{PAGE}", json={"name": "app"}).status_code == 201
        assert writer.put("/a.json?ns=app", json=1).status_code == 200
        assert reader.get("/a.json?ns=app").json() == 1
        assert reader.put("/a.json?ns=app", json=2).status_code == 403


@pytest.mark.slow
def test_a_created_namespace_is_there_after_a_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_node(tmp_path, {}) as node:
        token = (tmp_path / "admin.token").read_text().strip()
        url = ["--url", node.url, "--token", token]
        assert main(["namespace", "add", "my-app-default-rtdb", *url]) == 0
        assert main(["namespace", "list", *url]) == 0
        listed = capsys.readouterr().out.splitlines()[1:]
        assert listed == ["default", "my-app-default-rtdb", "sys"]
    with open_node(tmp_path, {}) as node:
        assert node.client.put("/a.json?ns=my-app-default-rtdb", json=1).status_code == 200


def test_the_platforms_own_folders_are_no_namespaces(plain: OpenNode) -> None:
    for name in (".secrets", "../elkyn", "a.b"):
        assert plain.client.post(PAGE, json={"name": name}).status_code == 400
        assert plain.client.get("/a.json", params={"ns": name}).status_code == 404
    assert plain.client.post(PAGE, json={"name": "sys"}).json()["created"] is False
    assert plain.client.put("/a.json?ns=sys", json=1).status_code == 401


@pytest.mark.parametrize("path", ["/a.json", "/api/stats"])
def test_a_refusal_of_a_host_names_the_setting_that_allows_it(plain: OpenNode, path: str) -> None:
    answer = plain.client.get(path, headers={"host": "phone.test"})
    assert answer.status_code == 403
    assert "answering for host 'phone.test'" in answer.json()["error"]
    assert "platform up --allow-host NAME" in answer.text
