"""`elkyn`: serve, get, set, export and import trees from a shell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, TextIO

from elkyn.namespaces import Stores, open_namespaces
from elkyn.store import ElkynStore
from sennit_core.errors import NotFound, SennitError, UsageError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 asked wrongly."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SennitError as error:
        print(f"elkyn: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="elkyn", description="A realtime tree database: JSON on paths, served or embedded."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = _command(commands, "serve", _serve, "serve a folder over Firebase's REST protocol")
    serve.add_argument("--port", type=int, default=9000, help="on 127.0.0.1 (9000; 0: a free one)")
    serve.add_argument(
        "--emulator", action="store_true", help="'Bearer owner' is the admin (development only)"
    )
    get = _command(commands, "get", _get, "print the value at a path as JSON")
    get.add_argument("path", nargs="?", default="/")
    put = _command(commands, "set", _set, "replace the value at a path")
    put.add_argument("path")
    put.add_argument("value", help="JSON; - reads standard input")
    export = _command(commands, "export", _export, "write the whole tree as JSON")
    export.add_argument("file", nargs="?", default="-", help="standard output when left out")
    imports = _command(commands, "import", _import, "replace the tree by a JSON file")
    imports.add_argument("file", help="- reads standard input")
    imports.add_argument("--path", default="/", help="replace only what is at this path")
    return parser


def _command(commands: Any, name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text
    )
    command.add_argument("--data", type=FilePath, required=True, help="folder of the namespaces")
    command.add_argument("--namespace", default="default", help="which tree (default)")
    command.set_defaults(run=run)
    return command


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


def _existing(stores: Stores, name: str) -> ElkynStore:
    if name not in stores:
        hint = f"it has: {', '.join(stores) or 'none'}"
        raise NotFound("namespace", name, hint=hint)
    return stores[name]


def _get(options: argparse.Namespace) -> int:
    with open_namespaces(options.data) as stores:
        _write_json(_existing(stores, options.namespace).get(options.path), sys.stdout)
    return 0


def _set(options: argparse.Namespace) -> int:
    value = _read_json(options.value, sys.stdin if options.value == "-" else None)
    with open_namespaces(options.data) as stores:
        stores[options.namespace].set(options.path, value)
    return 0


def _export(options: argparse.Namespace) -> int:
    with open_namespaces(options.data) as stores:
        value = _existing(stores, options.namespace).get("/")
    if options.file == "-":
        _write_json(value, sys.stdout)
    else:
        with FilePath(options.file).open("w", encoding="utf-8") as stream:
            _write_json(value, stream)
    return 0


def _import(options: argparse.Namespace) -> int:
    if options.file == "-":
        value = _read_json("standard input", sys.stdin)
    else:
        with FilePath(options.file).open(encoding="utf-8") as stream:
            value = _read_json(options.file, stream)
    with open_namespaces(options.data) as stores:
        stores[options.namespace].set(options.path, value)
    return 0


def _read_json(text: str, stream: TextIO | None) -> Any:
    try:
        return json.loads(text) if stream is None else json.load(stream)
    except (ValueError, RecursionError) as error:
        what = f"{text!r} is not JSON" if stream is None else f"{text} does not hold JSON"
        hint = "text needs quotes of its own: '\"text\"'" if stream is None else None
        raise UsageError(f"{what}: {error}", hint=hint) from None


def _write_json(value: Any, stream: TextIO) -> None:
    json.dump(value, stream, ensure_ascii=False, indent=2)
    stream.write("\n")


if __name__ == "__main__":
    sys.exit(main())
