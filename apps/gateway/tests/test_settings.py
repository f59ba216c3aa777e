"""Settings from arguments, environment, file and defaults; binds that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sennit.settings import EmsqrtSettings, MemoryShares, is_loopback
from sennit.settings_loading import load
from sennit_core.errors import Unsupported, UsageError
from sennit_core.units import GIB, MIB


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SENNIT_NETWORK__PORT", "SENNIT_EMSQRT__MEMORY_BYTES"):
        monkeypatch.delenv(name, raising=False)


def test_arguments_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[network]\nport = 1\n[emsqrt]\nmemory_bytes = "1GiB"\n')
    assert load(tmp_path, {}).network.port == 1
    monkeypatch.setenv("SENNIT_NETWORK__PORT", "2")
    assert load(tmp_path, {}).network.port == 2
    settings = load(tmp_path, {"network": {"port": 3}})
    assert (settings.network.port, settings.emsqrt.memory_bytes) == (3, GIB)
    assert settings.network.host == "127.0.0.1"


@pytest.mark.parametrize("text", ["[network]\nprot = 1\n", "[netwrok]\nport = 1\n"])
def test_a_misspelt_key_or_section_names_the_nearest(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=r"port|network"):
        load(tmp_path, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_another_bind_needs_tls_or_insecure(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="TLS"):
        load(tmp_path, {"network": {"host": host}})
    assert load(tmp_path, {"network": {"host": host, "insecure": True}}).network.host == host
    (tmp_path / "a.pem").touch()
    file = str(tmp_path / "a.pem")
    tls: dict[str, object] = {"host": host, "tls_certificate": file, "tls_key": file}
    assert load(tmp_path, {"network": tls}).network.host == host


def test_loopback_names() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "localhost.evil.example")))


def test_shares_add_up_to_the_knob() -> None:
    shares = MemoryShares.of(EmsqrtSettings(memory_bytes=2 * GIB, executors=2))
    assert shares.gateway_bytes + 2 * shares.executor_bytes <= 2 * GIB
    assert shares.executor_bytes > 800 * MIB


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="512"):
        MemoryShares.of(EmsqrtSettings(memory_bytes=100 * MIB))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network.port", 65_536), ("network.port", -1), ("network.port", 10**30),
        ("storage.part_bytes", 0), ("storage.part_bytes", "1GiB"),
        ("storage.upload_bytes_max", 0), ("analytics.query_seconds", 0),
        ("analytics.json_rows_max", 0), ("security.body_bytes_max", 0),
        ("security.body_bytes_max", "1TiB"), ("logging.rotate_bytes", 0),
        ("logging.rotate_count", -1), ("logging.level", "LOUD"), ("logging.format", "xml"),
        ("emsqrt.executors", 0), ("emsqrt.executors", -3), ("emsqrt.executors", 10**9),
        ("emsqrt.memory_bytes", 10**30), ("elkyn.keep_alive_seconds", 31),
        ("network.allowed_origins", ["*"]), ("network.allowed_origins", ["null"]),
        ("network.allowed_origins", ["app.example"]), ("network.allowed_origins", ["https://a/b"]),
        ("network.allowed_origins", ["https://a:x"]), ("network.tls_key", "only.pem"),
    ],
)  # fmt: skip
def test_a_value_that_no_node_can_run_with_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(UsageError, match=name.rpartition(".")[2].replace("key", "certificate")):
        load(tmp_path, {name: value})  # type: ignore[dict-item]  # dotted names are accepted too


def test_origins_are_kept_as_browsers_write_them(tmp_path: Path) -> None:
    origins = ["HTTPS://App.Example/", "http://localhost:3000", "https://a.example:443"]
    loaded = load(tmp_path, {"network": {"allowed_origins": origins}})
    expected = ("https://app.example", "http://localhost:3000", "https://a.example")
    assert loaded.network.allowed_origins == expected


@pytest.mark.parametrize(
    "name",
    ["storage.chunk_bytes", "storage.paths"],
)
@pytest.mark.parametrize("place", ["file", "environment", "arguments"])
def test_settings_of_later_versions_are_refused_by_name(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, key = name.split(".")
    if place == "file":
        (tmp_path / "config.toml").write_text(f"[{section}]\n{key} = 3\n")
    elif place == "environment":
        monkeypatch.setenv(f"SENNIT_{section}__{key}".upper(), "3")
    arguments: dict[str, dict[str, object]] = {section: {key: 3}} if place == "arguments" else {}

    with pytest.raises(Unsupported, match=f"{name}: .* in this version"):
        load(tmp_path, arguments)


@pytest.mark.parametrize(
    ("peers", "problem"),
    [
        (["oslo"], "not an address"),
        (["oslo:80"], "no port"),
        ([f"o:{9000 + n}" for n in range(9)], "9"),
    ],
)
def test_addresses_of_peers_are_checked(tmp_path: Path, peers: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        load(tmp_path, {"network": {"peers": peers}})
    assert load(tmp_path, {"network": {"peers": ["o:8601"]}}).network.peers == ("o:8601",)
