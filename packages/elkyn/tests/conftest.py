"""Real servers for tests: `elkyn serve` as users start it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect


class Wire:
    """A socket of the realtime protocol, spoken by hand."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.pushes: list[Any] = []
        self._answers: dict[int, Any] = {}
        self.hello = self.read()["d"]
        self._number = 0

    def read(self) -> Any:
        """Return the next message, put together from its frames."""
        frame = self.socket.recv(timeout=20)
        assert isinstance(frame, str)
        if frame.isdecimal():
            frame = "".join(str(self.socket.recv(timeout=20)) for _ in range(int(frame)))
        return json.loads(frame)

    def send(self, action: str, **body: Any) -> int:
        """Send a request; returns its number."""
        self._number += 1
        message = {"t": "d", "d": {"r": self._number, "a": action, "b": body}}
        text = json.dumps(message)
        frames = [text[at : at + 16384] for at in range(0, len(text), 16384)]
        for frame in frames if len(frames) == 1 else [str(len(frames)), *frames]:
            self.socket.send(frame)
        return self._number

    def answer(self, number: int) -> Any:
        """Return the answer to a request; what comes before it is in `pushes`."""
        while number not in self._answers:
            message = self.read()["d"]
            if "r" in message:
                self._answers[message["r"]] = message["b"]
            else:
                self.pushes.append((message["a"], message["b"]))
        return self._answers.pop(number)

    def ask(self, action: str, **body: Any) -> Any:
        """Send a request and return its answer."""
        return self.answer(self.send(action, **body))

    def taken(self) -> list[Any]:
        """Return the pushes so far, and forget them."""
        pushes, self.pushes = self.pushes, []
        return pushes


class Served:
    """A served folder: its process, its URL and a client that is the admin."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        command = [sys.executable, "-m", "elkyn.cli", "serve", "--data", str(data), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.process.stdout.readline()
        token = "owner" if "--emulator" in options else (data / "admin.token").read_text().strip()
        self.headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=self.url, headers=self.headers, timeout=20)

    def stop(self) -> tuple[int, str]:
        """Stop it as a service manager does; returns the exit code and what it logged."""
        self.client.close()
        self.process.terminate()
        _out, logged = self.process.communicate(timeout=20)
        return self.process.returncode, logged

    def rules(self, namespace: str, rules: Any) -> None:
        """Replace the rules of a namespace."""
        answer = self.client.put(f"/.settings/rules.json?ns={namespace}", json={"rules": rules})
        assert answer.status_code == 200, answer.text

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[Iterator[tuple[str, Any, int | None]]]:
        """Open an event stream; yields events as (name, data, id)."""
        sent = {"Accept": "text/event-stream", **headers}
        with self.client.stream("GET", path, headers=sent) as response:
            assert response.status_code == 200, response.read()
            yield _events(response.iter_lines())

    @contextmanager
    def wire(self, namespace: str) -> Iterator[Wire]:
        """Open a socket of the realtime protocol."""
        url = f"{self.url.replace('http', 'ws', 1)}/.ws?v=5&ns={namespace}"
        with connect(url, max_size=None, open_timeout=20) as socket:
            yield Wire(socket)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any, int | None]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _colon, value = line.partition(":")
            fields[name] = value.lstrip()
        elif fields:
            number = fields.get("id")
            data = json.loads(fields["data"]) if "data" in fields else None
            yield fields.get("event", ""), data, None if number is None else int(number)
            fields = {}


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers for one test."""
    started: list[Served] = []

    def start(*options: str, data: Path = tmp_path / "data") -> Served:
        started.append(Served(data, *options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One emulator for the tests of a module, each with a namespace of its own."""
    served = Served(tmp_path_factory.mktemp("emulator"), "--emulator", "--keep-alive", "1")
    yield served
    code, logged = served.stop()
    assert code == 0
    assert "Traceback" not in logged, logged
