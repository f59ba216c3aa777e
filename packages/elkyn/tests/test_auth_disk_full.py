"""The account store on a disk without room: nothing breaks, and signing up works again when there is some."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from elkyn.auth.account_store import AccountStore, User
from elkyn.auth.authenticator import Authenticator, AuthSettings
from elkyn.auth.endpoints import AuthRequest
from sennit_core.errors import StorageFull

SIGN_UP = "/identitytoolkit.googleapis.com/v1/accounts:signUp"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(b"x" * 4096):
            pass


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    with Authenticator(AuthSettings(), small_disk / "v") as auth:
        kept = auth.users.create("kept")
        ballast = small_disk / "ballast"
        fill(ballast)
        with pytest.raises(StorageFull):
            auth.users.create("large", photo_url="x" * 2048, claims={"a": "x" * 900})
        response = auth.answer(AuthRequest("POST", SIGN_UP, body=b'{"displayName": "x"}'))
        assert response.status == 507
        assert json.loads(response.body)["error"]["code"] == 507
        assert auth.users.get("kept") == kept
        ballast.unlink()
        assert auth.answer(AuthRequest("POST", SIGN_UP, body=b"{}")).status == 200


@pytest.mark.crash
def test_a_user_that_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from elkyn.auth.account_store import User, AccountStore\n"
        "account_store = AccountStore(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    account_store.write(lambda pages: pages.put_user(User(f'u{number}', email=f'{number}@b.c')))\n"
        "    print(number, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "v")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(50):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        last = [49, *map(int, process.stdout.read().split())][-1]
    with AccountStore(tmp_path / "v") as account_store, account_store.read() as pages:
        for number in range(last + 1):
            user = pages.user(f"u{number}")
            assert user is not None
            assert pages.user_named("email", f"{number}@b.c") == user
        account_store.write(lambda pages: pages.put_user(User("after")))
