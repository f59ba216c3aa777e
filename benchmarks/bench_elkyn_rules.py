"""Claim: asking the rules costs a write a few microseconds, in its transaction, on a real tree.

Each row is one check against 5,000 users in LMDB, `Overlay` included; best of the rounds, CPU time.

    python benchmarks/bench_elkyn_rules.py [FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elkyn import ElkynStore
from elkyn.auth.principal import Principal
from elkyn.rules import parse_rules
from elkyn.tree.reader import Overlay, Reader

ROUNDS, CALLS = 7, 5_000
USER = Principal("u77")
PLACES = [(("users", "u77"), {"age": 3, "name": "x"})]
OWN = "$uid === auth.uid"

WRITES: dict[str, dict[str, Any]] = {
    "own place": {".write": OWN},
    "own place, two children": {".write": f"{OWN} && newData.hasChildren(['name', 'age'])"},
    "own place, three validations": {
        ".write": OWN,
        ".validate": "newData.hasChildren(['name', 'age'])",
        "name": {".validate": "newData.isString() && newData.val().length < 80"},
        "age": {".validate": "newData.isNumber() && newData.val() >= 0"},
        "$other": {".validate": False},
    },
    "a role elsewhere in the tree": {
        ".write": "root.child('roles').child(auth.uid).child('admin').val() === true"
    },
    "what was there": {".write": "!data.exists() || data.child('name').val() === 'n'"},
    "a regular expression": {".write": "newData.child('name').val().matches(/^[a-z]{1,20}$/)"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where to put the tree (a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run(Path(folder))


def run(folder: Path) -> None:
    with ElkynStore(folder / "tree") as store:
        users = {"name": "n", "age": 1, "text": "y" * 100}
        store.set("/users", {f"u{index}": users for index in range(5_000)})
        store.set("/roles", {f"u{index}": {"admin": True} for index in range(5_000)})
        print(f"{'a write asks about':<40}  µs")
        for name, rules in WRITES.items():
            print(f"{name:<40} {timed(store, rules):5.1f}")


def timed(store: ElkynStore, rules: dict[str, Any]) -> float:
    ruleset = parse_rules({"rules": {"users": {"$uid": rules}}})

    def ask(view: Reader) -> bool:
        return ruleset.may_write(view, Overlay(view, PLACES), PLACES, USER, 0)

    best = float("inf")
    with store.admin.snapshot() as view:
        assert ask(view)
        for _round in range(ROUNDS):
            best = min(best, seconds(ask, view))
    return best / CALLS * 1e6


def seconds(ask: Callable[[Reader], bool], view: Reader) -> float:
    started = time.process_time()
    for _call in range(CALLS):
        ask(view)
    return time.process_time() - started


if __name__ == "__main__":
    main()
