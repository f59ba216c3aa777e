"""Keep a process under a cap small: settings before it starts, and imports in its first lines."""

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

from emsqrt.lazy_import import LazyModule
from sennit_core.errors import CapacityError, Unavailable, Unsupported
from sennit_core.units import format_bytes

_LEAST_RESERVED = {"RLIMIT_DATA": 128 << 20, "RLIMIT_AS": 256 << 20}
"""Address space that pyarrow reserves, its threads' stacks included; it touches far less."""


class _PandasBlocker:
    """Make `import pandas` fail: pyarrow would import it by itself, at 30 MB of every cap."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError("executors do without pandas", name=name)


def block_pandas() -> None:
    """Prevent every library from importing pandas in this process."""
    sys.meta_path.insert(0, _PandasBlocker)


def require_arrow(what: str) -> None:
    """Refuse a plan that needs the arrow tier where pyarrow is not installed.

    Raises:
        Unsupported: names the packages to install.
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


_UNUSED_MODULES = ("pyarrow._azurefs", "pyarrow._hdfs", "pyarrow._s3fs")
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class _UnusedModulesBlocker:
    """Prevent the import of object store clients that the engine replaces without pyarrow."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name in _UNUSED_MODULES:
            raise ModuleNotFoundError("executors do without it", name=name)


class _Certificates(NamedTuple):
    """Return type of `ssl.get_default_verify_paths`, with the fields that pyarrow reads."""

    cafile: str | None
    capath: str | None = None


def _certificates() -> _Certificates:
    """Return where certificates are, with less memory than OpenSSL needs for the answer."""
    places = (os.environ.get("SSL_CERT_FILE"), *_CERTIFICATES)
    return _Certificates(next((path for path in places if path and Path(path).exists()), None))


@contextmanager
def _without_unused_imports() -> Iterator[None]:
    """Hide modules that pyarrow imports only for help texts and for certificates: 3 MiB."""
    texts, secrets = ModuleType("pyarrow.vendored.docscrape"), ModuleType("ssl")
    texts.NumpyDocString = lambda _: {"Parameters": []}  # type: ignore[attr-defined]
    secrets.get_default_verify_paths = _certificates  # type: ignore[attr-defined]
    stubs = {module.__name__: module for module in (texts, secrets)}
    stubs = {name: module for name, module in stubs.items() if name not in sys.modules}
    sys.modules.update(stubs)
    sys.meta_path.insert(0, _UnusedModulesBlocker)
    try:
        yield
    finally:
        sys.meta_path.remove(_UnusedModulesBlocker)
        for name in stubs:
            del sys.modules[name]


class _LazyMasked(LazyModule):
    """A lazy `numpy.ma`: 4 MiB that pyarrow imports only to ask if an array is masked."""

    @property
    def MaskedArray(self) -> type:  # noqa: N802 - numpy's name
        """Return a class without instances until the module is loaded."""
        loaded = sys.modules[self.__name__]
        return _Masked if loaded is self else loaded.MaskedArray


class _Masked:
    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Create an instance of the class that this one replaces."""
        masked = sys.modules["numpy.ma"]
        return masked.masked_array(*args, **options)


def _make_masked_lazy() -> None:
    import numpy

    if "numpy.ma" not in sys.modules:
        numpy.ma = sys.modules["numpy.ma"] = _LazyMasked("numpy.ma")


def _check_limits() -> None:
    """Refuse resource limits under which the libraries would end the process while they start."""
    for name, least_bytes in _LEAST_RESERVED.items():
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY and soft < least_bytes:
            raise CapacityError(
                f"{name} limits this process to {format_bytes(soft)}, and pyarrow reserves "
                f"{format_bytes(least_bytes)}",
                hint="raise the limit (ulimit -d, -v); CSV and JSON Lines work without it",
            )


def load_arrow() -> None:
    """Import pyarrow with as little memory as possible, before the cap is watched.

    This starts its one thread of each kind, and exercises once each code path that reserves memory
    on first use and keeps it.

    Raises:
        CapacityError: a resource limit of the process is below what pyarrow reserves.
        Unavailable: it cannot be imported.
    """
    _check_limits()
    try:
        with _without_unused_imports():
            import pyarrow as pa
            import pyarrow.compute as pc
            from pyarrow import csv, parquet
    except (ImportError, MemoryError) as error:
        raise Unavailable(
            "pyarrow",
            message=f"pyarrow could not be loaded: {error or 'no memory'}",
            hint="check the limits of the process (ulimit -v, -d, -n)",
        ) from error

    _make_masked_lazy()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    table = pa.table({"number": [1, 2], "text": ["a", "b"]})
    sink = pa.BufferOutputStream()
    parquet.write_table(table.cast(table.schema), sink, compression="zstd")
    packed = pa.ipc.IpcWriteOptions(compression="lz4")  # compressed by the computing thread
    with pa.ipc.new_stream(pa.BufferOutputStream(), table.schema, options=packed) as stream:
        stream.write_table(table)
    # Reading a file object that is no buffer starts the I/O thread, which reads ahead.
    reader = pa.PythonFile(BytesIO(sink.getvalue()), mode="r")
    file = parquet.ParquetFile(reader, pre_buffer=True)
    for batch in file.iter_batches(use_threads=False):
        batch.filter(pc.greater(batch.column(0), 1))
    # Each text reader starts a thread of its own; the stack of this one is cached for the next.
    csv.read_csv(pa.BufferReader(b"a\n1\n"), read_options=csv.ReadOptions(use_threads=False))
