"""Lake: verified, content-addressed Parquet shards, their catalog, and SQL over them.

Each folder is a part, below those that are named after it:

    objects, encryption         files and what they are verified by
    catalog, views, access      datasets, their snapshots, and who sees what of them
    statements, writes          SQL that reads datasets, and SQL that changes them
    distributed                 datasets of other nodes, and statements that run there too
    maintenance                 scrub, retention, cleanup, purge
    lake.py                     the lake of one node, of all of these

`uploads` receives files, and `ingestor` makes datasets of them. `ingest` and `sql` run in executors.
`routes` and `flight` serve a lake, `peers` connects it with others, `bundles` and `interop` are its
forms for other sites and programs. pyarrow and duckdb are imported on first use, not with the package.
"""

from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-lake")

if TYPE_CHECKING:
    from lake.catalog.catalog import Catalog
    from lake.errors import UploadIncomplete
    from lake.lake import Lake, open  # noqa: A004 - it reads as `lake.open`
    from lake.objects.store import ObjectStore
    from lake.statements.limits import QueryLimits
    from lake.statements.queries import QueryExecution
    from lake.statements.results import Result
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import SealedUpload, UploadInfo
    from lake.writes.write_execution import WriteExecution

# Repeats the imports above, which only type checkers see. lazy_loader would derive it from a stub
# file, but its import adds 2 ms to the 50 ms of `import elytra`.
_HOMES = {
    "Catalog": "catalog.catalog",
    "Lake": "lake",
    "QueryLimits": "statements.limits",
    "ObjectStore": "objects.store",
    "PartStore": "uploads.parts",
    "QueryExecution": "statements.queries",
    "Result": "statements.results",
    "SealedUpload": "uploads.upload",
    "UploadIncomplete": "errors",
    "UploadInfo": "uploads.upload",
    "WriteExecution": "writes.write_execution",
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
