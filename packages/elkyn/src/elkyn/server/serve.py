"""`elkyn serve`: runs the app under uvicorn until a signal stops it."""

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

from elkyn.namespaces import open_namespaces
from elkyn.replication.leader_proxy import LeaderProxy
from elkyn.replication.link import read_token
from elkyn.server.admin_token import read_or_create_token
from elkyn.server.app import ElkynApp
from elkyn.server.auth_backend import AuthenticatorBackend
from elkyn.server.cors import LOOPBACK, Origins
from elkyn.server.limits import Limits
from elkyn.server.settings import ACK_SECONDS, KEEP_ALIVE_SECONDS, Settings, check_keep_alive
from elkyn.storage.durability import Durability
from sennit_core.errors import Unsupported, UsageError
from sennit_core.extras import install_hint
from sennit_core.logs import get_logger
from sennit_core.private_files import claim_folder

if TYPE_CHECKING:
    from elkyn.auth.settings import AuthSettings

_log = get_logger(__name__)

__all__ = ["DEFAULT_PORT", "Serving", "serve"]

DEFAULT_PORT = 9000
ACCOUNTS_FOLDER = ".secrets"
"""Folder of password hashes and keys, next to the namespaces; no namespace can have its name."""

PROMOTED = "promoted.json"
"""File that holds the URL of the leader that this server followed until it was promoted."""

# Streams are ended before (`Server.shutdown`), so this is for answers that are being sent.
_STOP_SECONDS = 3  # how long uvicorn waits for open requests after a signal


@dataclass(frozen=True, slots=True)
class Serving:
    """Options of `serve`.

    Args:
        data: folder of the namespaces; holds `admin.token` (0600) and the accounts too.
        host: the address to listen on; any other than loopback needs TLS or `insecure`.
        port: 0 picks a free one.
        namespaces: created at startup; requests without `?ns=` are for the first one.
        emulator: behave as the Firebase emulator: `Bearer owner` is the admin, unsigned tokens are
            accepted, namespaces are created on first use and open to any client while they have no
            rules. For tests and development; anyone who can connect is admin.
        allow_hosts: names in Host headers, and of the origins of web pages, that an emulator accepts
            in addition to loopback and IP addresses.
        insecure: allow listening without TLS on an address other than loopback.
        tls_cert: certificate chain (PEM); with `tls_key`, HTTPS and WSS are served.
        tls_key: its private key (PEM).
        origins: web origins that may read answers; `*` for every one.
        project: the audience of ID tokens, `projectId` in an app's configuration; None: the value
            in the auth file, else `elkyn`.
        auth: auth configuration file (TOML); see `AuthSettings.read`.
        keep_alive_seconds: silence on a stream after which a keep-alive is sent.
        limits: limits on what clients may use.
        follow: the URL of a leader to follow; this server then forwards all writes to the leader.
        follow_token_file: file with an admin's credential of the leader.
        ack: how many followers must acknowledge a write before it is answered.
        ack_seconds: how long to wait for acknowledgements, or for a position that a reader requires.
        durability: when writes reach the disk; see `ElkynStore`.
        archive: folder to which the logs of all namespaces are archived as they grow.
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
        """Whether the server uses TLS."""
        return self.tls_cert is not None

    def check(self) -> None:
        """Check the options.

        Raises:
            UsageError: the certificate or the key of TLS is missing, `host` is not loopback and
                neither TLS nor `insecure` is set, or `keep_alive_seconds` is out of range.
        """
        check_keep_alive(self.keep_alive_seconds)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError(
                "TLS needs a certificate and its key", hint="use both --tls-cert and --tls-key"
            )
        if self.allow_hosts and not self.emulator:
            raise UsageError(
                "--allow-host is for --emulator: other servers answer under every host name"
            )
        if self.host in LOOPBACK or self.emulator:
            return
        if not self.tls and not self.insecure:
            raise UsageError(
                f"refusing to listen on {self.host} without TLS",
                hint="use --tls-cert and --tls-key, or --insecure behind a proxy with TLS",
            )


def serve(
    serving: Serving,
    ready: Callable[[str, FilePath | None], object] = lambda _url, _token: None,
) -> None:
    """Serve a folder until SIGINT or SIGTERM.

    Args:
        serving: the options.
        ready: called with the URL and the file of the admin's token (None in emulator mode) once
            the server accepts requests.

    Raises:
        UsageError: the port is in use, or the options contradict each other.
    """
    serving.check()
    uvicorn = _uvicorn()
    from elkyn.server.http.fast_path import FastPath
    from elkyn.server.protocols import bounded_protocols

    _raise_file_limit()
    # Before anything is written: a folder of another account is refused.
    for message in claim_folder(serving.data).messages:
        _log.warning("%s", message)
    token_file = None if serving.emulator else serving.data / "admin.token"
    with ExitStack() as owned:
        listener = owned.enter_context(_listen(serving.host, serving.port))
        app = _app(serving, token_file, owned)
        protocols = bounded_protocols(
            listener, serving.limits, FastPath(app), on_slow_client=app.metrics.count_stalled
        )
        port = listener.getsockname()[1]
        url = f"{'https' if serving.tls else 'http'}://{_shown_host(serving.host)}:{port}"
        run_file = serving.data / "run.json"
        # A file that is left by a killed server is overwritten by the next one.
        owned.callback(run_file.unlink, missing_ok=True)

        def announce() -> None:
            _write_run(run_file, url, emulator=serving.emulator)
            ready(url, token_file)

        logging.getLogger("uvicorn.error").setLevel(
            logging.ERROR
        )  # no log line for each malformed request
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
    """Write URL and process id of the server, by which the CLI finds it from its folder."""
    fresh = file.with_suffix(".new")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w") as stream:
        json.dump({"url": url, "pid": os.getpid(), "emulator": emulator}, stream)
    # Renamed, so that the CLI never reads half of it.
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
    authenticator = owned.enter_context(Authenticator(auth, serving.data / ACCOUNTS_FOLDER))
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
        # Set before the server listens: no request may be answered as if this server led.
        app.leader_proxy = LeaderProxy(
            stores,
            serving.follow,
            read_token(serving.follow_token_file),
            own_token=token,
            state_file=serving.data / PROMOTED,
            accounts=authenticator,
        )
        authenticator.ask_leader(app.leader_proxy.authenticate)
    return app


def _auth_settings(serving: Serving, token: str | None) -> AuthSettings:
    from elkyn.auth.settings import AuthSettings

    options: dict[str, Any] = {"emulator": serving.emulator, "admin_token": token}
    if serving.project is not None:
        options["project"] = serving.project
    return (
        AuthSettings(**options)
        if serving.auth is None
        else AuthSettings.read(serving.auth, **options)
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
    # Else a restart fails for a minute while connections of the previous process are in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "choose another port with --port, or 0 for a free one"
        raise UsageError(f"port {port} cannot be used: {error.strerror}", hint=hint) from None
    return listener


def _raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit: each connection uses a file."""
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
            announce()  # only now does the server accept connections

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # uvicorn waits for open responses before it shuts the app down: end the streams first.
            await asyncio.to_thread(app.close)
            await super().shutdown(sockets=sockets)

    # uvicorn raises the signal again after its shutdown: turn it into an exception, so that the
    # stores are closed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    _collect_garbage_less()
    try:
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def _collect_garbage_less() -> None:
    """Collect garbage less often.

    Hundreds of requests in progress allocate much and leave no cycles behind; with the default
    thresholds the collector used a tenth of the CPU.
    """
    gc.collect()
    # What was imported lives as long as the process: no later collection looks at it again.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
