"""Start and stop nodes: in the foreground, detached, or several on one machine."""

from __future__ import annotations

import gc
import html
import json
import os
import signal
import stat
import subprocess
import sys
import time
import webbrowser
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import typer

from sennit import run_file
from sennit.cli.output import emit_json
from sennit.settings import (
    GATEWAY_PORT,
    PORT_STEP,
    NetworkSettings,
    default_data,
    node_name,
)
from sennit_core.errors import Unavailable, UsageError
from sennit_core.private_files import FILE_MODE, make_private_folder
from sennit_core.units import parse_bytes

_UP_SECONDS = 60
_RAY_SECONDS = 150
_DOWN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Start:
    """The options of `platform up`."""

    data: Path | None
    port: int | None
    host: str | None
    memory: str | None
    nodes: int
    demo: bool
    detach: bool
    open_browser: bool
    api_only: bool
    insecure: bool
    no_flight: bool
    allowed_hosts: tuple[str, ...]
    as_json: bool
    join: str | None = None
    name: str | None = None
    ray: str | None = None

    @property
    def folder(self) -> Path:
        """The data folder of the first node."""
        return (self.data or default_data()).resolve()

    @property
    def only_at_start(self) -> bool:
        """Whether any option is set that has an effect only when a node starts."""
        options = (
            self.port,
            self.host,
            self.memory,
            self.allowed_hosts or None,
            self.name,
            self.ray,
        )
        switches = (self.insecure, self.api_only, self.no_flight)
        return any(value is not None for value in options) or any(switches)

    def arguments(self) -> dict[str, dict[str, object]]:
        """Return the command-line options as settings."""
        network = {
            "host": self.host,
            "port": self.port,
            "insecure": self.insecure or None,
            "allowed_hosts": self.allowed_hosts or None,
            "flight": False if self.no_flight else None,
            "name": self.name,
        }
        emsqrt = {"memory_bytes": parse_bytes(self.memory) if self.memory else None}
        elytra = {"ray": self.ray}
        return {
            section: {key: value for key, value in values.items() if value is not None}
            for section, values in (("network", network), ("emsqrt", emsqrt), ("elytra", elytra))
        }


def start(wanted: Start) -> None:
    """Start the nodes; a single foreground node runs in this process."""
    if wanted.nodes > 1 and wanted.ray is not None:
        raise UsageError(
            "--ray is an option of one node, not of --nodes",
            hint="start a node of its own with --ray, and let it join the network",
        )
    if wanted.nodes > 1:
        _start_several(wanted)
    elif wanted.detach:
        if not _is_up(wanted):
            _announce(wanted, _spawn(wanted), wanted.folder)
        if wanted.join is not None:
            _join(wanted.folder, wanted.join)
        if wanted.demo:
            _run_demo(wanted.folder).wait()
    else:
        _serve_here(wanted)


def _is_up(wanted: Start) -> bool:
    """Return whether the folder's node is already running; if so, print its address.

    Starting twice is not an error unless an option is set that has an effect only at startup.

    Raises:
        Conflict: the running node was started without these options, or has not started yet.
    """
    running = run_file.read(wanted.folder)
    if running is None or wanted.only_at_start:
        run_file.check_free(wanted.folder)
        return False
    _show_running(wanted, running, word="already up")
    return True


def _show_running(
    wanted: Start, running: run_file.RunFile, *, word: str = "up", subject: str = "Sennit"
) -> None:
    from sennit.serve import run_token

    login_url = f"{running.url}/?token={run_token(wanted.folder)}"
    said = f"{subject} is {word}"
    _print_address(wanted, running.url, login_url, running.pid, running.flight, said=said)
    if wanted.open_browser:
        _open_browser(wanted.folder, login_url)


def _serve_here(wanted: Start) -> None:
    # Imports leave no garbage: with the default thresholds the collector used a twelfth of the CPU
    # time of a start. They stay, as a node that serves the tree allocates much and leaves few cycles.
    gc.set_threshold(20_000, 20, 20)
    from sennit.serve import Address, serve
    from sennit.settings_loading import load

    run_file.check_free(wanted.folder)  # otherwise the error would be that the port is in use
    helpers: list[subprocess.Popen[bytes]] = []

    def on_up(address: Address) -> None:
        gc.freeze()  # what was imported is not looked at again
        _print_address(wanted, address.url, address.login_url, os.getpid(), address.flight)
        if wanted.open_browser:
            _open_browser(wanted.folder, address.login_url)
        if wanted.join is not None:
            helpers.append(_run_join(wanted.folder, wanted.join))
        if wanted.demo:
            helpers.append(_run_demo(wanted.folder))

    settings = load(wanted.folder, wanted.arguments())
    try:
        serve(wanted.folder, settings, on_up=on_up, with_playground=not wanted.api_only)
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.terminate()
            helper.wait()


def _run_demo(data: Path) -> subprocess.Popen[bytes]:
    """Start the demo as an ordinary client in a separate process."""
    return subprocess.Popen([sys.executable, "-m", "sennit.demo", "--data", str(data)])


def _run_join(data: Path, invite: str) -> subprocess.Popen[bytes]:
    """Start to join a network as an ordinary client in a separate process, which prints the result."""
    # Through its input: other accounts can see a process's arguments.
    command = [sys.executable, "-m", "sennit.cli", "net", "join", "-", "--data", str(data)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert child.stdin is not None, "a pipe"
    with child.stdin:
        child.stdin.write(invite.encode())
    return child


def _join(data: Path, invite: str) -> None:
    from sennit.client import Session

    with Session.open(None, token=None, data=data) as session:
        session.network.join(invite)


def _form_network(folders: Sequence[Path]) -> None:
    """Let nodes of this machine form a network, those that are in none yet; the first invites."""
    from sennit.client import Session

    with Session.open(None, token=None, data=folders[0]) as first:
        for folder in folders[1:]:
            with Session.open(None, token=None, data=folder) as other:
                if other.network.show()["network"] is None:
                    other.network.join(first.network.invite())


def _start_several(wanted: Start) -> None:
    """Start node 0 on the folder itself, and node i on `<data>/nodes/<i>` and port + 10·i.

    They form a network, in which each has the name of the host and its number.
    """
    base = wanted.port if wanted.port is not None else GATEWAY_PORT
    name = wanted.name or node_name(NetworkSettings())
    each = [
        replace(
            wanted,
            data=wanted.folder if index == 0 else wanted.folder / "nodes" / str(index),
            name=f"{name[:60]}-{index}",
            port=base and base + PORT_STEP * index,
            nodes=1, demo=False, join=None, detach=True, open_browser=wanted.open_browser and index == 0,
            api_only=wanted.api_only or index > 0,
        )
        for index in range(wanted.nodes)
    ]  # fmt: skip
    for one in each:  # before starting any node, because a failure below stops all of them
        run_file.check_free(one.folder)
    try:
        for one in each:
            _announce(one, _spawn(one), one.folder, of_several=True)
        _form_network([one.folder for one in each])
        if wanted.join is not None:
            _join(wanted.folder, wanted.join)
        if not wanted.as_json:
            typer.echo(f"Sennit is up: {wanted.nodes} nodes of one network")
        if wanted.demo:
            _run_demo(wanted.folder).wait()
        if not wanted.detach:
            typer.echo("Press Ctrl-C to stop all nodes.")
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
    except BaseException:
        stop_all(wanted.folder)
        raise


def _spawn(wanted: Start) -> subprocess.Popen[bytes]:
    """Start a node in its own session, with its output in logs/up.log."""
    logs = make_private_folder(wanted.folder / "logs")
    command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(wanted.folder)]
    for flag, value in (
        ("--port", wanted.port),
        ("--host", wanted.host),
        ("--memory", wanted.memory),
        ("--name", wanted.name),
        ("--ray", wanted.ray),
    ):
        if value is not None:
            command += [flag, str(value)]
    for host in wanted.allowed_hosts:
        command += ["--allow-host", host]
    command += [
        flag
        for flag, on in (
            ("--api-only", wanted.api_only),
            ("--insecure", wanted.insecure),
            ("--no-flight", wanted.no_flight),
        )
        if on
    ]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(logs / "up.log", flags, FILE_MODE), "wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def _announce(
    wanted: Start, child: subprocess.Popen[bytes], data: Path, *, of_several: bool = False
) -> None:
    """Wait until the spawned node is up and print its address; if it fails, print its output."""
    # Of several nodes none is what was asked for before they have formed their network.
    subject = f"Node {wanted.name}" if of_several else "Sennit"
    # With a cluster, the node is up when that has started or answered.
    deadline = time.monotonic() + _UP_SECONDS + (_RAY_SECONDS if wanted.ray else 0)
    while time.monotonic() < deadline:
        running = run_file.read(data)
        exited = child.poll() is not None
        if running is not None and (running.pid == child.pid or exited):
            # Of two concurrent `up` commands one starts the node, and both succeed.
            word = "already up" if exited else "up"
            _show_running(wanted, running, word=word, subject=subject)
            # The node outlives this command on purpose: keep Popen from warning about the child.
            child.returncode = 0
            return
        if exited and not run_file.is_owned(data):
            break
        time.sleep(0.05)
    output = (data / "logs" / "up.log").read_text(encoding="utf-8", errors="replace").strip()
    if child.returncode and output and not wanted.as_json:
        print(output, file=sys.stderr)  # the node's error and hint, with the node's exit status
        raise typer.Exit(child.returncode)
    raise Unavailable(
        "the node",
        message=f"the node did not start: {output or 'no output'}",
        hint=f"see {data / 'logs'}",
    )


def _print_address(
    wanted: Start,
    url: str,
    login_url: str,
    pid: int,
    flight: str | None,
    *,
    said: str = "Sennit is up",
) -> None:
    if wanted.as_json:
        where = {"url": url, "loginUrl": login_url, "flight": flight}
        emit_json({**where, "pid": pid, "data": str(wanted.folder)})
    else:
        typer.echo(f"{said}: {url if _is_kept(sys.stdout) else login_url}")
        if flight is not None:
            typer.echo(f"Flight SQL: {flight}")
        if not wanted.detach:
            typer.echo("Press Ctrl-C to stop it.")
    sys.stdout.flush()
    if not wanted.api_only:
        from sennit import playground

        if playground.site() is None and not playground.can_build():
            typer.echo(f"note: {playground.MISSING}", err=True)


def _is_kept(stream: TextIO) -> bool:
    """Whether the output is stored in a file or the system log, which must not contain tokens."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # no descriptor: a test's buffer
        return False
    return stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _open_browser(data: Path, login_url: str) -> None:
    """Open the login page through a private file: all accounts can see a process's arguments."""
    page = data / run_file.LOGIN_PAGE
    descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={html.escape(login_url)}">\n')
    webbrowser.open(page.as_uri())


def stop_all(data: Path) -> list[str]:
    """Stop all nodes of a folder, the additional ones first; return their URLs."""
    folders = [*sorted((data / "nodes").glob("*"), reverse=True), data]
    return [url for folder in folders if (url := _stop(folder)) is not None]


def _stop(data: Path) -> str | None:
    running = run_file.read(data)
    if running is None:
        return None
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while running.alive():
        if time.monotonic() > deadline:
            raise Unavailable(
                "the node",
                message=f"node {running.pid} did not stop within {_DOWN_SECONDS} s",
                hint=f"see {data / 'logs'}; `kill -9 {running.pid}` loses nothing acknowledged",
            )
        time.sleep(0.05)
    return running.url


def tail(data: Path, which: str, lines: int, *, follow: bool, as_json: bool) -> None:
    """Print the last `lines` of a log; with `follow`, also print new lines as they are written."""
    from sennit.logs import log_folder
    from sennit.settings_loading import logging_settings

    path = log_folder(logging_settings(data), data) / f"{which}.log"
    if not path.parent.is_dir():
        raise UsageError(
            f"there is no log in {path.parent}", hint="check --data: no node has run there"
        )
    if not path.exists():
        typer.echo(f"the {which} log is empty", err=True)
    while follow and not path.exists():
        time.sleep(0.2)
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            typer.echo(line if as_json else _readable(line), nl=False)
        while follow:
            line = file.readline()
            if line:
                typer.echo(line if as_json else _readable(line), nl=False)
            else:
                time.sleep(0.2)


def _readable(line: str) -> str:
    """Format a JSON log line as text; return any other line unchanged."""
    try:
        entry = json.loads(line)
        words = [entry["time"], f"{entry['level']:7}", f"{entry['logger']}: {entry['message']}"]
    except (ValueError, TypeError, KeyError):
        return line
    known = ("time", "level", "logger", "message", "traceback")
    words += [f"{key}={value}" for key, value in entry.items() if key not in known]
    return " ".join(words) + "\n" + (f"{entry['traceback']}\n" if "traceback" in entry else "")
