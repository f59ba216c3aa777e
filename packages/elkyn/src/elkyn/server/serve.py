"""`elkyn serve`: the app under uvicorn, on loopback, stopped promptly."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from elkyn.durability import Durability
from elkyn.namespaces import open_namespaces
from elkyn.replica.link import read_token
from elkyn.server.app import ElkynApp
from elkyn.server.auth import read_or_create_token
from elkyn.server.door import AuthenticatorBackend
from elkyn.server.following import LeaderProxy
from elkyn.server.limits import Limits
from elkyn.server.origins import LOOPBACK, Origins
from elkyn.server.settings import ACK_SECONDS, KEEP_ALIVE_SECONDS, Settings, check_keep_alive
from sennit_core.errors import Unsupported, UsageError
from sennit_core.extras import install_hint
from sennit_core.logs import get_logger
from sennit_core.private_files import claim_folder

if TYPE_CHECKING:
    from elkyn.auth.settings import AuthSettings

_log = get_logger(__name__)

__all__ = ["DEFAULT_PORT", "Serving", "serve"]

DEFAULT_PORT = 9000
VAULT = ".secrets"
"""Folder of password hashes and keys, beside the namespaces; no namespace can have that name."""

PROMOTED = "promoted.json"
"""Names the leader that this server has followed until it was promoted."""

_STOP_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Serving:
    """How a folder is served.

    Args:
        data: folder of the namespaces; holds `admin.token` (0600) and the accounts too.
        host: the address to listen at; another than loopback needs TLS or `insecure`.
        port: 0 picks a free one.
        namespaces: created at the start; requests without `?ns=` are for the first one.
        emulator: as the Firebase emulator: `Bearer owner` is the admin, unsigned tokens count,
            namespaces are made on first use and open to everybody while they have no rules. For
            tests and development; anyone who can reach it is admin.
        allow_hosts: names in Host headers, and of the origins of web pages, that an emulator serves
            as well as loopback and addresses.
        insecure: allow an address that others can reach without TLS.
        tls_cert: certificate chain (PEM); with `tls_key`, HTTPS and WSS are served.
        tls_key: its private key (PEM).
        origins: web origins that may read answers; `*` for every one.
        project: the audience of ID tokens, `projectId` in an app's configuration; None: what the
            file says, else `elkyn`.
        auth: file (TOML) that says who is trusted; see `AuthSettings.read`.
        keep_alive_seconds: silence on a stream after which a keep-alive is sent.
        limits: what clients may ask for.
        follow: the URL of a leader to follow: this server then writes nothing itself.
        follow_token_file: holds an admin's credential there.
        ack: how many followers must have a write before it is answered.
        ack_seconds: how long to wait for them, or for a position that a reader asks for.
        durability: when writes reach the disk; see `ElkynStore`.
        archive: where the logs of all namespaces are archived as they grow.
    """

    data: FilePath
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    namespaces: tuple[str, ...] = ("default",)
    emulator: bool = False
    allow_hosts: tuple[str, ...] = ()
    insecure: bool = False
    tls_cert: FilePath | None = None
    tls_key: FilePath | None = None
    origins: tuple[str, ...] = ("*",)
    project: str | None = None
    auth: FilePath | None = None
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    limits: Limits = field(default_factory=Limits)
    follow: str | None = None
    follow_token_file: FilePath | None = None
    ack: int = 0
    ack_seconds: float = ACK_SECONDS
    durability: Durability = "always"
    archive: FilePath | None = None

    @property
    def tls(self) -> bool:
        """Whether it is served over TLS."""
        return self.tls_cert is not None

    def check(self) -> None:
        """Refuse what would be a mistake.

        Raises:
            UsageError: half of TLS is missing, others could listen in, or keep-alives come too
                seldom.
        """
        check_keep_alive(self.keep_alive_seconds)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs a certificate and its key", hint="--tls-cert, --tls-key")
        if self.allow_hosts and not self.emulator:
            raise UsageError(
                "--allow-host is for --emulator: other servers answer under every host name"
            )
        if self.host in LOOPBACK or self.emulator:
            return
        if not self.tls and not self.insecure:
            raise UsageError(
                f"{self.host} can be reached by others, and nothing would be encrypted",
                hint="give --tls-cert and --tls-key, or --insecure behind a proxy that does it",
            )


def serve(
    serving: Serving,
    ready: Callable[[str, FilePath | None], object] = lambda _url, _token: None,
) -> None:
    """Serve a folder until SIGINT or SIGTERM.

    Args:
        serving: how.
        ready: called with the URL and the file of the admin's token (None in emulator mode) once
            requests are served.

    Raises:
        UsageError: the port is taken, or the options make no sense together.
    """
    serving.check()
    uvicorn = _uvicorn()
    from elkyn.server.plain import FastPath
    from elkyn.server.protocols import bounded_protocols

    _raise_file_limit()
    for message in claim_folder(serving.data).messages:
        _log.warning("%s", message)
    token_file = None if serving.emulator else serving.data / "admin.token"
    with ExitStack() as owned:
        listener = owned.enter_context(_listen(serving.host, serving.port))
        app = _app(serving, token_file, owned)
        protocols = bounded_protocols(
            listener, serving.limits, FastPath(app), stalled=app.metrics.count_stalled
        )
        port = listener.getsockname()[1]
        url = f"{'https' if serving.tls else 'http'}://{_shown_host(serving.host)}:{port}"
        run_file = serving.data / "run.json"
        owned.callback(run_file.unlink, missing_ok=True)

        def announce() -> None:
            _write_run(run_file, url, emulator=serving.emulator)
            ready(url, token_file)

        logging.getLogger("uvicorn.error").setLevel(
            logging.ERROR
        )  # not a line for each bad request
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
            timeout_keep_alive=75,
            **protocols,
            ws_max_size=1024 * 1024,
            ws_per_message_deflate=False,
            ssl_certfile=serving.tls_cert,
            ssl_keyfile=serving.tls_key,
        )
        _run(uvicorn, config, app, listener, announce)


def _write_run(file: FilePath, url: str, *, emulator: bool) -> None:
    """Say where the server is: the verbs find it by the folder."""
    fresh = file.with_suffix(".new")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w") as stream:
        json.dump({"url": url, "pid": os.getpid(), "emulator": emulator}, stream)
    fresh.replace(file)


def _app(serving: Serving, token_file: FilePath | None, owned: ExitStack) -> ElkynApp:
    from elkyn.auth.authenticator import Authenticator

    token = None if token_file is None else read_or_create_token(token_file)
    stores = owned.enter_context(
        open_namespaces(serving.data, archive=serving.archive, durability=serving.durability)
    )
    for namespace in serving.namespaces:
        stores[namespace]
    auth = _auth_settings(serving, token)
    authenticator = owned.enter_context(Authenticator(auth, serving.data / VAULT))
    if serving.emulator:
        origins = Origins(loopback_only=True, hosts=serving.allow_hosts)
    else:
        origins = Origins(serving.origins)
    settings = Settings(
        default_namespace=serving.namespaces[0],
        create_namespaces=serving.emulator,
        keep_alive_seconds=serving.keep_alive_seconds,
        limits=serving.limits,
        origins=origins,
        dashboard="owner" if serving.emulator else "token",
        ack=serving.ack,
        ack_seconds=serving.ack_seconds,
    )
    app = ElkynApp(stores, AuthenticatorBackend(authenticator, serving.emulator), settings)
    owned.callback(app.close)
    if serving.follow is not None:
        app.leader_proxy = LeaderProxy(
            stores,
            serving.follow,
            read_token(serving.follow_token_file),
            own_token=token,
            state_file=serving.data / PROMOTED,
            accounts=authenticator,
        )
        authenticator.ask_leader(app.leader_proxy.identify)
    return app


def _auth_settings(serving: Serving, token: str | None) -> AuthSettings:
    from elkyn.auth.settings import AuthSettings

    given: dict[str, Any] = {"emulator": serving.emulator, "admin_token": token}
    if serving.project is not None:
        given["project"] = serving.project
    return (
        AuthSettings(**given) if serving.auth is None else AuthSettings.read(serving.auth, **given)
    )


def _uvicorn() -> Any:
    try:
        import uvicorn
    except ImportError:
        raise Unsupported(
            "serving needs uvicorn",
            hint=install_hint("sennit-elkyn", "uvicorn", "httptools", "websockets", "orjson"),
        ) from None
    return uvicorn


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "choose another with --port, or 0 for a free one"
        raise UsageError(f"port {port} cannot be used: {error.strerror}", hint=hint) from None
    return listener


def _raise_file_limit() -> None:
    """Allow as many connections as the system does: each takes a file."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _run(
    uvicorn: Any,
    config: Any,
    app: ElkynApp,
    listener: socket.socket,
    announce: Callable[[], object],
) -> None:
    class Server(uvicorn.Server):  # type: ignore[misc]  # untyped when the extra is missing
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            announce()  # not before: until now connections were refused

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # uvicorn waits for open responses before it tells the app: end the streams first.
            await asyncio.to_thread(app.close)
            await super().shutdown(sockets=sockets)

    # uvicorn raises the signal again when it is done: make that an exception, stores are to close.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    _calm_collector()
    try:
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _calm_collector() -> None:
    """Look for garbage seldom: hundreds of requests at once are none, and were a tenth of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
