"""What the lake stores, by dataset and kind of object, for GET /api/stats/storage."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lake.statements.limits import Requester
from sennit_core.errors import SennitError

if TYPE_CHECKING:
    from lake import Lake
    from lake.catalog.usage import DatasetUsage

__all__ = ["maintenance_report", "storage_report"]


def storage_report(lake: Lake, requester: Requester) -> dict[str, Any]:
    """Return what a user may know: the datasets that the user sees whole, and the sums of these.

    Args:
        lake: The lake.
        requester: The user; only trusted ones get the quotas of all.
    """
    datasets = _datasets(lake, requester)
    stored = sum(each.stored_bytes for each in datasets)
    used = lake.objects.usage()
    report = {
        "datasets": [each.to_json() for each in datasets],
        "storedBytes": stored,
        "reclaimableBytes": sum(each.reclaimable_bytes for each in datasets),
        "smallShards": sum(each.small_shards for each in datasets),
        "maintenance": maintenance_report(lake, requester),
        "quota": lake.quotas.get(requester.name).to_json() if requester.name else None,
    }
    if not requester.is_trusted:
        return report
    shards = lake.quotas.stored.distinct()
    return report | {
        "objects": {
            "shards": {"objects": len(shards), "bytes": sum(shards.values())},
            # Manifests, lists of shards, kept sources, and what waits for its deletion.
            "others": {
                "objects": max(0, used.objects - len(shards)),
                "bytes": max(0, used.bytes - sum(shards.values())),
            },
            "retired": lake.retention.retired,
            "quarantined": len(lake.objects.quarantined()),
        },
        # What datasets with equal shards would store without sharing them.
        "sharedBytes": stored - sum(shards.values()),
        "disk": lake.space.to_json(),
        "quotas": [lake.quotas.shown(quota) for quota in lake.quotas.list()],
    }


def maintenance_report(lake: Lake, requester: Requester) -> list[dict[str, Any]]:
    """Return the state of each task; a problem's text is for those who may know of every dataset."""
    states = lake.maintenance.to_json()
    if requester.is_trusted or not lake.policies:
        return states
    problem = {"problem": "a task failed for a dataset; admins see for which"}
    return [state | problem if state.get("problem") else state for state in states]


def _datasets(lake: Lake, requester: Requester) -> list[DatasetUsage]:
    found = []
    for info in lake.policies.list(requester):
        # A damaged dataset, or one of which the user sees a part, has no numbers here.
        with suppress(SennitError):
            whole = lake.policies.check_whole(info.id, requester, "measuring")
            found.append(lake.quotas.stored.of(whole))
    return found
