"""The AsyncAPI document of the worker protocol says what the code does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from elytra.backends.remote import messages
from elytra.backends.remote.messages import FROM_NODE, FROM_WORKER, VERSION
from sennit_core.text import camel_case

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).resolve().parents[3] / "docs" / "workers.yaml").read_text(encoding="utf-8")
)
WORDS = {**FROM_WORKER, **FROM_NODE}
PAYLOADS = {word: each["payload"] for word, each in DOCUMENT["components"]["messages"].items()}


def found(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema, or the one that it refers to."""
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    return DOCUMENT["components"]["schemas"][name] if name else schema


def test_each_side_has_its_messages() -> None:
    for name, words in (("fromWorker", FROM_WORKER), ("fromNode", FROM_NODE)):
        referred = [
            each["$ref"].split("/")[-1] for each in DOCUMENT["operations"][name]["messages"]
        ]
        assert referred == list(words)
    assert set(DOCUMENT["channels"]["workers"]["messages"]) == set(WORDS) == set(PAYLOADS)
    assert DOCUMENT["info"]["version"] == str(VERSION)


@pytest.mark.parametrize("word", WORDS)
def test_a_message_has_the_members_of_its_class(word: str) -> None:
    names = [camel_case(each.name) for each in fields(WORDS[word])]
    payload = PAYLOADS[word]
    assert list(payload["properties"]) == names
    assert payload.get("required", []) == names
    assert payload["additionalProperties"] is False


def test_limits_are_those_of_the_code() -> None:
    hello, partial = PAYLOADS["hello"]["properties"], PAYLOADS["partial"]["properties"]
    failed = PAYLOADS["failed"]["properties"]
    assert hello["cached"]["maxItems"] == messages.CACHED_MAX
    assert hello["attempts"]["maxItems"] == messages.ATTEMPTS_MAX
    assert PAYLOADS["credit"]["properties"]["n"]["maximum"] == messages.ATTEMPTS_MAX
    assert partial["data"]["oneOf"][0]["maxLength"] == messages.INLINE_BYTES_MAX
    assert failed["code"]["maxLength"] == messages._TEXT_MAX
    assert failed["message"]["maxLength"] == messages._ERROR_MAX
    assert PAYLOADS["renew"]["properties"]["bytesDone"]["maximum"] == messages._NUMBER_MAX
    patterns = {
        (word, name): found(schema).get("pattern")
        for word in FROM_WORKER
        for name, schema in PAYLOADS[word]["properties"].items()
    }
    expected = {
        ("hello", "engine"): messages._WORD,
        ("hello", "kind"): messages._WORD,
        ("renew", "attempt"): messages._ATTEMPT,
        ("partial", "planHash"): messages._HASH,
        ("partial", "sha256"): messages._HASH,
    }
    for member, pattern in expected.items():
        assert patterns[member] == f"^{pattern.pattern}$"
