"""Load a node's settings: arguments > `SENNIT_<SECTION>__<KEY>` > config.toml > defaults.

They are validated here, before the node starts.
"""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from sennit.cors import checked_origin
from sennit.settings import (
    LoggingSettings,
    NetworkSettings,
    SecuritySettings,
    Settings,
    is_loopback,
)
from sennit_core.errors import Unsupported, UsageError
from sennit_core.settings import load_settings
from sennit_core.units import GIB, KIB, MIB, TIB

__all__ = ["load"]

_BOUNDS: dict[tuple[str, str], tuple[float, float]] = {
    ("network", "port"): (0, 65_535),
    ("network", "flight_port"): (0, 65_535),
    ("network", "peer_port"): (0, 65_535),
    ("network", "copy_rate_bytes"): (0, TIB),
    ("network", "query_bytes"): (0, 1024 * TIB),
    ("network", "change_bytes"): (0, TIB),
    ("storage", "part_bytes"): (1, 256 * MIB),
    ("storage", "upload_bytes_max"): (1, 1024 * TIB),
    ("storage", "quota_bytes"): (0, 1024 * TIB),
    ("storage", "quota_objects"): (0, 2**40),
    ("storage", "reserve_bytes"): (0, 1024 * TIB),
    ("storage", "scrub_days"): (0, 3650),
    ("storage", "scrub_rate_bytes"): (64 * KIB, TIB),
    ("storage", "compact_hours"): (0, 8760),
    ("storage", "statistics_hours"): (0, 8760),
    ("storage", "expire_hours"): (0, 8760),
    ("storage", "sweep_hours"): (0, 8760),
    ("storage", "cleanup_hours"): (0, 8760),
    ("storage", "cleanup_days"): (0, 36_500),
    ("storage", "cleanup_bytes"): (0, 1024 * TIB),
    ("storage", "trash_days"): (0, 36_500),
    ("storage", "upload_hours"): (0.01, 8760),
    ("storage", "retention_keep"): (0, 2**53),
    ("storage", "retention_days"): (0, 36_500),
    ("storage", "retention_grace_seconds"): (0, 10 * 365 * 24 * 3600),
    ("storage", "copy_bytes"): (0, 1024 * TIB),
    ("storage", "replication"): (
        1,
        16,
    ),  # lake.peers.copies.placement.FACTOR_MAX, not imported for it
    ("analytics", "query_seconds"): (0.001, 7 * 24 * 3600),
    ("analytics", "cache_bytes"): (0, 128 * MIB),  # of the gateway's fixed share, 192 MiB
    ("analytics", "json_rows_max"): (1, 2**53),
    # The gateway holds a whole body in memory while it is parsed.
    ("security", "body_bytes_max"): (KIB, GIB),
    ("security", "plain_bytes"): (MIB, TIB),
    ("logging", "rotate_bytes"): (KIB, TIB),
    ("logging", "rotate_count"): (1, 1000),
    ("emsqrt", "memory_bytes"): (0, 1024 * TIB),
    ("emsqrt", "executors"): (1, 256),
    ("elkyn", "keep_alive_seconds"): (0.001, 30),
    ("workers", "sample_percent"): (0, 100),
    ("workers", "input_bytes"): (0, 1024 * TIB),
    ("workers", "lease_seconds"): (1, 3600),
    ("elytra", "ray_workers"): (1, 256),
    ("elytra", "ray_worker_bytes"): (64 * MIB, TIB),
    ("elytra", "python_bytes"): (MIB, TIB),
    ("elytra", "python_seconds"): (0.1, 30 * 86_400),
}


_PLANNED = {
    "storage.chunk_bytes": "chunks have 1 MiB in this version, as objects are named by them",
    "storage.paths": "a node has one data folder in this version: --data",
}
"""Settings of later versions: to ignore one would promise what no node does."""


def _refuse_planned(file: Path, arguments: dict[str, dict[str, object]]) -> None:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # reported where the file is read for its settings
        found = {}
    for name, reason in _PLANNED.items():
        section, key = name.split(".")
        variable = f"SENNIT_{section}__{key}".upper()
        in_file = found.get(section)
        if (
            variable in os.environ
            or key in arguments.get(section, {})
            or (isinstance(in_file, dict) and key in in_file)
        ):
            raise Unsupported(
                f"the setting {name}: {reason}", hint="remove it; see docs/not-yet.md"
            )


def load(data: Path, arguments: dict[str, dict[str, object]]) -> Settings:
    """Load a node's settings, with origins as browsers send them.

    Raises:
        Unsupported: a key is of a later version.
        UsageError: a key is unknown (the error names the nearest known one), a value is out of
            range, an origin is invalid, a TLS file is unreadable, or the address needs TLS.
    """
    _refuse_planned(data / "config.toml", arguments)
    settings = load_settings(
        Settings, arguments=arguments, env=os.environ, file=data / "config.toml"
    )
    _check_bind(settings.network)
    return _checked(settings)


def logging_settings(data: Path) -> LoggingSettings:
    """Return the section `logging` of a folder's settings; the others need not be valid.

    Raises:
        UsageError: The file cannot be read, or has an unknown key.
    """
    found = load_settings(Settings, arguments={}, env=os.environ, file=data / "config.toml").logging
    _check_log_folder(found)
    return found


def _check_log_folder(found: LoggingSettings) -> None:
    if found.folder is not None and not found.folder.is_absolute():
        raise UsageError(
            f"logging.folder is {str(found.folder)!r}, which depends on where a command runs",
            hint="set it to an absolute path",
        )


def _check_peers(network: NetworkSettings) -> None:
    from lake.peers.copies.bandwidth import Hours
    from lake.peers.members.roster import check_node_name
    from lake.peers.transport.addresses import ADDRESSES_MAX, parse_address

    if network.name:
        check_node_name(network.name)
    for address in (*network.peer_addresses, *network.peers):
        parse_address(address)
    if len(network.peers) > ADDRESSES_MAX:
        raise UsageError(
            f"network.peers has {len(network.peers)} addresses of at most {ADDRESSES_MAX}"
        )
    Hours.parse(network.copy_hours)


def _checked(settings: Settings) -> Settings:
    """Validate the values; return them with origins as browsers send them."""
    for (section, name), (least, most) in _BOUNDS.items():
        value = getattr(getattr(settings, section), name)
        if value is None:
            continue
        if not least <= value <= most or math.isnan(value):
            raise UsageError(
                f"{section}.{name} is {value}", hint=f"set it to a value from {least} to {most}"
            )
    _check_tls(settings.network)
    _check_peers(settings.network)
    _check_log_folder(settings.logging)
    _check_key(settings.security)
    if settings.elytra.ray:
        from elytra.backends.ray import RayOptions

        RayOptions(settings.elytra.ray)
    origins = tuple(map(checked_origin, settings.network.allowed_origins))
    return replace(settings, network=replace(settings.network, allowed_origins=origins))


def _check_key(security: SecuritySettings) -> None:
    if security.key_file is not None or security.passphrase_file is not None:
        return
    for name in ("encrypt", "encrypt_node_key"):
        if getattr(security, name):
            raise UsageError(
                f"security.{name} needs a key",
                hint="set security.key_file or security.passphrase_file (docs/encryption.md)",
            )


def _check_bind(network: NetworkSettings) -> None:
    has_tls = network.tls_certificate is not None and network.tls_key is not None
    if is_loopback(network.host) or has_tls or network.insecure:
        return
    raise UsageError(
        f"refusing to bind {network.host} without TLS: tokens would be sent unencrypted",
        hint="set network.tls_certificate and network.tls_key, or use --insecure on a trusted "
        "network",
    )


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
