"""`elkyn promote` and `elkyn replicas`: who leads, and how far its followers are."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path as FilePath

from elkyn.cli.command import Subparsers, add_command, write_json
from elkyn.cli.target import server_of
from elkyn.replica.client import Answer, LeaderClient, error_of
from elkyn.replica.link import read_token
from sennit_core.errors import UsageError

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the verbs."""
    promote = add_command(
        subparsers, "promote", _promote, "make a server that follows another one lead", data=False
    )
    status = add_command(
        subparsers,
        "replicas",
        _status,
        "show whom a server follows, and who follows it",
        data=False,
    )
    for command in (promote, status):
        command.add_argument("--data", type=FilePath, help="folder that the server serves")
        command.add_argument("--url", help="of the server, where it is not on this machine")
        command.add_argument("--token-file", type=FilePath, help="an admin's credential there")


def _ask(options: argparse.Namespace, method: str, page: str) -> Answer:
    if (options.data is None) == (options.url is None):
        raise UsageError("name one server", hint="--data DIR, or --url with --token-file")
    url, token = options.url, read_token(options.token_file)
    if options.data is not None:
        found = server_of(options.data)
        if found is None:
            raise UsageError(f"no server has {options.data} open", hint="start it first")
        url, token = found
    with closing(LeaderClient(url, token)) as client:
        answer = client.send(method, f"/.replica/{page}")
    if answer.status != 200:
        raise error_of(answer, f"/.replica/{page}")
    return answer


def _promote(options: argparse.Namespace) -> int:
    terms = json.loads(_ask(options, "POST", "promote").body)["terms"]
    for name, term in sorted(terms.items()):
        print(f"{name} leads in term {term}")
    data = options.data or "DIR"
    print(f"accounts stay behind; to bring them here: elkyn user import --data {data} OLD_DATA_DIR")
    return 0


def _status(options: argparse.Namespace) -> int:
    write_json(json.loads(_ask(options, "GET", "status").body), sys.stdout)
    return 0
