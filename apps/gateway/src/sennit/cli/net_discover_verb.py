"""The verb `platform net discover`: nodes that are announced on the local network."""

from __future__ import annotations

import re
from typing import Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

_FINGERPRINT = re.compile(r"[0-9a-f]{4}(:[0-9a-f]{4}){7}|[0-9a-f]{32}|[0-9a-f]{64}", re.IGNORECASE)


def discover(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """List the nodes that are announced on the local network."""
    from sennit.cli.output import emit_json, table
    from sennit.client import Session

    with Session.open(url, token=None, data=data) as session:
        found = session.network.discover()
    if as_json:
        emit_json(found)
        return
    if found["problem"] is not None:
        typer.echo(f"note: this node is not announced: {found['problem']}", err=True)
    rows = [
        [each["name"], each["fingerprint"], ", ".join(each["addresses"]), _relation(each)]
        for each in found["nodes"]
    ]
    table(None, ["node", "fingerprint", "address", "member"], rows)
    if any(not each["member"] for each in found["nodes"]):
        typer.echo(
            "anybody can announce anything: compare the fingerprint with the node's owner, then "
            "platform net join FINGERPRINT",
            err=True,
        )


def is_fingerprint(text: str) -> bool:
    """Return whether a text is a whole fingerprint, or an id of a node."""
    return _FINGERPRINT.fullmatch(text) is not None


def find_announced(network: Any, fingerprint: str) -> tuple[str, list[str]]:
    """Return the id and the addresses of a node that is announced on the local network.

    Args:
        network: The network of the node that searches, as `Session.network`.
        fingerprint: That of the node, or its id.

    Raises:
        NotFound: No such node is announced.
    """
    from sennit_core.errors import NotFound

    digits = fingerprint.replace(":", "").casefold()
    found = [each for each in network.discover()["nodes"] if each["id"].startswith(digits)]
    if not found:
        raise NotFound(
            "node on the local network",
            fingerprint,
            suggestion=None,
            hint="`platform net discover` lists them; or use HOST:PORT and --node ID",
        )
    return found[0]["id"], [address for each in found for address in each["addresses"]]


def _relation(node: dict[str, Any]) -> str:
    if node["member"]:
        return "yes"
    return "no, says that it is" if node["sameNetwork"] else "no"
