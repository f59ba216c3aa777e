from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from sennit_core.errors import BadInput, UsageError
from sennit_core.settings import load_settings


@dataclass(frozen=True)
class Tls:
    certificate: Path | None = None


@dataclass(frozen=True)
class Network:
    port: int = 8600
    host: str = "127.0.0.1"
    origins: tuple[str, ...] = ()
    idle_seconds: float = 30.0
    tls: Tls = Tls()


@dataclass(frozen=True)
class Storage:
    chunk_bytes: int = 1 << 20
    keep_source: bool = False
    ratio: float = 0.5
    format: Literal["text", "json"] = "text"
    limit_bytes: int | None = None


@dataclass(frozen=True)
class Settings:
    network: Network = Network(port=8601, tls=Tls(Path("/tls.pem")))
    storage: Storage = field(default_factory=Storage)


@dataclass(frozen=True)
class Strict:
    name: str


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_defaults_come_last() -> None:
    assert load_settings(Settings) == Settings()
    assert load_settings(Settings, file=Path("/no/such/config.toml")).network.port == 8601


def test_each_source_beats_the_one_below(config: Callable[[str], Path]) -> None:
    file = config("[storage]\nchunk_bytes = 1\nratio = 0.1\n[network]\nport = 1")
    env = {"SENNIT_STORAGE__CHUNK_BYTES": "2", "SENNIT_STORAGE__RATIO": "0.2"}
    arguments = {"storage": {"chunk_bytes": 3, "keep_source": None}}
    settings = load_settings(Settings, arguments=arguments, env=env, file=file)
    assert settings.storage == Storage(chunk_bytes=3, ratio=0.2)
    assert settings.network == replace(Settings().network, port=1)


def test_text_becomes_the_fields_type() -> None:
    env = {
        "SENNIT_STORAGE__CHUNK_BYTES": "4 MiB",
        "SENNIT_STORAGE__KEEP_SOURCE": "yes",
        "SENNIT_STORAGE__FORMAT": "JSON",
        "SENNIT_STORAGE__LIMIT_BYTES": "1kB",
        "SENNIT_NETWORK__IDLE_SECONDS": "2m",
        "SENNIT_NETWORK__ORIGINS": "http://a, http://b",
        "SENNIT_NETWORK__TLS__CERTIFICATE": "/x.pem",
    }
    settings = load_settings(Settings, env=env)
    assert settings.storage == Storage(4 << 20, True, format="json", limit_bytes=1000)
    assert settings.network == Network(
        port=8601,
        origins=("http://a", "http://b"),
        idle_seconds=120.0,
        tls=Tls(Path("/x.pem")),
    )


def test_dotted_arguments_name_a_setting() -> None:
    assert load_settings(Settings, arguments={"network.tls.certificate": "/x"}).network.tls == Tls(
        Path("/x")
    )


def test_optional_values_can_be_unset() -> None:
    env = {"SENNIT_STORAGE__LIMIT_BYTES": "none"}
    assert load_settings(Settings, env=env).storage.limit_bytes is None


def test_other_peoples_and_reserved_names_are_left_alone() -> None:
    env = {
        "PATH": "/bin",
        "SENNITX": "1",
        "SENNIT_URL": "u",
        "SENNIT_TOKEN": "t",
        "SENNIT_DATA": "d",
    }
    assert load_settings(Settings, env=env) == Settings()


@pytest.mark.parametrize(
    ("env", "message", "hint"),
    [
        ("SENNIT_STRAGE__CHUNK_BYTES", "unknown section 'strage'", "storage"),
        ("SENNIT_COLOUR", "unknown setting 'colour'", "there are: network, storage"),
        ("SENNIT_STORAGE__CHUNK_BYTE", "unknown setting 'chunk_byte' in 'storage'", "chunk_bytes"),
        ("SENNIT_NETWORK__TLS__CERTIFICAT", "'certificat' in 'network.tls'", "certificate"),
        ("SENNIT_STORAGE", "'storage' is a section, not a setting", "chunk_bytes"),
    ],
)
def test_unknown_environment_names_the_nearest(env: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"{env}: .*{message}") as raised:
        load_settings(Settings, env={env: "1"})
    assert hint in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[storrage]\nchunk_bytes = 1", "'storrage'"),
        ("[storrage]", "'storrage'"),
        ("[storage]\nchunks_bytes = 1", "'chunks_bytes' in 'storage'"),
        ("storage = 3", "'storage'"),
        ("colour = 'red'", "'colour'"),
        ("[storage.chunk_bytes]\nx = 1", "'storage.chunk_bytes' is a setting, not a section"),
    ],
)
def test_unknown_key_in_the_file_is_refused(
    config: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"config.toml: .*{message}"):
        load_settings(Settings, file=config(text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("storage.chunk_bytes", "lots"),
        ("storage.chunk_bytes", 1.5),
        ("storage.keep_source", "perhaps"),
        ("storage.keep_source", 2),
        ("storage.ratio", "half"),
        ("storage.ratio", True),
        ("storage.format", "xml"),
        ("network.port", 1.5),
        ("network.port", "80a"),
        ("network.port", True),
        ("network.host", 3j),
        ("network.host", False),
        ("network.origins", 7),
        ("network.idle_seconds", "soon"),
        ("network.tls.certificate", 3),
    ],
)
def test_value_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"arguments: {name}: "):
        load_settings(Settings, arguments={name: value})


def test_wrong_value_in_the_environment_names_the_variable() -> None:
    with pytest.raises(UsageError, match=r"^SENNIT_NETWORK__PORT: expected a whole number"):
        load_settings(Settings, env={"SENNIT_NETWORK__PORT": "x"})


def test_required_value_without_a_source_is_named() -> None:
    with pytest.raises(UsageError, match="the setting name has no value"):
        load_settings(Strict)
    assert load_settings(Strict, env={"ELKYN_NAME": "n"}, prefix="ELKYN") == Strict("n")


@pytest.mark.parametrize("content", [b"[storage", b"\xff\xfe"])
def test_file_that_is_not_toml_is_bad_input(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"config\.toml"):
        load_settings(Settings, file=path)
