"""Real nodes for tests: each its own process, its own data folder, a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sennit
from sennit import run_file


@dataclass(frozen=True)
class RunningNode:
    """A node that a test may talk to, or kill."""

    data: Path
    url: str
    token: str
    process: subprocess.Popen[bytes]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def session(self) -> sennit.Session:
        return sennit.connect(self.url, token=self.token)

    def kill(self) -> None:
        """End the node as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def platform(
    *arguments: str, data: Path, check: bool = True, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, against a data folder; `within` is a command that runs it."""
    done = subprocess.run(
        [*within, sys.executable, "-m", "sennit.cli", *arguments, "--data", str(data)],
        capture_output=True, text=True, check=False, timeout=120, env=quiet_environment(),
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


def quiet_environment() -> dict[str, str]:
    """The environment of a user: nothing that points at another node."""
    dropped = ("SENNIT_URL", "SENNIT_TOKEN", "SENNIT_DATA")
    return {key: value for key, value in os.environ.items() if key not in dropped}


@contextmanager
def running_node(data: Path, *arguments: str, within: Sequence[str] = ()) -> Iterator[RunningNode]:
    """Start a node in the foreground of its own process; stop it at the end if it still runs.

    Args:
        data: Its folder.
        arguments: Of `platform up`.
        within: A command that becomes the command which is appended to it.
    """
    command = [
        *within,
        sys.executable,
        "-m",
        "sennit.cli",
        "up",
        "--data",
        str(data),
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*command, "--json", *arguments],
        stdout=subprocess.PIPE, env=quiet_environment(), start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the node did not start: exit {process.wait()}"
        up = json.loads(line)
        token = (data / "admin.token").read_text().strip()
        yield RunningNode(data, up["url"], token, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=15)
        process.stdout.close()
    assert run_file.read(data) is None
