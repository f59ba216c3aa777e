"""A fragment of a query, as a worker of a cluster gets it: SQL over inputs by name, which it runs in its executor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from elytra.backends.task_spec import TaskLimits

__all__ = ["SqlTask"]


@dataclass(frozen=True, slots=True)
class SqlTask:
    """One execution of a fragment.

    Args:
        id: Identifies the execution; never reused.
        request: The request of the entry `lake.sql`; its paths are names of inputs.
        limits: What it may use.
        user: The user on whose behalf it runs.
    """

    id: str
    request: dict[str, Any]
    limits: TaskLimits
    user: str = ""

    output: Literal["arrow"] = "arrow"
    key: str = "fragment"

    def to_json(self) -> dict[str, Any]:
        """Return the task for another process."""
        limits = self.limits
        return {
            "id": self.id,
            "request": self.request,
            "seconds": limits.seconds,
            "outputBytesMax": limits.output_bytes_max,
            "user": self.user,
        }

    @classmethod
    def from_json(cls, source: str) -> SqlTask:
        """Read the form of `to_json`, from the node's own driver."""
        data = json.loads(source)
        limits = TaskLimits(None, data["seconds"], data["outputBytesMax"])
        return cls(data["id"], data["request"], limits, data["user"])

    def bound(self, paths: Mapping[str, str]) -> dict[str, Any]:
        """Return the request over files.

        Args:
            paths: The file of each input, by its name.
        """
        request = dict(self.request)
        request["tables"] = [
            {**table, "paths": [paths[name] for name in table["paths"]]}
            for table in request["tables"]
        ]
        if "sent" in request:
            request["sent"] = [
                {**table, "files": [paths[name] for name in table["files"]]}
                for table in request["sent"]
            ]
        return request
