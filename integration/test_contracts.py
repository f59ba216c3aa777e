"""What CONTRACTS.md freezes, as it is: changing one of these needs a design note and a migration."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from emsqrt.executor.frames import FrameReader, encode_frame
from emsqrt.expr import col, count
from emsqrt.plan import Aggregate, Filter, Scan, plan_from_json, plan_hash, plan_to_json
from emsqrt.plan.nodes import DatasetRef
from sennit.app import STATUS_OF_CLASS, create_api
from sennit_core.errors import SennitError
from sennit_core.hashing import CHUNK_BYTES, object_id
from workspace import packages

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = (
    "packages/elytra/src/elytra/*/*.py",
    "apps/gateway/src/sennit/cli/*.py",
    "packages/elytra/js/src/*/*.ts",
    "apps/playground/lib/*.ts",
)
METHOD_AND_PATH = r"`(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([^`]+)`"
PLAN = (
    '{"aggs":[{"agg":{"agg":"count"},"name":"n"}],"input":{"input":{"op":"scan","source":{"da'
    'taset":"flights"}},"op":"filter","predicate":{"args":[{"col":"distance"},{"lit":"1000","'
    'type":"Int64"}],"fn":"gt"}},"keys":[{"expr":{"col":"origin"},"name":"origin"}],"op":"agg'
    'regate","v":1}'
)


@pytest.fixture(scope="module")
def served() -> set[str]:
    """Every route of the OpenAPI document, such as `GET /api/jobs/{}`."""
    document = create_api(Mock(version="0"), "cookie").openapi()
    return {
        f"{method.upper()} {unnamed(path)}"
        for path, methods in document["paths"].items()
        for method in methods
    }


def unnamed(path: str) -> str:
    """Return a path with its parameters, and what a client puts into it, as `{}`."""
    return re.sub(r"\$?\{(?:[^{}]|\{[^{}]*\})*\}", "{}", path).partition("?")[0]


def test_every_route_is_in_the_contract(served: set[str]) -> None:
    text = (ROOT / "CONTRACTS.md").read_text(encoding="utf-8")
    table = text.partition("## HTTP")[2].partition("`elkyn serve`")[0]
    rows = [row for row in table.splitlines() if "*planned*" not in row]
    frozen = {
        f"{method} {unnamed(path)}" for method, path in re.findall(METHOD_AND_PATH, "\n".join(rows))
    }
    assert frozen == served | {"GET /docs", "GET /api/openapi.json"}


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_request_routes_that_exist(served: set[str], client: str) -> None:
    """Paths are read from the source, each with its method where both are in one call."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in ROOT.glob(client))
    code = re.sub(r"^ *(//|\*|/\*|#).*", "", text, flags=re.MULTILINE)
    method = r"""(?:["'](?P<method>GET|POST|PUT|DELETE)["'],\s*)?"""
    path = r"""f?(?P<quote>["'`])(?:\$\{this\.baseUrl\})?(?P<path>/(?:api|files)/.*?)(?P=quote)"""
    found = [(each["method"], unnamed(each["path"])) for each in re.finditer(method + path, code)]
    assert found, "the pattern finds no request"
    assert {path for _, path in found} <= {route.partition(" ")[2] for route in served}
    assert {f"{method} {path}" for method, path in found if method} <= served


def test_a_plans_text_and_hash() -> None:
    scan = Scan(DatasetRef("flights"))
    plan = Aggregate(
        Filter(scan, col("distance") > 1000), (("origin", col("origin")),), (("n", count()),)
    )
    text = json.dumps(plan_to_json(plan), sort_keys=True, separators=(",", ":"))
    assert text == PLAN
    assert plan_hash(plan) == hashlib.sha256(PLAN.encode()).hexdigest()
    assert plan_from_json(json.loads(PLAN)) == plan


def test_a_control_frames_bytes() -> None:
    frame = encode_frame("cancel", attempt="a1", reason="asked")
    assert frame.hex() == (
        "25000000" + "83a4776f7264a663616e63656ca7617474656d7074a26131a6726561736f6ea561736b6564"
    )
    assert FrameReader().feed(frame) == [{"word": "cancel", "attempt": "a1", "reason": "asked"}]


def test_an_object_id() -> None:
    content = b"sennit"
    chunk = hashlib.sha256(content)
    expected = hashlib.sha256(
        b"sennit1"
        + len(content).to_bytes(8, "little")
        + CHUNK_BYTES.to_bytes(4, "little")
        + chunk.digest()
    ).hexdigest()
    assert object_id(len(content), CHUNK_BYTES, [chunk.hexdigest()]) == expected


EMSQRT = ("emsqrt.documents", "emsqrt.io.outputs", "emsqrt.text_engine.text")


def every_error() -> dict[str, type[SennitError]]:
    """All error classes of all packages that have a code of their own."""
    for module in (
        *(package.module for package in packages()),
        "sennit.app",
        "lake.errors",
        "elytra.errors",
        "emsqrt.errors",
        *EMSQRT,
    ):
        importlib.import_module(module)
    found: dict[str, type[SennitError]] = {}
    waiting = SennitError.__subclasses__()
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if "code" in error.__dict__ and not error.__module__.startswith("test"):
            found[str(error.code)] = error
    return found


def test_every_error_is_documented_with_its_status() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r'^\| <a id="([a-z-]+)"></a>(.*)$', text, re.MULTILINE))
    errors = every_error()
    assert rows.keys() == errors.keys()
    for code, row in rows.items():
        status = next(
            (STATUS_OF_CLASS[c] for c in errors[code].__mro__ if c in STATUS_OF_CLASS), 500
        )
        stated = re.findall(r"\| (\d{3}) \|", row)
        assert stated in ([str(status)], []), code
