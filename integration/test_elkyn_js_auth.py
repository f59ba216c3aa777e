"""The vendor's auth SDK for JavaScript, in Node, against a real `elkyn serve --emulator`."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of a server that is no emulator, and its admin's token."""
    data = tmp_path / "data"
    command = [sys.executable, "-m", "elkyn.cli", "serve", "--data", str(data), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        process.stdout.readline()
        yield url, (data / "admin.token").read_text().strip()
        process.terminate()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "elkyn.cli", "serve", "--emulator", "--port", "0"]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


def test_the_javascript_sdk_signs_people_in(sdk_folder: Path, url: str) -> None:
    done = subprocess.run(
        ["node", "auth.mjs", url], cwd=sdk_folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_app_needs_two_lines_to_be_told_of_this_server(
    sdk_folder: Path, served: tuple[str, str]
) -> None:
    url, token = served
    request = urllib.request.Request(
        f"{url}/.settings/rules.json",
        json.dumps(RULES).encode(),
        {"Authorization": f"Bearer {token}"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=20).close()
    host, port = url.removeprefix("http://").split(":")
    done = subprocess.run(
        ["node", "app.mjs", host, port, token],
        cwd=sdk_folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
