"""The verbs of `platform workers`, against a node."""

from __future__ import annotations

import json

import pytest
from opened_node import OpenNode

from elytra.testing.scripted_worker import ScriptedWorker
from sennit.cli import run


@pytest.fixture(autouse=True)
def verbs(plain: OpenNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENNIT_URL", plain.url)
    monkeypatch.setenv("SENNIT_TOKEN", plain.client.headers["authorization"].split()[1])


def test_a_worker_is_invited_listed_and_revoked(
    plain: OpenNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["workers", "invite", "--name", "tab"]) == 0
    token = capsys.readouterr().out.strip()
    with ScriptedWorker(plain.url, token) as worker:
        worker.wait()
        assert run(["workers", "--json"]) == 0
        (shown,) = json.loads(capsys.readouterr().out)["workers"]
        assert (shown["id"], shown["state"], shown["kind"]) == (worker.id, "connected", "python")
        assert run(["workers"]) == 0
        assert worker.id in capsys.readouterr().out

        assert run(["workers", "revoke", shown["token"]]) == 0
        assert worker.ended.wait(20)
        assert worker.close_code == 4403
    capsys.readouterr()
    assert run(["workers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workers"] == []


def test_a_token_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workers", "revoke", "0" * 12]) == 4
    assert "no token" in capsys.readouterr().err


def test_an_invite_as_json_says_where_to_connect(
    plain: OpenNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["workers", "invite", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["role"], made["url"]) == ("worker", plain.url)
