"""`elkyn serve` as users start it, in a process of its own, and clients to talk to it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
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

    def drain(self) -> list[Any]:
        """Return the pushes so far, and forget them."""
        pushes, self.pushes = self.pushes, []
        return pushes


class Served:
    """A served folder: its process, its URL, and a client that is the admin.

    Args:
        data: the folder.
        options: further words of `elkyn serve`; `--port` picks one that is free, and stays so
            when it is stopped and started again.
    """

    program: tuple[str, ...] = ("-m", "elkyn.cli")

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.emulator = "--emulator" in options
        self.port = "0"
        self._options = options
        self.start()

    def start(self) -> None:
        """Start it; returns when it serves."""
        command = [sys.executable, *self.program, "serve", "--data", str(self.data)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `_end`
        self.process = subprocess.Popen(
            [*command, "--port", self.port, *self._options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        serving = self.process.stdout.readline()
        self.access = self.process.stdout.readline()
        if not serving or not self.access:
            raise AssertionError(f"it did not start: {self._end()[1]}")
        self.url = serving.split()[-1]
        self.port = self.url.rpartition(":")[2]
        self.token = "owner" if self.emulator else (self.data / "admin.token").read_text().strip()
        self.headers = {"Authorization": f"Bearer {self.token}"}
        trusted = not self.url.startswith("https")
        self.client = httpx.Client(
            base_url=self.url, headers=self.headers, timeout=20, verify=trusted
        )

    def stop(self) -> tuple[int, str]:
        """Stop it as a service manager does; returns the exit code and what it logged."""
        self.client.close()
        self.process.terminate()
        return self._end()

    def kill(self) -> str:
        """End it as a loss of power would end its process; returns what it logged."""
        self.client.close()
        self.process.kill()
        return self._end()[1]

    def _end(self) -> tuple[int, str]:
        self.process.communicate(timeout=20)
        with self._log as log:
            log.seek(0)
            return self.process.returncode, log.read()

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
            yield (
                fields.get("event", ""),
                data,
                None if number is None else int(number.partition(".")[0]),
            )
            fields = {}


@contextmanager
def running(data: Path, *options: str) -> Iterator[Served]:
    """Serve `data` for a block; it must stop well."""
    served = Served(data, *options)
    try:
        yield served
    finally:
        code, logged = served.stop()
    assert code == 0, logged
    assert "Traceback" not in logged, logged


@contextmanager
def running_emulator(data: Path, *options: str) -> Iterator[str]:
    """Serve `data` as an emulator for a block; yields the URL."""
    with running(data, "--emulator", *options) as served:
        yield served.url


def until(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return the first true answer of `check`."""
    end = time.monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError, KeyError):
            found = check()
            if found:
                return found
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)
