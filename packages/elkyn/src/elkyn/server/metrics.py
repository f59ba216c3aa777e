"""Metrics of a server for Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable

from elkyn.server.request import METHODS, Response

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "elkyn_requests_total": ("counter", "Answered requests."),
    "elkyn_reads_total": ("counter", "Reads of the tree."),
    "elkyn_writes_total": ("counter", "Writes of the tree."),
    "elkyn_events_total": ("counter", "Events sent to clients."),
    "elkyn_connections": ("gauge", "Open requests, event streams and sockets."),
    "elkyn_stalled_total": ("counter", "Connections closed because their client did not read."),
    "elkyn_unsent_bytes": ("gauge", "Bytes of large answers that wait to be sent."),
    "elkyn_body_memory_bytes": ("gauge", "Estimated memory of request bodies in progress."),
    "elkyn_commits_total": ("counter", "Commits of groups of writes."),
    "elkyn_commit_seconds_total": ("counter", "Time spent in commits."),
    "elkyn_waiting_writes": ("gauge", "Writes that wait for a commit."),
    "elkyn_bytes_out_total": ("counter", "Bytes of answers and events."),
    "elkyn_position": ("gauge", "The last commit of a namespace."),
}


class Metrics:
    """Counters since the server's start."""

    __slots__ = ("bytes_out", "events", "open", "reads", "requests", "stalled", "writes")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.open = {"http": 0, "sse": 0, "ws": 0}
        self.reads = 0
        self.writes = 0
        self.events = 0
        self.bytes_out = 0
        self.stalled = 0

    def count_stalled(self) -> None:
        """Count a connection that was closed because its client did not read."""
        self.stalled += 1

    def answered(self, method: str, response: Response) -> None:
        """Count an answer."""
        # Clients choose the method: unknown ones share one row, so that the table stays small.
        key = (method if method in METHODS else "other", response.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.bytes_out += len(response.body)

    def text(
        self,
        *,
        commits: int,
        commit_seconds: float,
        waiting: int,
        unsent_bytes: int,
        body_memory_bytes: int,
        positions: Iterable[tuple[str, int]],
    ) -> bytes:
        """Return the metrics in Prometheus text format.

        Args:
            commits: groups committed.
            commit_seconds: time spent in commits.
            waiting: writes in the queue.
            unsent_bytes: of large answers that are being sent.
            body_memory_bytes: of request bodies in progress.
            positions: of the open namespaces.
        """
        rows: dict[str, list[tuple[str, float]]] = {
            "elkyn_requests_total": [
                (f'{{method="{method}",status="{status}"}}', count)
                for (method, status), count in sorted(self.requests.items())
            ],
            "elkyn_reads_total": [("", self.reads)],
            "elkyn_writes_total": [("", self.writes)],
            "elkyn_events_total": [("", self.events)],
            "elkyn_connections": [
                (f'{{kind="{kind}"}}', count) for kind, count in sorted(self.open.items())
            ],
            "elkyn_stalled_total": [("", self.stalled)],
            "elkyn_unsent_bytes": [("", unsent_bytes)],
            "elkyn_body_memory_bytes": [("", body_memory_bytes)],
            "elkyn_commits_total": [("", commits)],
            "elkyn_commit_seconds_total": [("", round(commit_seconds, 6))],
            "elkyn_waiting_writes": [("", waiting)],
            "elkyn_bytes_out_total": [("", self.bytes_out)],
            "elkyn_position": [(f'{{ns="{name}"}}', at) for name, at in positions],
        }
        lines: list[str] = []
        for name, values in rows.items():
            kind, text = _HELP[name]
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{labels} {value}" for labels, value in values]
        return ("\n".join(lines) + "\n").encode()
