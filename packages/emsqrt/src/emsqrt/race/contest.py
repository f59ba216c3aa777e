"""The race: run contenders one after the other, each with its settings in order until one works."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from emsqrt.race.answers import Answer, read_answer
from emsqrt.race.contenders import Attempt, AttemptFiles, Contender
from emsqrt.race.watch import Ended, MemorySample, watch
from emsqrt.race.work import RaceQuery
from sennit_core.units import format_bytes, format_duration

_WORDS_LINES, _WORDS_CHARACTERS = 3, 300
_ERROR = re.compile(r"\w*(Error|Exception|Panic)\w*: |emsqrt: |sort: ")
_TRACE_POINTS = 400


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one attempt.

    Args:
        name: the contender.
        version: the installed version.
        attempt: how it was run, and `number` of `attempts` that it may have.
        ended: the measurements.
        answer: a summary of its output; None when it failed, or its format cannot be read here.
        own_figures: figures that it reports itself, if any: the JSON of a `Manifest`.
    """

    name: str
    version: str
    attempt: Attempt
    number: int
    attempts: int
    ended: Ended
    answer: Answer | None = None
    own_figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether it succeeded, with the output in the requested order."""
        return self.ended.well and (self.answer is None or self.answer.in_order)

    def how_it_ended(self) -> str:
        """Describe its end in one line: the answer, the verbatim error, or why it was killed."""
        ended = self.ended
        if ended.killed_at_bytes is not None:
            return f"killed over the cap at {format_bytes(ended.killed_at_bytes)}"
        if ended.timed_out:
            return f"stopped after {format_duration(ended.wall_seconds)}: timed out"
        if not ended.well:
            return f"status {ended.status}: {last_words(ended.words) or 'no word'}"
        return "done" if self.answer is None else str(self.answer)

    def to_json(self) -> dict[str, Any]:
        """Return all fields, memory over time as [seconds, bytes] pairs."""
        ended = self.ended
        points = ended.trace.points()
        return {
            "engine": self.name,
            "version": self.version,
            "settings": self.attempt.settings,
            "attempt": self.number,
            "attempts": self.attempts,
            "succeeded": self.well,
            "outcome": self.how_it_ended(),
            "status": ended.status,
            "killedAtBytes": ended.killed_at_bytes,
            "wallSeconds": round(ended.wall_seconds, 3),
            "cpuSeconds": round(ended.cpu_seconds, 3),
            "peakBytes": ended.peak_bytes,
            "spilledBytes": ended.spilled_bytes,
            "reportedPeakBytes": self.own_figures.get("peakBytes"),
            "rows": None if self.answer is None else self.answer.rows,
            "checksum": None if self.answer is None else self.answer.checksum,
            "trace": [
                [round(at, 3), held] for at, held in points[:: len(points) // _TRACE_POINTS + 1]
            ],
        }


class View(Protocol):
    """Callbacks that display a race while it runs."""

    def on_start(self, name: str, version: str, attempt: Attempt) -> None:
        """An attempt is about to start."""

    def on_sample(self, look: MemorySample) -> None:
        """Memory was polled, about 200 times a second."""

    def on_end(self, result: Result) -> None:
        """The attempt has ended."""

    def on_skip(self, name: str, reason: str) -> None:
        """A contender does not take part, with the reason."""


def race(
    work: RaceQuery,
    cap_bytes: int | None,
    contenders: Sequence[Contender],
    scratch: Path,
    view: View,
    *,
    timeout_seconds: float | None = None,
) -> list[Result]:
    """Run all contenders one after the other and return every attempt, in order.

    Args:
        work: the job.
        cap_bytes: the limit of each process tree; None for no limit.
        contenders: the engines, in this order.
        scratch: a folder for outputs and spill, emptied again.
        view: receives all events.
        timeout_seconds: time limit of one attempt.
    """
    results = []
    for path in set(work.tables.values()):
        warm(path)
    for contender in contenders:
        version = contender.version()
        reason = "it is not installed" if version is None else contender.why_not(work)
        if version is None or reason is not None:
            view.on_skip(contender.name, str(reason))
            continue
        results += _try_all(contender, version, work, cap_bytes, (scratch, view, timeout_seconds))
    return results


def _try_all(
    contender: Contender,
    version: str,
    work: RaceQuery,
    cap_bytes: int | None,
    where: tuple[Path, View, float | None],
) -> list[Result]:
    scratch, view, timeout_seconds = where
    results: list[Result] = []
    while not results or len(results) < results[-1].attempts:
        with _place(scratch, work.suffix) as place:
            attempts = contender.attempts(work, cap_bytes, place)
            attempt = attempts[len(results)]
            view.on_start(contender.name, version, attempt)
            ended = watch(
                attempt.command,
                cap_bytes=cap_bytes,
                timeout_seconds=timeout_seconds,
                environment=attempt.environment,
                spill_dir=place.spill,
                on_sample=view.on_sample,
            )
            answer = _answer(work, place.target) if ended.well else None
            number = len(results) + 1
            own_figures = _own_figures(attempt)
            result = Result(
                contender.name, version, attempt, number, len(attempts), ended, answer, own_figures
            )
        results.append(result)
        view.on_end(result)
        if result.well:
            break
    return results


def finals(results: Sequence[Result]) -> list[Result]:
    """Return each contender's attempt that counts: the successful one, else its last."""
    return list({result.name: result for result in results}.values())


def disagreeing(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Return the contenders whose answer differs from the first answer, each with whose that is."""
    answered = [each for each in finals(results) if each.well and each.answer is not None]
    return [(each.name, answered[0].name) for each in answered if each.answer != answered[0].answer]


def last_words(words: str) -> str:
    """Return the last error that a process printed, on one line; else its last lines."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    starts = [at for at, line in enumerate(lines) if _ERROR.match(line)]
    said = lines[starts[-1] :] if starts else lines[-_WORDS_LINES:]
    whole = " / ".join(said)
    return whole if len(whole) <= _WORDS_CHARACTERS else f"{whole[:_WORDS_CHARACTERS]}…"


def warm(path: Path) -> None:
    """Read a file once, so that every contender finds it in the page cache."""
    block = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def _own_figures(attempt: Attempt) -> dict[str, Any]:
    """Return the figures that a contender reported in its manifest, and remove the file."""
    if attempt.manifest is None or not attempt.manifest.exists():
        return {}
    own_figures: dict[str, Any] = json.loads(attempt.manifest.read_text())
    attempt.manifest.unlink()
    return own_figures


def _answer(work: RaceQuery, target: Path) -> Answer | None:
    if find_spec("numpy") is None or find_spec("pyarrow") is None:
        return None
    return read_answer(target, work.schema, work.keys, exact=work.exact)


@contextmanager
def _place(scratch: Path, suffix: str) -> Iterator[AttemptFiles]:
    spill = scratch / "spill"
    target = scratch / f"out{suffix}"
    try:
        spill.mkdir(parents=True)
        yield AttemptFiles(target, spill)
    finally:
        shutil.rmtree(spill, ignore_errors=True)
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
