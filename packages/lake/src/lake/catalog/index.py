"""An in-memory index of the catalog's rows by name and id.

It holds the name and id of each dataset, and recently read rows. An observer of the tree notes the
datasets that a commit has changed, and the next lookup reads only those rows again. So the cost of
a lookup does not depend on the number of datasets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from elkyn.records import Change
from lake.catalog.tables import CatalogTables, IdSet
from lake.errors import damaged_dataset
from sennit_core.errors import Corrupt, UsageError
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["CatalogIndex"]

_ROWS_MAX = 256  # parsed rows in memory: some KiB each
_ROOTS = ("datasets", "snapshots")
_DATASETS = "datasets"
"""Id of the row that records which datasets exist, to detect lost rows."""


class CatalogIndex:
    """Finds datasets; thread-safe.

    Args:
        tree: The `sys` namespace.
        recover_name: Called with the id of a dataset whose row is damaged; returns its name from
            its manifests, or None.
    """

    def __init__(self, tree: ElkynStore, recover_name: Callable[[str], str | None]) -> None:
        self._tree = tree
        self._rows = CatalogTables(tree)
        self._recover_name = recover_name
        self._lock = threading.RLock()
        # State as of the last `_refresh`. `_names` has every dataset; `_ids` maps folded names to
        # the same ids; `_damage` has the datasets whose row is unusable, `_nameless` those of them
        # whose name is not in a manifest either; `_infos` caches some intact rows.
        self._names: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._damage: dict[str, Corrupt] = {}
        self._nameless: set[str] = set()
        self._infos: OrderedDict[str, DatasetInfo] = OrderedDict()
        self._problem: Corrupt | None = None
        # Datasets that commits have changed since then. The observer runs under the writer's lock,
        # so it uses a lock that is never held during slow work.
        self._noting = threading.Lock()
        self._changed: set[str] = set()
        self._all_changed = True
        tree.admin.observe(self._note)

    def ids(self) -> Sequence[str]:
        """Return the ids of all known datasets by name, damaged ones included; see `problem`.

        Raises:
            Corrupt: The catalog cannot be read at all.
        """
        with self._lock:
            self._refresh()
            if (reason := self.unreadable) is not None:
                raise reason
            return sorted(self._names, key=lambda key: self._names[key].casefold())

    @property
    def problem(self) -> Corrupt | None:
        """Why there may be more datasets than `ids` returns; None if it is complete."""
        with self._lock:
            self._refresh()
            return self._problem

    @property
    def unreadable(self) -> Corrupt | None:
        """Why the catalog cannot be read at all; None if it can."""
        with self._lock:
            return None if self.names() else self._problem

    def names(self) -> Sequence[str]:
        """Names of all datasets."""
        with self._lock:
            self._refresh()
            return list(self._names.values())

    @property
    def uncertainty(self) -> Corrupt | None:
        """Why an unknown name may still belong to a dataset; None if it cannot."""
        problem = self.problem
        with self._lock:
            if problem is None and self._nameless:
                problem = self._damage[min(self._nameless)]
            return problem

    def find(self, id_or_name: str) -> str | None:
        """Return the id of the dataset with this id or name (case-insensitive), or None.

        Raises:
            Corrupt: No such dataset is known, but a damaged row may belong to it.
        """
        found = self.find_known(id_or_name)
        if found is None and (reason := self.uncertainty) is not None:
            raise reason
        return found

    def find_known(self, id_or_name: str) -> str | None:
        """As `find`, but also return None where `find` raises Corrupt."""
        with self._lock:
            self._refresh()
            return self._find(id_or_name)

    def find_all(self, words: Iterable[str]) -> Sequence[str]:
        """Return the ids of the datasets whose id or folded name is one of the words."""
        with self._lock:
            self._refresh()
            found = {self._find(word) for word in words} - {None}
            return sorted(dataset_id for dataset_id in found if dataset_id is not None)

    def name(self, dataset_id: str) -> str:
        """Return the name of an existing dataset, damaged or not."""
        with self._lock:
            return self._names[dataset_id]

    def get(self, dataset_id: str) -> DatasetInfo | None:
        """Return the row of a dataset; None if there is none.

        Raises:
            Corrupt: The row is damaged.
        """
        with self._lock:
            self._refresh()
            if dataset_id in self._damage:
                raise self._damage[dataset_id]
            if dataset_id not in self._names:
                return None
            if dataset_id not in self._infos:
                self._load(dataset_id)
                return self.get(dataset_id)
            self._infos.move_to_end(dataset_id)
            return self._infos[dataset_id]

    def _find(self, id_or_name: str) -> str | None:
        if id_or_name in self._names:
            return id_or_name
        folded = id_or_name.casefold()
        return folded if folded in self._names else self._ids.get(folded)

    def change_of_ids(self, *dataset_ids: str, added: bool) -> Sequence[Change]:
        """Return the changes to commit with datasets' first rows or the removal of their rows."""
        if not dataset_ids:
            return ()
        with self._lock:
            ids = self._expected_ids()
            if ids is None:
                if self.problem is not None:
                    return ()
                ids = IdSet.of(self._names)
            for dataset_id in dataset_ids:
                ids = ids.adding(dataset_id) if added else ids.removing(dataset_id)
            return (self._rows.catalog.change(_DATASETS, ids),)

    def reload(self) -> None:
        """Read every row again at the next lookup, because the disk may differ from memory."""
        with self._noting:
            self._all_changed = True

    def _note(self, _position: int, paths: list[Any]) -> None:
        """Record which datasets a commit changed (called by the tree before the commit returns)."""
        with self._noting:
            for path in paths:
                # The root of a table, or the tree itself, was replaced: any dataset may have
                # changed.
                if not path or (path[0] in _ROOTS and len(path) == 1):
                    self._all_changed = True
                elif path[0] in _ROOTS:
                    self._changed.add(path[1])

    def _refresh(self) -> None:
        # Emptied before reading: a commit during the reads below is noted for the next refresh.
        with self._noting:
            reload, self._all_changed = self._all_changed, False
            changed, self._changed = self._changed, set()
        if reload:
            self._load_all()
        else:
            for dataset_id in changed:
                self._load(dataset_id)

    def _load_all(self) -> None:
        for known in (self._names, self._ids, self._damage, self._infos):
            known.clear()
        self._nameless.clear()
        self._problem = None
        found, expected, problems = self._listed()
        for dataset_id in found:
            self._load(dataset_id, listed=True)
        if (difference := self._difference(found, expected)) is not None:
            problems.append(difference)
        if not found and not problems:
            # A tree with a damaged root row reads as empty, and a sweep would then delete all
            # objects.
            problems += [Corrupt("the tree", found=each) for each in self._tree.admin.verify()]
        if problems:
            self._problem = Corrupt(
                "the catalog",
                found=str(problems[0]),
                hint="stop the node and restore the data folder from a backup",
            )

    def _listed(self) -> tuple[set[str], IdSet | None, list[Corrupt]]:
        """Return the ids found in any row, the expected ids, and the damage that was found."""
        while True:
            found: set[str] = set()
            problems: list[Corrupt] = []
            expected = self._expected_ids()
            # A dataset that lost its row still has snapshot rows, and vice versa.
            for ids in (self._rows.datasets.ids, self._rows.datasets_with_snapshots):
                try:
                    found.update(ids())
                except Corrupt as problem:
                    problems.append(problem)
            if expected == self._expected_ids():  # no commit happened in between
                return found, expected, problems

    def _expected_ids(self) -> IdSet | None:
        """Return the expected set of datasets; None if it is unknown."""
        try:
            return self._rows.catalog.get(_DATASETS)
        except Corrupt:
            return None

    def _difference(self, found: set[str], expected: IdSet | None) -> Corrupt | None:
        """Return the error if the ids that were found differ from the expected ones."""
        if expected is None and self._damage:
            what = f"{self._rows.catalog.path}/{_DATASETS} of the platform's tree"
            return Corrupt(what, found="no row, and other rows are damaged")
        if expected is None or IdSet.of(found) == expected:
            return None
        what = f"{self._rows.datasets.path} of the platform's tree"
        return Corrupt(what, f"{expected.count} datasets", f"{len(found)}, or others")

    def _load(self, dataset_id: str, *, listed: bool = False) -> None:
        """Read one row; remove the dataset from the index if there is none.

        Args:
            dataset_id: The dataset.
            listed: Whether a scan of the rows has just found it.
        """
        self._forget(dataset_id)
        try:
            info = self._rows.datasets.get(dataset_id)
            if info is None and not listed and not self._has_snapshots(dataset_id):
                return
            problem = "it is missing, but other rows of the dataset exist"
            if info is not None and info.id != dataset_id:
                problem = f"it is the row of {info.id}"
            elif info is not None:
                self._keep(info)
                return
        except (Corrupt, UsageError) as error:  # UsageError: an invalid id
            problem = str(error)
        self._keep_damaged(dataset_id, problem)

    def _has_snapshots(self, dataset_id: str) -> bool:
        return bool(self._rows.snapshots(dataset_id).ids())

    def _keep(self, info: DatasetInfo) -> None:
        self._names[info.id] = info.name
        # Names are unique unless rows are damaged; then the first one keeps the name.
        self._ids.setdefault(info.name.casefold(), info.id)
        self._infos[info.id] = info
        while len(self._infos) > _ROWS_MAX:
            self._infos.popitem(last=False)

    def _keep_damaged(self, dataset_id: str, problem: str) -> None:
        name = self._recover_name(dataset_id)
        if name is None:
            self._nameless.add(dataset_id)
            name = self._name_in_row(dataset_id) or dataset_id
        self._names[dataset_id] = name
        self._ids.setdefault(name.casefold(), dataset_id)
        self._damage[dataset_id] = damaged_dataset(name, "its catalog row", problem)

    def _name_in_row(self, dataset_id: str) -> str | None:
        try:
            row = self._rows.datasets.raw(dataset_id)
        except (Corrupt, UsageError):
            return None
        name = row.get("name") if isinstance(row, dict) else None
        return name if isinstance(name, str) and name else None

    def _forget(self, dataset_id: str) -> None:
        name = self._names.pop(dataset_id, None)
        if name is not None and self._ids.get(name.casefold()) == dataset_id:
            del self._ids[name.casefold()]
        self._damage.pop(dataset_id, None)
        self._nameless.discard(dataset_id)
        self._infos.pop(dataset_id, None)
        if name is not None:
            for other in self._damage:  # damage can leave two rows with one name
                if self._names[other].casefold() == name.casefold():
                    self._ids.setdefault(name.casefold(), other)
