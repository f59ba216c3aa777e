"""Run one node until a stop signal: bind, open, publish the address, serve, close.

Access logs are off because a first visit has the token in its URL; the audit log records changes
and their users. Stopping ends all live streams first, so that it does not wait for a timeout.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from sennit import playground, run_file
from sennit.app import Application, create_app
from sennit.flight import serve_flight
from sennit.limits import protocols_for
from sennit.logs import configure, log_folder
from sennit.node import Node
from sennit.settings import NetworkSettings, Settings, flight_port, with_port
from sennit_core.errors import Conflict, SennitError
from sennit_core.private_files import make_private_folder

_GRACE_SECONDS = 2
_CHECKOUT_UMASK = 0o022  # a build writes to the source tree, which is not private


@dataclass(frozen=True, slots=True)
class Address:
    """The node's URL, without and with its token, and that of Flight SQL, None if it is off."""

    url: str
    login_url: str
    flight: str | None


def serve(
    data: Path,
    settings: Settings,
    *,
    on_up: Callable[[Address], None],
    with_playground: bool = True,
) -> None:
    """Serve a node from `data` until SIGINT or SIGTERM.

    Raises:
        Conflict: the port is in use, or another node serves the folder.
    """
    flight = flight_port(settings.network)  # before a port of 0 is replaced
    with _private_umask(), _bound_socket(settings.network) as listener:
        settings = with_port(settings, listener.getsockname()[1])
        logs = make_private_folder(log_folder(settings.logging, data))
        configure(settings.logging, logs)
        with Node.open(data, settings) as node, serve_flight(node, flight) as flight_url:
            application = create_app(node)
            address = _address(settings.network, run_token(data), flight_url)
            up = run_file.RunFile(
                *_self(), url=address.url, version=node.version, flight=flight_url
            )
            protocols = protocols_for(listener)

            def publish() -> None:
                up.write(data)
                node.lake.reserve.fill()
                on_up(address)
                node.prepare_executors()

            server = _Server(application, settings.network, protocols, publish)
            builder = _PlaygroundBuilder(application, logs) if with_playground else None
            try:
                if builder is not None:
                    builder.start()
                server.run(sockets=[listener])
            finally:
                run_file.remove(data)
                (data / run_file.LOGIN_PAGE).unlink(missing_ok=True)
                if builder is not None:
                    builder.stop()


def run_token(data: Path) -> str:
    """Return the admin token of a data folder that a node has opened before."""
    return (data / "admin.token").read_text(encoding="ascii").strip()


class _Server(uvicorn.Server):
    """uvicorn with a startup callback, streams ended before shutdown, and no re-raised signals."""

    def __init__(
        self,
        application: Application,
        network: NetworkSettings,
        protocols: Mapping[str, Any],
        on_up: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application, loop="uvloop", lifespan="off", **protocols,
                access_log=False, log_config=None, server_header=False, date_header=True,
                timeout_graceful_shutdown=_GRACE_SECONDS, ssl_certfile=network.tls_certificate,
                ssl_keyfile=network.tls_key,
            )
        )  # fmt: skip
        self._application = application
        self._on_up = on_up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._application.close()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again at the end, and the node would not be closed.
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.signal(number, self.handle_exit) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, previous, strict=True):
                signal.signal(number, handler)


class _PlaygroundBuilder:
    """Builds a checkout's playground in a child process while the node is already serving."""

    def __init__(self, application: Application, logs: Path) -> None:
        self._application = application
        self._log = logs / "playground.log"
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._build, name="playground", daemon=True)
        self._stopping = False

    def start(self) -> None:
        if playground.can_build():
            self._thread.start()
        elif playground.site() is None:
            self._application.pages.failed(playground.MISSING)

    def stop(self) -> None:
        """Terminate the build and its child processes, and wait for them."""
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            _end_session(self._child)
        if self._thread.is_alive():
            self._thread.join(timeout=_GRACE_SECONDS)

    def _build(self) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sennit.playground", "build"],
                stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                umask=_CHECKOUT_UMASK,
            )  # fmt: skip
            status = self._child.wait()
        if status and not self._stopping:
            self._application.pages.failed(f"the build failed; see {self._log}")


def _end_session(child: subprocess.Popen[str]) -> None:
    """Terminate a session: npm and Next start child processes, which share the build's session."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    except ProcessLookupError:
        return


@contextmanager
def _private_umask() -> Iterator[None]:
    """Set the umask so that this process and its executors create private files."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _bound_socket(network: NetworkSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in network.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((network.host, network.port))
        except OSError as error:
            raise _bind_error(network, error) from None
        yield listener


def _bind_error(network: NetworkSettings, error: OSError) -> SennitError:
    where = f"{network.host}:{network.port}"
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {network.port} is in use", hint="use another --port, or 0 for any free port"
        )
    if error.errno == errno.EACCES:
        return Conflict(f"no permission to bind {where}", hint="use a port above 1023")
    return Conflict(f"cannot listen on {where}: {error.strerror}", hint="see --host and --port")


def _address(network: NetworkSettings, token: str, flight: str | None) -> Address:
    scheme = "https" if network.tls_certificate else "http"
    host = f"[{network.host}]" if ":" in network.host else network.host
    url = f"{scheme}://{host}:{network.port}"
    return Address(url, f"{url}/?token={token}", flight)


def _self() -> tuple[int, int]:
    ticks = run_file.start_ticks(os.getpid())
    assert ticks is not None
    return os.getpid(), ticks
