"""`elkyn serve`: a folder over HTTP."""

from __future__ import annotations

import argparse

from elkyn.cli.command import Subparsers, add_command

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verb `serve`."""
    serve = add_command(subparsers, "serve", _serve, "serve a folder over Firebase's REST protocol")
    serve.add_argument("--port", type=int, default=9000, help="on 127.0.0.1 (9000; 0: a free one)")
    serve.add_argument(
        "--emulator", action="store_true", help="'Bearer owner' is the admin (development only)"
    )


def _serve(options: argparse.Namespace) -> int:
    from elkyn.server.serve import serve

    def ready(url: str, token: str | None) -> None:
        print(f"serving {options.data} at {url}", flush=True)
        if token is None:
            print("emulator: everybody on this machine is admin as 'Bearer owner'", flush=True)
        else:
            print(f"admin token: {options.data / 'admin.token'}", flush=True)

    serve(
        options.data,
        port=options.port,
        namespace=options.namespace,
        emulator=options.emulator,
        ready=ready,
    )
    return 0
