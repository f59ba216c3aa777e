"""`elkyn promote` and `elkyn replicas`: the leader of a replica, and the lag of followers."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path as FilePath

from elkyn.cli.command import Subparsers, add_command, write_json
from elkyn.cli.target import server_of
from elkyn.replication.leader_client import Answer, LeaderClient, error_of
from elkyn.replication.link import read_token
from sennit_core.errors import UsageError

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    promote = add_command(
        subparsers, "promote", _promote, "promote a following server to leader", data=False
    )
    status = add_command(
        subparsers,
        "replicas",
        _status,
        "show the leader and the followers of a server",
        data=False,
    )
    for command in (promote, status):
        command.add_argument("--data", type=FilePath, help="the server's data folder")
        command.add_argument("--url", help="URL of a server on another machine")
        command.add_argument(
            "--token-file", type=FilePath, help="file with an admin credential of that server"
        )


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
    print(f"accounts were not copied; to copy them: elkyn user import --data {data} OLD_DATA_DIR")
    return 0


def _status(options: argparse.Namespace) -> int:
    write_json(json.loads(_ask(options, "GET", "status").body), sys.stdout)
    return 0
