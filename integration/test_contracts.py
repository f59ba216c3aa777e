"""What CONTRACTS.md freezes, as it is: changing one of these needs a design note and a migration."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from pathlib import Path

import httpx

from emsqrt.executor.frames import FrameReader, encode_frame
from emsqrt.expr import col, count
from emsqrt.plan import Aggregate, Filter, Scan, plan_from_json, plan_hash, plan_to_json
from emsqrt.plan.nodes import DatasetRef
from nodes import RunningNode
from sennit.app import STATUS_OF_CLASS
from sennit_core.errors import SennitError
from sennit_core.hashing import CHUNK_BYTES, object_id

ROOT = Path(__file__).resolve().parents[1]
ROUTES = """
GET /api/answers/{answer_id}
GET /api/datasets
GET DELETE /api/datasets/{dataset}
GET /api/datasets/{dataset}/snapshots
GET POST /api/jobs
GET DELETE /api/jobs/{job_id}
GET /api/jobs/{job_id}/result
GET /api/nodes
POST /api/query
POST /api/session
POST /api/start-upload
GET /api/stats
GET POST /api/tokens
DELETE /api/tokens/{token_id}
POST /api/upload
POST /api/upload-chunk
GET DELETE /api/uploads/{upload_id}
POST /api/uploads/{upload_id}/complete
PUT /api/uploads/{upload_id}/parts/{index}
POST /api/verify
GET /files/{dataset}/{snapshot}/{shard}
GET /healthz
GET /metrics
GET /readyz
"""
PLAN = (
    '{"aggs":[{"agg":{"agg":"count"},"name":"n"}],"input":{"input":{"op":"scan","source":{"da'
    'taset":"flights"}},"op":"filter","predicate":{"args":[{"col":"distance"},{"lit":"1000","'
    'type":"Int64"}],"fn":"gt"}},"keys":[{"expr":{"col":"origin"},"name":"origin"}],"op":"agg'
    'regate","v":1}'
)


def test_routes(node: RunningNode) -> None:
    document = httpx.get(f"{node.url}/api/openapi.json", headers=node.headers).json()
    served = {
        f"{' '.join(sorted(map(str.upper, methods), key=('GET', 'POST', 'PUT', 'DELETE').index))} {path}"
        for path, methods in document["paths"].items()
    }
    assert served == set(ROUTES.strip().splitlines())


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


PACKAGES = ("strand", "emsqrt", "elkyn", "lake", "elytra")
EMSQRT = ("emsqrt.documents", "emsqrt.io.outputs", "emsqrt.text_engine.text")


def every_error() -> dict[str, type[SennitError]]:
    """All error classes of all packages that have a code of their own."""
    for module in (*PACKAGES, "sennit.app", "lake.errors", "emsqrt.errors", *EMSQRT):
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
