"""Many users at once: no write is lost, and a crowd of queries stays within the node's memory."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from nodes import RunningNode

WRITERS = 8
ROUNDS = 6
QUERIES = 1_000
MEMORY_BYTES = 1 << 30  # what `own_node` is started with

# A process of its own: each statement adds to a counter of its writer and to one that all share.
WRITER = """
import os, sys
import httpx

writer, rounds = int(sys.argv[1]), int(sys.argv[2])
headers = {"authorization": f"Bearer {os.environ['TOKEN']}"}
done = 0
with httpx.Client(base_url=os.environ["URL"], headers=headers, timeout=120) as client:
    def run(sql):
        while True:
            answer = client.post("/api/query", json={"sql": sql})
            if answer.status_code not in (409, 503):
                assert answer.status_code == 200, answer.text
                return
    for step in range(rounds):
        run(f"INSERT INTO log VALUES ({writer}, {step})")
        run(f"UPDATE counters SET n = n + 1 WHERE writer IN ({writer}, -1)")
        run(
            f"BEGIN; INSERT INTO log VALUES ({writer}, {1000 + step}); "
            f"UPDATE counters SET n = n + 1 WHERE writer = -2; COMMIT"
        )
"""


@pytest.mark.nightly  # 144 statements that conflict
def test_eight_processes_that_write_at_once_lose_nothing(own_node: RunningNode) -> None:
    with own_node.session() as session:
        session.sql("CREATE TABLE log (writer INTEGER, step INTEGER)")
        session.sql(
            "CREATE TABLE counters AS SELECT range::INTEGER - 2 AS writer, 0 AS n "
            f"FROM range({WRITERS + 2})"
        )
        environment = os.environ | {"URL": own_node.url, "TOKEN": own_node.token}
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(number), str(ROUNDS)],
                stderr=subprocess.PIPE, env=environment,
            )
            for number in range(WRITERS)
        ]  # fmt: skip
        for writer in writers:
            _, errors = writer.communicate(timeout=300)
            assert writer.returncode == 0, errors.decode()

        logged = session.sql("SELECT writer, step FROM log ORDER BY ALL").rows
        counters = dict(session.sql("SELECT writer, n FROM counters").rows)
        versions = session.sql("SELECT count(*) FROM log AT (VERSION => 1)").rows
    steps = [*range(ROUNDS), *range(1000, 1000 + ROUNDS)]
    assert logged == [(writer, step) for writer in range(WRITERS) for step in steps]
    assert counters == {-1: WRITERS * ROUNDS, -2: WRITERS * ROUNDS} | dict.fromkeys(
        range(WRITERS), ROUNDS
    )
    assert versions == [(0,)]


class MemoryPeak:
    """The highest sum of the proportional memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.bytes

    def _sample(self) -> None:
        while not self._stop.wait(0.1):
            total = 0
            for process in [self._root, *self._root.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # ended meanwhile
            self.bytes = max(self.bytes, total)


@pytest.mark.nightly  # a thousand queries
def test_a_thousand_queries_at_once_stay_within_the_memory(
    own_node: RunningNode, tmp_path: Path
) -> None:
    source = tmp_path / "numbers.csv"
    source.write_text("id,word\n" + "".join(f"{i},word {i % 97}\n" for i in range(50_000)))
    with own_node.session() as session:
        session.put(str(source))
    peak = MemoryPeak(own_node.process.pid)

    async def ask_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=QUERIES)
        async with httpx.AsyncClient(
            base_url=own_node.url, headers=own_node.headers, timeout=120, limits=limits
        ) as client:
            # Each other than the rest, so that none is answered from the cache.
            return await asyncio.gather(
                *(
                    client.post(
                        "/api/query",
                        json={"sql": f"SELECT {n} AS n, count(DISTINCT word) FROM numbers"},
                    )
                    for n in range(QUERIES)
                )
            )

    answers = asyncio.run(ask_all())
    used = peak.stop()

    answered = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    for number, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.json()["rows"] == [[number, 97]]
    # A full queue refuses the rest at once, with words, and a time after which to come again.
    for answer in refused:
        assert answer.status_code == 429, answer.text
        assert json.loads(answer.text)["code"]
        assert int(answer.headers["retry-after"]) > 0
    assert len(answered) >= 32
    assert used < MEMORY_BYTES
    with own_node.session() as session:
        assert session.sql("SELECT count(*) FROM numbers").rows == [(50_000,)]
