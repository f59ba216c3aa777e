"""A node with markers behind policies, and the users who must never see one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from opened_node import OpenNode, OpenNodes

from elytra.client.transport import wait_for

__all__ = ["ABSENT", "COLUMN", "HIDDEN", "MARKERS", "USERS", "GuardedNode", "guarded"]

HIDDEN, COLUMN, ABSENT = "zqvault", "zqssn", "abvault"
"""A dataset and a column that only the admin knows, and a name that is as long and in no use."""
MARKERS = ("ZQROW", "ZQCOL", "ZQSET", "ZQVIEW", "ZQTEXT", "ZQBAD", HIDDEN, COLUMN)
USERS = {
    "alice": "reader",
    "alice-writer": "writer",
    "bob": "reader",
    "bob-writer": "writer",
    "nobody": "",
}
"""Those under a rule, those without one, and a client without a token; with their roles."""

_PEOPLE = f"id,owner,{COLUMN}\n1,alice,ZQCOL1\n2,ZQROW2,ZQCOL2\n3,alice,ZQCOL3\n".encode()
_RULE = {"rows": "owner = 'alice' AND owner <> 'ZQROW2'", "columns": [{"name": COLUMN}]}
_RULES = [
    {"principal": "alice", **_RULE},
    {"principal": "alice-writer", "write": True, **_RULE},
]
_STATEMENTS = (
    # A dataset that everybody reads, whose history names what they may not know.
    f"CREATE TABLE copied AS SELECT 1 AS a FROM {HIDDEN} WHERE word <> 'ZQTEXT'",
    f"INSERT INTO copied SELECT id FROM people WHERE {COLUMN} = 'ZQCOL1'",
    "INSERT INTO people VALUES (9, 'ZQROW9', 'ZQCOL9')",
    "INSERT INTO people VALUES (4, 'alice', 'ZQCOL4')",
    "DELETE FROM people WHERE owner = 'ZQROW9'",
    f"CREATE VIEW spy AS SELECT id, 'ZQVIEW' AS v FROM people WHERE {COLUMN} <> 'ZQTEXT'",
    "CREATE VIEW number AS SELECT id + 0 AS n FROM people WHERE owner <> 'ZQVIEW'",
    f"CREATE VIEW vault_view AS SELECT *, 'ZQVIEW' AS v FROM {HIDDEN}",
)


@dataclass(frozen=True)
class GuardedNode:
    """The node, a client for each user, and the ids of what routes are asked for."""

    node: OpenNode
    clients: dict[str, httpx.Client]
    ids: dict[str, str]


@contextmanager
def guarded(opened: OpenNodes) -> Iterator[GuardedNode]:
    """Open the node, with a history in which every marker occurs, and its users."""
    node = opened()
    node.upload("people.csv", _PEOPLE)
    bad = json.dumps({"columns": {"n": "Int64"}, "onBadRow": "skip"})
    made = node.upload(f"{HIDDEN}.csv", b"n,word\n1,ZQSET1\n2,ZQSET2\nZQBAD,x\n", options=bad)
    ids = {"upload_job": made["jobId"]}
    for text in _STATEMENTS:
        run(node.client, text)
    for name, rules in (("people", _RULES), (HIDDEN, [])):
        answer = node.client.put(f"/api/datasets/{name}/policies", json={"rules": rules})
        assert answer.status_code == 200, answer.text
        node.client.put(f"/api/datasets/{name}/tags/kept", json={"version": 1})
        ids[name] = node.client.get(f"/api/datasets/{name}").json()["id"]
        ids[f"{name}_head"] = node.client.get(f"/api/datasets/{name}").json()["head"]
        ids[f"{name}_job"] = _job(node, name)
    clients = {name: node.anonymous_client() for name in USERS}
    for name, role in USERS.items():
        if role:
            token = node.node.tokens.issue(name, role)
            clients[name].headers["authorization"] = f"Bearer {token}"
    try:
        yield GuardedNode(node, clients, ids)
    finally:
        for client in clients.values():
            client.close()


def run(client: httpx.Client, sql: str) -> dict[str, Any]:
    """Run a statement as a user who may."""
    answer = client.post("/api/query", json={"sql": sql})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def _job(node: OpenNode, dataset: str) -> str:
    plan = {"v": 1, "op": "scan", "source": {"dataset": dataset}}
    job: str = node.client.post("/api/jobs", json={"plan": plan}).json()["jobId"]
    wait_for(
        lambda: node.client.get(f"/api/jobs/{job}").json()["state"] == "done" or None,
        what="the job",
        seconds=60,
    )
    return job
