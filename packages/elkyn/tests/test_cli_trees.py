"""The verbs on values, on a folder and on the server that has it open; and the shell."""

from __future__ import annotations

import argparse
import io
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from elkyn.cli import main
from elkyn.cli.program import GROUPS
from elkyn.server.admin_token import read_or_create_token

Run = Callable[..., str]


@pytest.fixture(params=["folder", "server", "url"])
def run(request: pytest.FixtureRequest, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb on a tree, reached in three ways; returns what it prints."""
    target = ["--data", str(tmp_path / "data")]
    if request.param != "folder":
        served = request.getfixturevalue("start_server")()
        if request.param == "url":
            token = served.headers["Authorization"].removeprefix("Bearer ")
            target = ["--url", served.url, "--token", token]

    def run(verb: str, *arguments: str) -> str:
        assert main([verb, *target, *arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_values_are_written_read_queried_and_removed(run: Run) -> None:
    run("set", "/users", '{"ann": {"age": 30}, "bob": {"age": 20}}')
    run("update", "/users", '{"ann/age": 31, "cid/age": 25}')
    key = run("push", "/log", '"é"').strip()
    assert json.loads(run("get", "/log")) == {key: "é"}
    run("delete", "/users/cid")
    assert json.loads(run("query", "/users", "--limit-to-last", "1")) == {"bob": {"age": 20}}
    found = json.loads(run("query", "/users", "--start-after", '"ann"', "--limit-to-first", "5"))
    assert list(found) == ["bob"]
    first = json.loads(run("watch", "/users/ann", "--count", "1"))
    assert first == {"type": "put", "path": "/", "data": {"age": 31}}
    assert json.loads(run("stats", "--json"))
    assert run("stats")


@pytest.mark.sample(1)
@pytest.mark.slow
def test_the_shell_walks_and_reports_mistakes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """set users/ann {"name": "Ann Lee"}
cd users
ls
push ann/log "x y"
cd ann
pwd
get name
get name/..
rm log
ls
set a.b 1
set name text without quotes
dance

cd ..
ls
exit
"""
    monkeypatch.setattr("sys.stdin", io.StringIO(script))
    run("set", "/x", "1")
    lines = run("shell").splitlines()
    assert lines[1] == "ann"
    assert lines[3] == "/users/ann"
    assert '"Ann Lee"' in lines
    assert any("must not hold" in line for line in lines)
    assert any("is not JSON" in line for line in lines)
    assert any("unknown command 'dance'" in line for line in lines)
    assert lines[-1] == "ann"


@pytest.mark.slow
def test_a_server_that_is_gone_gets_no_more_requests(
    start_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    served = start_server()
    data = str(served.data)
    assert main(["set", "--data", data, "/a", "1"]) == 0
    run_file = served.data / "run.json"
    assert run_file.stat().st_mode & 0o777 == 0o600
    kept = run_file.read_text()
    served.stop()
    assert not run_file.exists()
    run_file.write_text(kept)  # as after a kill: the process is no more
    capsys.readouterr()
    assert main(["get", "--data", data, "/a"]) == 0
    assert capsys.readouterr().out == "1\n"


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        ([], 2, "select a folder or a server"),
        (["--data", "d", "--url", "http://x"], 2, "select a folder or a server"),
        (["--url", "ftp://x"], 2, "not the URL of a server"),
        (["--url", "http://127.0.0.1:1"], 1, "the server at http://127.0.0.1:1"),
    ],
)
def test_a_tree_that_cannot_be_reached_is_reported(
    capsys: pytest.CaptureFixture[str], options: list[str], code: int, complaint: str
) -> None:
    assert main(["get", *options, "/a"]) == code
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_a_wrong_token_is_reported(start_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    served = start_server()
    assert main(["get", "--url", served.url, "--token", "wrong", "/a"]) == 1
    assert "refuses" in capsys.readouterr().err


def test_every_verb_is_documented() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "elkyn-cli.md"
    documented = re.findall(r"^\| `elkyn (\w+)`", page.read_text(encoding="utf-8"), re.MULTILINE)
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for group in GROUPS:
        group.register(subparsers)
    assert sorted(documented) == sorted(subparsers.choices)


def test_the_admins_token_can_be_an_argument(tmp_path: Path) -> None:
    tokens = {read_or_create_token(tmp_path / f"{number}.token") for number in range(300)}
    assert len(tokens) == 300
    assert not any(token.startswith("-") for token in tokens)


def test_a_token_does_not_follow_a_redirect(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/other")  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert main(["get", "--url", url, "--token", "secret", "/a"]) != 0
        assert main(["watch", "--url", url, "--token", "secret", "/a"]) != 0
        server.shutdown()
        thread.join()
    assert [path.partition("?")[0] for path in seen] == ["/a.json", "/a.json"]
    assert "302" in capsys.readouterr().err
