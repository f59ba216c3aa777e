"""What a node keeps is for its account alone, and its admin token is in one file only."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import sennit
from nodes import platform
from sennit import run_file

UP = ("up", "--detach", "--api-only", "--port", "0", "--memory", "1GiB")


@pytest.fixture(autouse=True)
def common_umask() -> Iterator[None]:
    """The default of most systems: others may read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a detached node after a session of use."""
    folder = tmp_path / "data"
    platform(*UP, data=folder)
    try:
        use(folder)
        yield folder
    finally:
        platform("down", data=folder)


def use(folder: Path) -> None:
    """Log in by URL and by header, upload, query, run a job, fail to log in."""
    running = run_file.read(folder)
    assert running is not None
    token = (folder / "admin.token").read_text().strip()
    with httpx.Client(base_url=running.url, params={"token": token}) as browser:
        assert browser.get("/").status_code < 400
        browser.get("/nothing-here")
        browser.post("/api/query", json={"sql": f"select '{token[:8]}' from nowhere"})
    httpx.get(f"{running.url}/api/stats", headers={"authorization": f"Basic {token}"})
    source = folder.parent / "people.csv"
    source.write_text("name,age\nAnn,40\nBob,50\n")
    with sennit.connect(running.url, token=token) as session:
        session.put(source)
        assert session.sql("select sum(age) from people").value == 90
        session.pipeline("people").filter("age > 45").submit().result()
        session.tree.set("/notes/a", {"text": "private"})


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_symlink()]


def test_no_other_account_can_read_what_a_node_keeps(data: Path) -> None:
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [data, *files_below(data)]}

    assert {str(p): oct(mode) for p, mode in modes.items() if mode & 0o077} == {}
    kept = {path.relative_to(data).parts[0] for path in modes if path != data}
    assert kept >= {"elkyn", "lake", "logs", "run.json", "admin.token"}


@pytest.mark.nightly
def test_the_admin_token_is_in_its_file_only(data: Path) -> None:
    token = (data / "admin.token").read_text().strip()
    running = run_file.read(data)
    assert running is not None
    node = psutil.Process(running.pid)

    platform("status", data=data)
    arguments = [process.cmdline() for process in [node, *node.children(recursive=True)]]
    platform("down", data=data)

    holding = [
        str(path.relative_to(data))
        for path in files_below(data)
        if path.is_file() and token.encode() in path.read_bytes()
    ]
    assert holding == ["admin.token"]
    assert not any(token in argument for command in arguments for argument in command)


@pytest.mark.nightly
def test_a_folder_that_others_could_read_is_mended_at_the_start(data: Path) -> None:
    platform("down", data=data)
    for path in [data, *files_below(data)]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    platform(*UP, data=data)

    open_now = [str(p) for p in [data, *files_below(data)] if p.lstat().st_mode & 0o077]
    log = (data / "logs" / "system.log").read_text().splitlines()
    messages = [json.loads(line)["message"] for line in log]
    assert open_now == []
    assert any("other accounts could access" in message for message in messages)
