"""How long the earlier versions of a dataset are kept: a rule of the dataset, or the lake's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable
from lake.catalog.catalog import Catalog
from sennit_core.errors import UsageError
from sennit_core.records import Record

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["KEEP_ALL", "RetentionRule", "RetentionRules"]


@dataclass(frozen=True, slots=True)
class RetentionRule(Record):
    """Which versions maintenance removes: those that both members allow.

    Args:
        keep: How many of the newest stay; 0 keeps every version.
        older_than_seconds: Only versions that something newer replaced so long ago.
    """

    keep: int = 0
    older_than_seconds: float = 0.0


KEEP_ALL = RetentionRule()


class RetentionRules:
    """The rules of one lake.

    Args:
        tree: The `sys` namespace.
        catalog: Knows the datasets.
        default: The rule of datasets without one.
    """

    def __init__(self, tree: ElkynStore, catalog: Catalog, default: RetentionRule) -> None:
        self._rows = CheckedTable(tree, "/retention", RetentionRule)
        self._catalog = catalog
        self.default = default

    def get(self, dataset: str) -> RetentionRule:
        """Return the rule that applies to a dataset.

        Raises:
            NotFound: There is no such dataset.
            Corrupt: The rule is damaged, so that nothing expires.
        """
        return self._rows.get(self._catalog.get(dataset).id) or self.default

    def set(self, dataset: str, rule: RetentionRule | None) -> RetentionRule:
        """Give a dataset a rule; None restores the lake's own. Return the rule that applies.

        Raises:
            NotFound: There is no such dataset.
            UsageError: A number is out of range.
        """
        info = self._catalog.get(dataset)
        if rule is None:
            self._rows.remove(info.id)
            return self.default
        if rule.keep < 0 or not rule.older_than_seconds >= 0:
            raise UsageError("a retention rule has numbers of 0 or more")
        self._rows.put(info.id, rule)
        return rule

    def forget(self, dataset_id: str) -> None:
        """Remove the rule of a deleted dataset."""
        if dataset_id in self._rows:
            self._rows.remove(dataset_id)
