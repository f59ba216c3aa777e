"""The vendor's auth SDK for JavaScript, in Node, against a real `elkyn serve --emulator`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from elkyn_server import Served, running, running_emulator

RULES = {
    "rules": {
        "users": {
            "$userId": {
                ".read": "$userId === auth.uid || auth.admin === true",
                ".write": "$userId === auth.uid",
            }
        }
    }
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with running(tmp_path / "data") as started:
        yield started


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with running_emulator(tmp_path / "data") as started:
        yield started


def test_the_javascript_sdk_signs_people_in(sdk_folder: Path, url: str) -> None:
    done = subprocess.run(
        ["node", "auth.mjs", url], cwd=sdk_folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_app_needs_two_lines_to_use_this_server(sdk_folder: Path, served: Served) -> None:
    served.rules("default", RULES["rules"])
    host, port = served.url.removeprefix("http://").split(":")
    done = subprocess.run(
        ["node", "app.mjs", host, port, served.token],
        cwd=sdk_folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
