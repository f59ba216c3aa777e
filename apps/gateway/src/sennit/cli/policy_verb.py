"""The verb policy: who may read and change a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sennit.cli.data_verbs import Url
from sennit.cli.node_verbs import Data, Json

if TYPE_CHECKING:
    from sennit.client import Session


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(policy)


def policy(
    dataset: Annotated[str, typer.Argument(help="Name or id of the dataset.")],
    rules: Annotated[
        Path | None,
        typer.Option(
            "--set", help="Replace the rules by those of a JSON file; see docs/access.md."
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the policy: every reader may read again.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show, replace or remove the access policy of a dataset."""
    from sennit.cli.output import emit_json
    from sennit.client import Session
    from sennit_core.errors import UsageError

    if clear and rules is not None:
        raise UsageError("--set and --clear contradict each other", hint="use one of them")
    with Session.open(url, token=None, data=data) as session:
        if clear:
            session.clear_policy(dataset)
        elif rules is not None:
            session.set_policy(dataset, _read_rules(rules))
        found = session.policy(dataset)
        names = {} if as_json else _names_of_nodes(session, found["rules"] or [])
    if as_json:
        emit_json(found)
    elif found["rules"] is None:
        typer.echo(f"{dataset} has no policy: every reader may read it, every writer change it")
    else:
        _print(found["rules"], names)


def _read_rules(path: Path) -> list[dict[str, Any]]:
    import json

    from sennit_core.errors import UsageError

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise UsageError(f"{path} is not JSON: {problem}") from None
    rules = document.get("rules") if isinstance(document, dict) else document
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise UsageError(f"{path} has no list of rules", hint='write {"rules": [{"principal": …}]}')
    return rules


def _names_of_nodes(session: Session, rules: list[dict[str, Any]]) -> dict[str, str]:
    """Return the names of nodes by their ids, if a rule is about users of other nodes."""
    if not any("@" in rule["principal"] for rule in rules):
        return {}
    return {node["id"]: node["name"] for node in session.network.show()["nodes"]}


def _print(rules: list[dict[str, Any]], names: dict[str, str]) -> None:
    from sennit.cli.output import table

    rows = []
    for rule in rules:
        masks = [f"{each['name']}: {each.get('mask') or 'hidden'}" for each in rule["columns"]]
        rights = "read, write" if rule["write"] else "read" if rule["read"] else "nothing"
        user, at, node = rule["principal"].rpartition("@")
        principal = f"{user}{at}{names.get(node, node)}"
        rows.append([principal, rights, rule.get("rows") or "all", ", ".join(masks)])
    table(None, ["principal", "may", "rows", "masked columns"], rows)
