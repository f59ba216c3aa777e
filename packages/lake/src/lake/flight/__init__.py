"""Arrow Flight SQL: the lake for ADBC, JDBC and other database clients.

Layering: protobuf <- messages <- streams, tickets, prepared, metadata <- statements <- commands (the
table of commands) <- rpc (the methods of gRPC) <- server; calls knows who calls. Needs the extra
`flight` (grpcio). Results pass through as the bytes that an executor wrote, and Arrow data of
clients is decoded by executors only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.flight.server import FlightSqlServer

__all__ = ["FlightSqlServer"]


def __getattr__(name: str) -> Any:
    if name == "FlightSqlServer":
        from lake.flight.server import FlightSqlServer

        return FlightSqlServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
