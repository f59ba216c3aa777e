"""The settings of an engine: memory cap, spill location, parallelism."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from emsqrt.io.locations import STORE_SCHEMES
from emsqrt.memory.auto import parse_cap
from sennit_core.errors import UsageError, nearest

_SCHEME = re.compile("([a-z][a-z0-9+.-]*):/")
_ENVIRONMENT = {
    "EMSQRT_MEM_CAP_BYTES": "mem_cap_bytes",
    "EMSQRT_SPILL_DIR": "spill_dir",
    "EMSQRT_MAX_PARALLEL_TASKS": "max_parallel_tasks",
}
_READERS: dict[str, Callable[[str], Any]] = {
    "mem_cap_bytes": parse_cap,
    "spill_dir": str,
    "max_parallel_tasks": lambda text: _whole_number(text, "EMSQRT_MAX_PARALLEL_TASKS"),
}


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of an engine.

    Args:
        mem_cap_bytes: cap on the executing process, as the kernel counts it (RssAnon + RssShmem).
        block_size_hint: bytes of a block of rows; None lets the schedule choose.
        max_spill_concurrency: parallel transfers to an object store.
        seed: seed of random samples.
        max_parallel_tasks: plans that may run at once, each in a process with the full cap; with 1,
            each run also uses a single thread.
        spill_dir: spill location: a folder, `file://` or an object store's URI, which is then used
            as `spill_uri`; None for a folder of this user below the system's temporary folder.
        spill_uri: spill to this object store instead: `s3://bucket/prefix`, `gs://…`, `az://…`.
        spill_aws_region: region of an S3 bucket; that of the environment when None.
        spill_retry_max_ms: how long a failing transfer to a store is retried.
        spill_quota_bytes: most bytes of spill at one time; None for no limit.
        spill_codec: auto (compress where it pays), lz4, zstd or none.
        spill_to_memory: spill even if `spill_dir` is memory (tmpfs, ramfs); half of what the cap
            leaves is then reserved for spill.
    """

    mem_cap_bytes: int = 512 << 20
    block_size_hint: int | None = None
    max_spill_concurrency: int = 4
    seed: int = 0
    max_parallel_tasks: int = 4
    spill_dir: Path | None = None
    spill_uri: str | None = None
    spill_aws_region: str | None = None
    spill_retry_max_ms: int = 30_000
    spill_quota_bytes: int | None = None
    spill_codec: str = "auto"
    spill_to_memory: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mem_cap_bytes", parse_cap(self.mem_cap_bytes))
        if self.spill_dir is not None:
            folder, uri = spill_place(os.fspath(self.spill_dir))
            if uri is not None and self.spill_uri not in (None, uri):
                raise UsageError(
                    f"spill_dir names {uri} and spill_uri {self.spill_uri}", hint="name one of them"
                )
            object.__setattr__(self, "spill_dir", folder)
            object.__setattr__(self, "spill_uri", uri or self.spill_uri)

    @property
    def spilling(self) -> dict[str, Any]:
        """Return how runs spill apart from the folder, as plain values: options of `SpillManager`.

        It includes `threads`: 1 when a run must not use a second thread.
        """
        if self.spill_uri is None:
            options: dict[str, Any] = {}
        else:
            options = {"uri": self.spill_uri, "concurrency": self.max_spill_concurrency}
            options["retry_max_ms"] = self.spill_retry_max_ms
            if self.spill_aws_region is not None:
                options["options"] = {"region": self.spill_aws_region}
        if self.spill_quota_bytes is not None:
            options["quota_bytes"] = self.spill_quota_bytes
        if self.max_parallel_tasks == 1:
            options["threads"] = 1
        if self.spill_codec != "auto":
            options["codec"] = self.spill_codec
        if self.spill_to_memory:
            options["force_shared_memory"] = True
        return options

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read `EMSQRT_MEM_CAP_BYTES`, `EMSQRT_SPILL_DIR` and `EMSQRT_MAX_PARALLEL_TASKS`.

        Args:
            environment: the environment variables.
            settings: of a document's `config` block, by field name; environment variables win.

        Raises:
            UsageError: a value is invalid, or no setting has that name.
        """
        found = {name: _from_document(name, value) for name, value in (settings or {}).items()}
        for name, text in environment.items():
            if not name.startswith("EMSQRT_"):
                continue
            if name not in _ENVIRONMENT:
                guess = nearest(name, tuple(_ENVIRONMENT))
                raise UsageError(
                    f"there is no setting {name}; there are {', '.join(_ENVIRONMENT)}",
                    hint=f"did you mean {guess}?" if guess else None,
                )
            field = _ENVIRONMENT[name]
            if field == "spill_dir":
                found.pop("spill_uri", None)
            found[field] = _READERS[field](text)
        return cls(**found)


def spill_place(text: str) -> tuple[Path | None, str | None]:
    """Return the folder, or the object store's URI, of a spill location.

    `pathlib` drops a slash of a URI (`s3:/bucket`), so that spelling also means the store.

    Raises:
        UsageError: its scheme is not supported as a spill location.
    """
    found = _SCHEME.match(text)
    if found is None:
        return Path(text), None
    scheme, rest = found[1], text[found.end() :]
    if scheme == "file":
        return Path("/" + rest.lstrip("/")), None
    if scheme in STORE_SCHEMES:
        return None, f"{scheme}://{rest.lstrip('/')}"
    known = ", ".join(f"{name}://" for name in STORE_SCHEMES)
    raise UsageError(f"{text} is no place to spill", hint=f"name a folder, or one of {known}")


def _whole_number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is no whole number: {text!r}") from None


def _from_document(name: str, value: Any) -> Any:
    if name in ("mem_cap_bytes", "spill_dir"):
        return _READERS[name](value)
    return value
