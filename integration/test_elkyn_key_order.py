"""The order of keys and the hashes of trees: those of the firebase SDK's own code, under Node."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from elkyn_sdks import install_sdks, run_script
from elkyn_server import running_emulator

from elkyn import ElkynStore
from elkyn.server.hashes import hash_of
from elkyn.tree.values import prepare

CASES = 2500
KEYS = (
    *(f"{month:02}" for month in range(1, 13)),
    *("0", "-0", "000", "1", "001", "2", "10", "010", "0010", "-1", "-01", "-001", "-12"),
    *("2147483647", "02147483647", "2147483648", "-2147483648", "-2147483649", "9999999999"),
    *("99999999999", "000000000000007", "00000000000000000099999999999"),
    *("-", "-a", "1a", "0x1", "1e1", "+1", " 1", "a", "ab", "b", "Z", "é", "\u0661", "\uff11"),
    *("\ud7ff", "\ue000", "\uffee", "\U00010000", "\U0001f600", "a\U0001f600", "a\ue000"),
    *("k" * 500 + tail for tail in ("\U0001f600", "\ue000", "1")),
)
TEXTS = ("", "a", "01", "1", "\ue000", "\U0001f600", "x\U00010000", "x\uffee")
ORDERS = ("$key", "$value", "$priority", "n")
RULES = {"rules": {"$case": {".indexOn": [".value", "n"]}}}


def scalar(choice: random.Random) -> Any:
    return choice.choice([choice.randint(-3, 3), choice.choice(TEXTS), True, False, 0.5, 1e300])


def child(choice: random.Random) -> Any:
    value: Any = scalar(choice)
    if choice.random() < 0.5:
        value = {
            "n": value,
            choice.choice(KEYS): scalar(choice),
            "pad": "x" * choice.choice((1, 300)),
        }
    if choice.random() < 0.2:
        priority = choice.choice([choice.randint(-2, 2), choice.choice(TEXTS)])
        value = {**value, ".priority": priority} if isinstance(value, dict) else value
    return value


def window(choice: random.Random, order: str) -> dict[str, Any]:
    def bound() -> Any:
        if order == "$key":
            return choice.choice(KEYS)
        value = choice.choice([scalar(choice), None])
        if order == "$priority" and isinstance(value, bool):
            value = 1
        return [value, choice.choice(KEYS)] if choice.random() < 0.5 else value

    found: dict[str, Any] = {}
    if choice.random() < 0.5:
        found[choice.choice(["start_at", "start_after"])] = bound()
    if choice.random() < 0.5:
        found[choice.choice(["end_at", "end_before"])] = bound()
    if choice.random() < 0.6:
        found[choice.choice(["limit_to_first", "limit_to_last"])] = choice.randint(1, 8)
    return found


def has_priorities(value: dict[str, Any]) -> bool:
    return any(isinstance(inner, dict) and ".priority" in inner for inner in value.values())


def cases(seed: int) -> list[dict[str, Any]]:
    choice = random.Random(seed)
    found = []
    for _case in range(CASES):
        order = choice.choice(ORDERS)
        keys = choice.sample(KEYS, choice.randint(1, 20))
        value = {key: child(choice) for key in keys}
        asked_window = window(choice, order)
        if order == "$priority" and not has_priorities(value):
            # Where no child has a priority the SDK looks such a bound up by its key alone, and skips
            # children whose (absent) priority is lower: a shortcut that its own comparison refutes.
            asked_window = {
                name: v[0] if isinstance(v, list) else v for name, v in asked_window.items()
            }
        found.append({"value": value, "order": order, "window": asked_window})
    return found


def to_query(window: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in window.items()}


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1])
def test_windows_and_hashes_are_those_of_the_sdk(tmp_path: Path, seed: int) -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    install_sdks()
    made = cases(seed)
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(made))
    expected = run_script("order.mjs", str(file))
    assert len(expected) == CASES
    with ElkynStore(mode="memory") as store:
        store.set_rules(RULES)
        assert store.admin.wait_for_indexes(60)
        for number, (case, sdk) in enumerate(zip(made, expected, strict=True)):
            path = f"/c{number}"
            store.set(path, case["value"])
            assert hash_of(prepare(case["value"]).value) == sdk["hash"], case
            found = store.query(path, order_by=case["order"], **to_query(case["window"]))
            assert list(found) == sdk["keys"], case
            assert store.get(path) == sdk["val"], case
        assert store.admin.verify() == []


def test_months_are_queried_and_changed_through_the_sdk(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    install_sdks()
    with running_emulator(tmp_path / "data") as url:
        seen = run_script("months.mjs", url, "months")
    assert seen["last"] == ["12"]
    assert seen["range"] == ["08", "09", "10", "11"]
    assert seen["committed"] is True
    assert seen["after"]["07"] == 107
    assert seen["after"]["12"] == 12
