"""Queries with a small side that is computed first, stopped in each of their phases: all nodes free everything.

a part at a holder ──▶ the small side here ──▶ a part at a holder, with the rows of the small side
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest

from lake.peers.copies.placement import Placement
from lake.peers.data import DataParts
from lake.peers.queries.fragments import FragmentRequest, FragmentRunner
from lake.peers.transport.stop import Stop
from lake.statements.limits import Requester
from sennit_core.errors import Cancelled, DeadlineExceeded

from .real_offices import Office, office
from .test_peers_service import eventually
from .test_peers_stopped_queries import in_thread, is_busy

pytestmark = pytest.mark.slow  # real nodes with executors
ROWS = 100_000
SLOW = "sum(length(md5(repeat(s, 18000))))"
"""Half a minute for one executor."""
PHASES = {
    "a part of the small side": (
        f"SELECT count(*) FROM heavy WHERE v < (SELECT {SLOW} % 7 FROM heavy WHERE v >= 0)"
    ),
    "the small side": """SELECT count(*) FROM heavy WHERE v < (
        SELECT count(*) FROM words AS a, words AS b, words AS c WHERE (a.k + b.k * c.k) % 7 = 1)""",
    "the part with its rows": (
        f"SELECT word, {SLOW} FROM heavy JOIN (FROM words WHERE k < 7) AS w ON v % 7 = w.k GROUP BY word"
    ),
}


@dataclass
class Counted:
    """Runs fragments, and counts those with rows of a small side."""

    inner: FragmentRunner
    begun: list[bool] = field(default_factory=list)

    def run(self, request: FragmentRequest, stop: Stop, body: bytes = b"") -> Iterator[bytes]:
        self.begun.append(bool(request.sent))
        return self.inner.run(request, stop, body)


@dataclass
class Offices:
    """Oslo has the large dataset, Rome asks and has the small one."""

    oslo: Office
    rome: Office
    at_oslo: Counted

    def is_in(self, phase: str) -> bool:
        """Return whether the query is in a phase, at the node whose phase it is."""
        with_rows = {"a part of the small side": [False], "the small side": []}.get(phase, [True])
        if phase == "the small side":  # its file is there; before that, an executor plans
            is_begun = is_busy(self.rome) and bool(self.results())
        else:
            is_begun = is_busy(self.oslo)
        return self.at_oslo.begun == with_rows and is_begun

    def results(self) -> list[Path]:
        return list(self.rome.lake.staging.glob("distributed-*/*.arrow"))

    def is_free(self) -> bool:
        left = [
            path
            for each in (self.oslo, self.rome)
            for kind in ("distributed-*", "sent-*", "*/sent-*")
            for path in each.lake.staging.glob(kind)
        ]
        return not (left or is_busy(self.oslo) or is_busy(self.rome))


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offices]:
    folder, counted = tmp_path_factory.mktemp("offices"), list[Counted]()

    def count(data: DataParts) -> DataParts:
        counted.append(Counted(data.fragments))
        return replace(data, fragments=counted[0])

    with office(folder, "oslo", change=count) as oslo, office(folder, "rome", capacity=0) as rome:
        rome.peers.join(oslo.peers.invite())
        rows = [str(number) for number in range(ROWS)]
        oslo.lake.append("heavy", pa.table({"v": list(range(ROWS)), "s": rows}))
        oslo.peers.share("heavy", None)
        numbers = list(range(3000))
        rome.lake.append("words", pa.table({"k": numbers, "word": [str(n) for n in numbers]}))
        rome.peers.share("words", None, Placement(1))
        words = rome.lake.catalog.manifest("words").snapshot
        network = rome.peers._network
        assert network is not None
        eventually(lambda: "heavy" in rome.names())
        eventually(lambda: network.may_receive(oslo.peers.identity.id, words.dataset, words.id))
        yield Offices(oslo, rome, counted[0])


NIGHTLY = [
    pytest.param(name, marks=pytest.mark.nightly) for name in PHASES if name != "the small side"
]


@pytest.mark.parametrize("phase", ["the small side", *NIGHTLY])
def test_a_query_that_is_stopped_in_any_phase_frees_all_nodes(offices: Offices, phase: str) -> None:
    offices.at_oslo.begun.clear()
    running = offices.rome.lake.running
    thread, errors = in_thread(lambda: offices.rome.query(PHASES[phase]))
    eventually(lambda: offices.is_in(phase))
    ada = Requester("ada", is_admin=True)
    [found] = running.list(ada)
    running.stop(found.id, ada)
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(errors[0], Cancelled)
    eventually(offices.is_free)


@pytest.mark.nightly
@pytest.mark.parametrize("phase", PHASES)
def test_a_deadline_in_any_phase_frees_all_nodes(offices: Offices, phase: str) -> None:
    offices.at_oslo.begun.clear()
    with pytest.raises(DeadlineExceeded):
        offices.rome.lake.sql(PHASES[phase], deadline_seconds=4.0)
    eventually(offices.is_free)
