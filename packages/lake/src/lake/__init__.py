"""Lake: verified, content-addressed Parquet shards, their catalog, and SQL over them.

Layering: `durable` and `objects` below `verification` and `snapshots` below `catalog` (with
`catalog_tables`, `catalog_index` and `references`) below `retention` below `scrub`; `uploads`
receives files; `ingest` and `sql` run in executors and do not import the rest; `ingestor` creates
datasets from files; `access` and `policies` decide what a user sees; `writes` commits statements that change them; `lake` is the node's lake;
`routes` serves it over HTTP. pyarrow and duckdb are imported on first use, not with the package.
"""

from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-lake")

if TYPE_CHECKING:
    from lake.catalog import Catalog
    from lake.errors import UploadIncomplete
    from lake.lake import Lake, open  # noqa: A004 - it reads as `lake.open`
    from lake.limits import QueryLimits
    from lake.objects import ObjectStore
    from lake.queries import QueryExecution
    from lake.results import Result
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import SealedUpload, UploadInfo
    from lake.write_execution import WriteExecution

# Repeats the imports above, which only type checkers see. lazy_loader would derive it from a stub
# file, but its import adds 2 ms to the 50 ms of `import elytra`.
_HOMES = {
    "Catalog": "catalog",
    "Lake": "lake",
    "QueryLimits": "limits",
    "ObjectStore": "objects",
    "PartStore": "uploads.parts",
    "QueryExecution": "queries",
    "Result": "results",
    "SealedUpload": "uploads.upload",
    "UploadIncomplete": "errors",
    "UploadInfo": "uploads.upload",
    "WriteExecution": "write_execution",
    "open": "lake",
}

__all__ = [
    "Catalog",
    "Lake",
    "ObjectStore",
    "PartStore",
    "QueryExecution",
    "QueryLimits",
    "Result",
    "SealedUpload",
    "UploadIncomplete",
    "UploadInfo",
    "WriteExecution",
    "open",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first access."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"lake.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
