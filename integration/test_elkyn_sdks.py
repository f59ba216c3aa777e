"""The vendor's JavaScript SDK, unchanged but for its addresses, against a served tree."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elkyn_sdks import install_sdks, run_script
from elkyn_server import running_emulator

SEEN = {
    "set": {"b": 1, "c": [1, 2, {"x": "é"}]},
    "update": {"b": 2, "d": {"e": True}},
    "push": [20, {"n": 1}],
    "onValue": [1, {"x": 2}, None],
    "childEvents": [
        ["added", "a", 1],
        ["added", "b", 2],
        ["added", "c", 3],
        ["changed", "a", 9],
        ["removed", "b", 2],
    ],
    "query": [["y", "z"], {"x": {"n": 3}, "y": {"n": 1}}],
    "liveQuery": ["yz", "vy", "yz", "zx"],
    "transaction": [True, 10],
    "transactionOnObject": [
        True,
        {"a": 1.5, "b": "changed", "c": True, "10": 1, "2": 3, "n": -0.25, "big": 9007199254740991},
    ],
    "increment": 2.5,
    "serverTimestamp": True,
    "priorities": [
        5,
        {"v": 1, "k": {".value": "x", ".priority": "last"}, ".priority": 5},
        True,
    ],
    "longText": True,
    "onDisconnect": ["gone", "number", None],
    "reconnect": [1, 2],
}


@pytest.fixture(scope="module", autouse=True)
def sdks() -> None:
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    install_sdks()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_emulator(tmp_path_factory.mktemp("elkyn")) as started:
        yield started


def test_the_database_sdk_does_all_it_does(url: str) -> None:
    assert run_script("database.mjs", url, "plain") == SEEN


def test_it_does_so_over_tls(tmp_path: Path) -> None:
    key, certificate = _certificate(tmp_path)
    options = ("--tls-key", str(key), "--tls-cert", str(certificate))
    with running_emulator(tmp_path / "data", *options) as url:
        trusted = {"NODE_EXTRA_CA_CERTS": str(certificate)}
        assert run_script("database.mjs", url, "tls", **trusted) == SEEN


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command: list[Any] = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", key, "-out", certificate]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return key, certificate


def test_an_app_with_accounts_and_rules(url: str) -> None:
    assert run_script("accounts.mjs", url, "accounts") == {
        "unauthenticated": "PERMISSION_DENIED",
        "open": "done",
        "indexed": {"b": {"n": 1}},
        "unindexed": 'Index not defined, add ".indexOn": "m", for path "/open", to the rules',
        "ownWrite": "done",
        "ownRead": 7,
        "others": "Permission denied",
        "signedOut": [7, "PERMISSION_DENIED"],
        "anonymous": "done",
        "revoked": [{"n": 2}, "PERMISSION_DENIED"],
    }
