"""How a process that holds a cap is kept small: set before it starts, and in its first lines."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from emsqrt.late import Late
from sennit_core.errors import CapacityError, Unavailable, Unsupported
from sennit_core.units import format_bytes

_LEAST_RESERVED = {"RLIMIT_DATA": 128 << 20, "RLIMIT_AS": 256 << 20}
"""What pyarrow reserves of addresses with its threads' stacks; it touches far less."""


class _NoPandas:
    """Makes `import pandas` fail here: pyarrow imports it on its own, for 30 MB of every cap."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError("executors do without pandas", name=name)


def do_without_pandas() -> None:
    """Let no library load pandas in this process."""
    sys.meta_path.insert(0, _NoPandas)


def require_arrow(what: str) -> None:
    """Refuse what only the arrow tier can do, where its libraries are not installed.

    Raises:
        Unsupported: says what to install.
    """
    from importlib.util import find_spec

    missing = [name for name in ("pyarrow", "numpy", "ormsgpack") if find_spec(name) is None]
    if missing:
        from sennit_core.extras import install_hint

        raise Unsupported(
            f"{what} needs {' and '.join(missing)}",
            hint=f"{install_hint('sennit-emsqrt', *missing)}; without CSV and JSON Lines can be "
            "filtered, sorted, joined and grouped into files",
        )


_WANTED_BY_NOBODY = ("pyarrow._azurefs", "pyarrow._hdfs", "pyarrow._s3fs")
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class _NotForUs:
    """Makes clients of stores fail to load that the engine reaches without pyarrow."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name in _WANTED_BY_NOBODY:
            raise ModuleNotFoundError("executors do without it", name=name)


class _Certificates(NamedTuple):
    """What `ssl.get_default_verify_paths` returns, as far as pyarrow looks at it."""

    cafile: str | None
    capath: str | None = None


def _certificates() -> _Certificates:
    """Say where certificates are, for less memory than OpenSSL takes to say so."""
    places = (os.environ.get("SSL_CERT_FILE"), *_CERTIFICATES)
    return _Certificates(next((path for path in places if path and Path(path).exists()), None))


@contextmanager
def _loading_lightly() -> Iterator[None]:
    """Keep out what pyarrow loads only to make help texts and to find certificates: 3 MiB."""
    texts, secrets = ModuleType("pyarrow.vendored.docscrape"), ModuleType("ssl")
    texts.NumpyDocString = lambda _: {"Parameters": []}  # type: ignore[attr-defined]
    secrets.get_default_verify_paths = _certificates  # type: ignore[attr-defined]
    stubs = {module.__name__: module for module in (texts, secrets)}
    stubs = {name: module for name, module in stubs.items() if name not in sys.modules}
    sys.modules.update(stubs)
    sys.meta_path.insert(0, _NotForUs)
    try:
        yield
    finally:
        sys.meta_path.remove(_NotForUs)
        for name in stubs:
            del sys.modules[name]


class _MaskedLater(Late):
    """Stands for `numpy.ma`, 4 MiB that pyarrow loads to ask whether an array is masked."""

    @property
    def MaskedArray(self) -> type:  # noqa: N802 - numpy's name
        """The class, of which there are no objects until the module is loaded."""
        loaded = sys.modules[self.__name__]
        return _Masked if loaded is self else loaded.MaskedArray


class _Masked:
    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make what was asked for of the class that this stands for."""
        masked = sys.modules["numpy.ma"]
        return masked.masked_array(*args, **options)


def _load_masked_later() -> None:
    import numpy

    if "numpy.ma" not in sys.modules:
        numpy.ma = sys.modules["numpy.ma"] = _MaskedLater("numpy.ma")


def _check_limits() -> None:
    """Refuse limits under which the libraries would end the process while they start."""
    for name, least_bytes in _LEAST_RESERVED.items():
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY and soft < least_bytes:
            raise CapacityError(
                f"{name} gives this process {format_bytes(soft)}, and pyarrow reserves "
                f"{format_bytes(least_bytes)}",
                hint="raise the limit (ulimit -d, -v); CSV and JSON Lines need no pyarrow",
            )


def load_arrow() -> None:
    """Load pyarrow with as little as can be, before the cap is watched and before the engine.

    It starts its one thread of each kind, and runs once through what reserves memory at its first
    use and keeps it.

    Raises:
        CapacityError: a limit of the process leaves it less room than it reserves.
        Unavailable: it cannot be loaded.
    """
    _check_limits()
    try:
        with _loading_lightly():
            import pyarrow as pa
            import pyarrow.compute as pc
            from pyarrow import csv, parquet
    except (ImportError, MemoryError) as error:
        raise Unavailable(
            "pyarrow",
            message=f"pyarrow could not be loaded: {error or 'no memory'}",
            hint="do limits of the process (ulimit -v, -d, -n) leave it no room?",
        ) from error

    _load_masked_later()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    table = pa.table({"number": [1, 2], "text": ["a", "b"]})
    sink = pa.BufferOutputStream()
    parquet.write_table(table.cast(table.schema), sink, compression="zstd")
    packed = pa.ipc.IpcWriteOptions(compression="lz4")  # by the thread that computes
    with pa.ipc.new_stream(pa.BufferOutputStream(), table.schema, options=packed) as stream:
        stream.write_table(table)
    # What is no buffer is read ahead, by the thread that reads files.
    reader = pa.PythonFile(BytesIO(sink.getvalue()), mode="r")
    file = parquet.ParquetFile(reader, pre_buffer=True)
    for batch in file.iter_batches(use_threads=False):
        batch.filter(pc.greater(batch.column(0), 1))
    # Text is read by a thread of its own each time; the stack of this one is kept for the next.
    csv.read_csv(pa.BufferReader(b"a\n1\n"), read_options=csv.ReadOptions(use_threads=False))
