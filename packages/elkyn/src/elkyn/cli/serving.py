"""`elkyn serve`: a folder over HTTP and WebSocket."""

from __future__ import annotations

import argparse
import os
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from elkyn.cli.command import Subparsers, add_command
from sennit_core.errors import SennitError
from sennit_core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from elkyn.server.serve import Serving

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the command `serve`."""
    serve = add_command(
        subparsers,
        "serve",
        _serve,
        "serve a folder over Firebase's REST and realtime protocols",
        data=False,
    )
    serve.add_argument(
        "--data", type=FilePath, required=True, help="data folder with the namespaces"
    )
    serve.add_argument(
        "--namespace",
        action="append",
        metavar="NAME",
        help="namespace to create; may be repeated; requests without ?ns= use the first (default)",
    )
    _add_addresses(serve)
    serve.add_argument("--project", help="audience of ID tokens (elkyn)")
    serve.add_argument(
        "--auth", type=FilePath, metavar="TOML", help="auth configuration file; see docs/auth.md"
    )
    serve.add_argument(
        "--keep-alive",
        type=float,
        default=25.0,
        metavar="SECONDS",
        help="interval of keep-alive events on event streams (25)",
    )
    _add_limits(serve)
    _add_replicas(serve)
    serve.add_argument(
        "--durability",
        default="always",
        choices=["always", "interval", "none"],
        help="when writes are synced to disk: before the response, every 100 ms, or at exit (always)",
    )
    serve.add_argument(
        "--archive", type=FilePath, metavar="DIR", help="folder to archive the log of writes in"
    )
    serve.add_argument(
        "--log-level",
        default="warning",
        choices=["debug", "info", "warning", "error"],
        help="minimum level; info logs every request (warning)",
    )
    serve.add_argument(
        "--log-format", default="json", choices=["json", "text"], help="format of log lines (json)"
    )


def _add_addresses(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--port", type=int, default=9000, help="port to listen on; 0: a free port (9000)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--tls-cert", type=FilePath, metavar="PEM", help="certificate chain")
    serve.add_argument(
        "--tls-key", type=FilePath, metavar="PEM", help="private key of the certificate"
    )
    serve.add_argument(
        "--insecure", action="store_true", help="listen on a network address without TLS"
    )
    serve.add_argument(
        "--emulator", action="store_true", help="'Bearer owner' is the admin (development only)"
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name that the emulator accepts in addition to localhost and IP addresses; may be"
        " repeated",
    )
    serve.add_argument(
        "--origin",
        action="append",
        metavar="URL",
        help="web origin that may read responses; may be repeated (*)",
    )


_SIZES = {
    "body-limit": ("body_bytes", "largest request body"),
    "body-memory": ("body_memory_bytes", "memory of all request bodies in progress"),
    "message-limit": ("message_bytes", "largest message on a WebSocket"),
    "unsent-limit": ("unsent_bytes", "buffered large responses of all clients"),
    "client-unsent-limit": ("client_unsent_bytes", "buffered large responses of one client"),
}
_COUNTS = {
    "node-limit": ("body_nodes", "values in one body over 64 KiB, or in one message"),
    "connection-limit": ("connections", "concurrent connections"),
    "request-limit": ("requests", "concurrent requests"),
    "stream-limit": ("streams", "concurrent event streams"),
    "socket-limit": ("sockets", "concurrent WebSockets"),
    "listen-limit": ("listens", "listens of one WebSocket"),
}
"""Options, the field of `Limits` that each sets, and its help text."""


def _add_bounds(serve: argparse.ArgumentParser) -> None:
    from elkyn.server.limits import Limits

    defaults = Limits()
    for option, (name, text) in _SIZES.items():
        shown = format_bytes(getattr(defaults, name))
        serve.add_argument(
            f"--{option}", type=_size, dest=name, metavar="SIZE", help=f"{text} ({shown})"
        )
    for option, (name, text) in _COUNTS.items():
        serve.add_argument(
            f"--{option}",
            type=_count,
            dest=name,
            metavar="N",
            help=f"{text} ({getattr(defaults, name):,})",
        )


def _bounds(options: argparse.Namespace) -> dict[str, int]:
    names = [name for name, _text in (*_SIZES.values(), *_COUNTS.values())]
    limits = {name: getattr(options, name) for name in names}
    return {name: value for name, value in limits.items() if value is not None}


def _size(text: str) -> int:
    try:
        size = parse_bytes(text)
    except SennitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size < 1:
        raise argparse.ArgumentTypeError("must be a size of at least one byte, such as 64MiB")
    return size


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be a number of at least 1")
    return count


def _add_limits(serve: argparse.ArgumentParser) -> None:
    _add_bounds(serve)
    serve.add_argument(
        "--rate", type=float, metavar="N", help="requests per second of one client (no limit)"
    )
    serve.add_argument(
        "--user-rate", type=float, metavar="N", help="requests per second of one user (no limit)"
    )
    serve.add_argument(
        "--head-timeout",
        type=_seconds,
        default=20.0,
        metavar="SECONDS",
        help="timeout for receiving the head of a request (20)",
    )
    serve.add_argument(
        "--send-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="close connections that accept no data for this long (60)",
    )


def _add_replicas(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--follow", metavar="URL", help="run as a replica of the server at URL")
    serve.add_argument(
        "--follow-token-file",
        type=FilePath,
        metavar="FILE",
        help="file with an admin credential of that server",
    )
    serve.add_argument(
        "--ack",
        default="local",
        help="acknowledge a write once it is durable here (local), or also on N replicas"
        " (replicas:N) (local)",
    )
    serve.add_argument(
        "--ack-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="timeout of waiting for replicas, or for a position (10)",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("must be a number of seconds up to 3600, and more than 0")
    return seconds


def _serve(options: argparse.Namespace) -> int:
    from elkyn.server.serve import serve
    from sennit_core.logs import configure_logging

    configure_logging(options.log_format, options.log_level)
    os.umask(0o077)  # only the server's OS user may read its files

    def ready(url: str, token_file: FilePath | None) -> None:
        print(f"serving {options.data} at {url}", flush=True)
        if token_file is None:
            print(f"emulator: {_reach(options.host)} is admin as 'Bearer owner'", flush=True)
        else:
            print(f"admin token: {token_file}", flush=True)

    serve(_serving(options), ready)
    return 0


def _reach(host: str) -> str:
    from elkyn.server.cors import LOOPBACK

    return "every user of this machine" if host in LOOPBACK else f"every client that reaches {host}"


def _serving(options: argparse.Namespace) -> Serving:
    from elkyn.replication.acks import parse_ack
    from elkyn.server.limits import Limits
    from elkyn.server.serve import Serving

    return Serving(
        data=options.data,
        host=options.host,
        port=options.port,
        namespaces=tuple(options.namespace or ("default",)),
        emulator=options.emulator,
        allow_hosts=tuple(options.allow_host),
        insecure=options.insecure,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        origins=tuple(options.origin or ("*",)),
        project=options.project,
        auth=options.auth,
        keep_alive_seconds=options.keep_alive,
        follow=options.follow,
        follow_token_file=options.follow_token_file,
        ack=parse_ack(options.ack),
        ack_seconds=options.ack_timeout,
        durability=options.durability,
        archive=options.archive,
        limits=Limits(
            requests_per_second=options.rate,
            user_requests_per_second=options.user_rate,
            head_seconds=options.head_timeout,
            send_seconds=options.send_timeout,
            **_bounds(options),
        ),
    )
