"""Validate a node's settings before it starts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sennit.cors import checked_origin
from sennit_core.errors import UsageError
from sennit_core.units import GIB, KIB, MIB, TIB

if TYPE_CHECKING:
    from sennit.settings import NetworkSettings, Settings

__all__ = ["checked_settings"]

_BOUNDS: dict[tuple[str, str], tuple[float, float]] = {
    ("network", "port"): (0, 65_535),
    ("storage", "part_bytes"): (1, 256 * MIB),
    ("storage", "upload_bytes_max"): (1, 1024 * TIB),
    ("analytics", "query_seconds"): (0.001, 7 * 24 * 3600),
    ("analytics", "json_rows_max"): (1, 2**53),
    # The gateway holds a whole body in memory while it is parsed.
    ("security", "body_bytes_max"): (KIB, GIB),
    ("logging", "rotate_bytes"): (KIB, TIB),
    ("logging", "rotate_count"): (1, 1000),
    ("emsqrt", "memory_bytes"): (0, 1024 * TIB),
    ("emsqrt", "executors"): (1, 256),
    ("elkyn", "keep_alive_seconds"): (0.001, 30),
}


def checked_settings(settings: Settings) -> Settings:
    """Validate the settings; return them with origins as browsers send them.

    Raises:
        UsageError: a value is out of range, an origin is invalid, or a TLS file is unreadable.
    """
    for (section, name), (least, most) in _BOUNDS.items():
        value = getattr(getattr(settings, section), name)
        if not least <= value <= most or math.isnan(value):
            raise UsageError(
                f"{section}.{name} is {value}", hint=f"set it to a value from {least} to {most}"
            )
    _check_tls(settings.network)
    origins = tuple(map(checked_origin, settings.network.allowed_origins))
    return replace(settings, network=replace(settings.network, allowed_origins=origins))


def _check_tls(network: NetworkSettings) -> None:
    files = {"tls_certificate": network.tls_certificate, "tls_key": network.tls_key}
    present = {name: path for name, path in files.items() if path is not None}
    if len(present) == 1:
        missing = next(name for name in files if name not in present)
        raise UsageError(
            f"network.{missing} is missing", hint="TLS needs both tls_certificate and tls_key"
        )
    for name, path in present.items():
        problem = _unreadable(Path(path))
        if problem is not None:
            raise UsageError(f"network.{name}: {problem}", hint="name a PEM file")


def _unreadable(path: Path) -> Any:
    try:
        path.open("rb").close()
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None
