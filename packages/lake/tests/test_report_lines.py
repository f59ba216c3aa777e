"""Work that is reported line by line: a client that goes ends it, in the thread of the work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from lake.routes.report_lines import report_lines
from sennit_core.errors import Conflict
from sennit_core.records import Record


@dataclass(frozen=True, slots=True)
class Step(Record):
    number: int


def endless(ended: list[str]) -> Iterator[Step]:
    number = 0
    try:
        while True:
            yield Step(number)
            number += 1
    finally:
        ended.append(threading.current_thread().name)


def test_work_whose_client_goes_is_undone_by_its_own_thread() -> None:
    ended: list[str] = []
    stop = threading.Event()

    async def read_two() -> list[bytes]:
        response = await report_lines(thread, endless(ended), stop)
        lines: Any = response.body_iterator
        found = [await anext(lines), await anext(lines)]
        await lines.aclose()
        return found

    with ThreadPoolExecutor(1, "work") as thread:
        assert asyncio.run(read_two()) == [b'{"number":0}\n', b'{"number":1}\n']
    assert stop.is_set()
    assert ended == ["work_0"]


def test_an_error_before_the_first_report_is_raised() -> None:
    def refused(is_refused: bool) -> Iterator[Step]:
        if is_refused:
            raise Conflict("no")
        yield Step(0)

    with ThreadPoolExecutor(1, "work") as thread, pytest.raises(Conflict):
        asyncio.run(report_lines(thread, refused(True), threading.Event()))
