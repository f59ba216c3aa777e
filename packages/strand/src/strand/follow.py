"""Watch a ring (`strand inspect --follow`): one frame or line per interval until the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sennit_core.errors import NotFound
from sennit_core.units import format_bytes, format_duration
from strand.inspection import Reader, RingFacts, inspect_ring

__all__ = ["describe", "follow"]

_BOLD, _DIM, _RED, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
_HIDE, _SHOW, _REDRAW = "\x1b[?25l", "\x1b[?25h", "\x1b[{}F\x1b[J"
_ESCAPE = re.compile(r"(\x1b\[[0-9;]*m)")
_BAR_CELLS = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def follow(path: Path, every_seconds: float, *, as_json: bool = False) -> None:
    """Show the ring at `path` until its stream has ended and has no consumers, or it is removed.

    On a terminal the frame is redrawn in place; otherwise each interval prints a line.

    Raises:
        NotFound: no such ring at the start.
        StrandHeaderError: not a ring, or a damaged one.
    """
    out = sys.stdout
    if as_json:
        for sample in _samples(path, every_seconds):
            print(json.dumps(sample.to_json()), file=out, flush=True)
    elif out.isatty():
        _draw(path, every_seconds, out)
    else:
        print(_HEADING, file=out)
        for sample in _samples(path, every_seconds):
            print(_line(sample), file=out, flush=True)


def describe(facts: RingFacts, style: Style | None = None) -> list[str]:
    """Return a ring's header, counters, processes and fields as lines."""
    return list(_frame(Sample(facts, None, 0.0), style or Style.of(sys.stdout)))


@dataclass(frozen=True)
class Style:
    """The capabilities of the output: colours, block characters, width."""

    colours: bool = False
    blocks: bool = True
    columns: int = 100

    @classmethod
    def of(cls, out: TextIO) -> Style:
        """Detect them: colours on a terminal unless NO_COLOR is set, block characters in UTF-8."""
        colours = out.isatty() and not os.environ.get("NO_COLOR")
        blocks = (out.encoding or "").lower().replace("-", "") == "utf8"
        return cls(colours, blocks, shutil.get_terminal_size((100, 24)).columns)

    def paint(self, text: str, colour: str) -> str:
        """Return `text` in a colour, if colours are enabled."""
        return f"{colour}{text}{_PLAIN}" if self.colours else text

    def cut(self, line: str) -> str:
        """Cut a line to the width of the terminal, so that it does not wrap."""
        room = self.columns
        kept = []
        for part in _ESCAPE.split(line):
            if _ESCAPE.fullmatch(part):
                kept.append(part)
            else:
                kept.append(part[:room])
                room -= len(kept[-1])
        return "".join(kept)

    def bar(self, share: float) -> str:
        """Return a bar filled to `share`, from 0 to 1."""
        share = min(max(share, 0.0), 1.0)
        if not self.blocks:
            filled = round(share * _BAR_CELLS)
            return "[" + "#" * filled + "." * (_BAR_CELLS - filled) + "]"
        eighths = round(share * _BAR_CELLS * 8)
        text = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        return "▕" + text.ljust(_BAR_CELLS) + "▏"


@dataclass(frozen=True)
class Sample:
    """A ring's facts, and the previous facts of the same stream, if any."""

    facts: RingFacts
    before: RingFacts | None
    seconds: float

    def rate(self, counter: str) -> float | None:
        """Return the growth of a counter per second; None without a previous sample."""
        if self.before is None or self.seconds <= 0:
            return None
        grown = self.facts.counters.get(counter, 0) - self.before.counters.get(counter, 0)
        return max(0, grown) / self.seconds

    def to_json(self) -> dict[str, object]:
        """Return plain values: the facts, and what happened a second."""
        rates = {name: self.rate(name) for name in ("commit", "read", "heap_commit", "stalls")}
        return {**self.facts.to_json(), "per_second": rates}


def _samples(path: Path, every_seconds: float) -> Iterator[Sample]:
    """Yield a sample per interval; the last one is of an ended stream."""
    before, seen = None, 0.0
    facts = inspect_ring(path)
    while True:
        now = time.monotonic()
        same = before is not None and before.generation == facts.generation
        yield Sample(facts, before if same else None, now - seen)
        if facts.ended and not any(reader.state == "alive" for reader in facts.consumers):
            return
        before, seen = facts, now
        time.sleep(every_seconds)
        try:
            facts = inspect_ring(path)
        except NotFound:
            return


def _draw(path: Path, every_seconds: float, out: TextIO) -> None:
    drawn = 0
    out.write(_HIDE)
    try:
        for sample in _samples(path, every_seconds):
            height = shutil.get_terminal_size().lines
            style = Style.of(out)
            lines = [style.cut(line) for line in _frame(sample, style)][: max(height - 1, 1)]
            out.write((_REDRAW.format(drawn) if drawn else "") + "\n".join(lines) + "\n")
            out.flush()
            drawn = len(lines)
    finally:
        out.write(_SHOW)
        out.flush()


def _frame(sample: Sample, style: Style) -> Iterator[str]:
    facts = sample.facts
    yield from _headline(facts, style)
    yield ""
    share = facts.unread / facts.records
    yield _row(style, "slots", f"{style.bar(share)} {share:4.0%}  {facts.unread:,} unread")
    if facts.heap_unread_bytes is not None:
        share = facts.heap_unread_bytes / facts.heap_bytes
        unread = format_bytes(facts.heap_unread_bytes)
        yield _row(style, "heap", f"{style.bar(share)} {share:4.0%}  {unread} unread")
    yield from _progress(sample, style)
    for label, text in _counts(sample):
        yield _row(style, label, text)
    yield ""
    yield from _owners(facts, style)
    yield ""
    yield from _fields(facts, style)


def _headline(facts: RingFacts, style: Style) -> Iterator[str]:
    resets = f", reset {facts.generation} times" if facts.generation else ""
    abort = ", abort requested" if facts.aborted else ""
    reason = f": {facts.reason}" if facts.reason else ""
    colour = {"error": _RED, "streaming": _GREEN}.get(facts.status, _BOLD)
    yield style.paint(facts.path, _BOLD)
    yield _row(style, "status", style.paint(facts.status, colour) + reason + abort + resets)
    slots = f"v{facts.version}, {facts.records} slots of {facts.stride} bytes"
    sizes = f"heap {format_bytes(facts.heap_bytes)}, {format_bytes(facts.total_bytes)} in all"
    yield _row(style, "layout", f"{slots}, {sizes}, schema {facts.fingerprint:08x}")


def _progress(sample: Sample, style: Style) -> Iterator[str]:
    """Yield the progress of the stream, when its producer has stated an estimate."""
    facts = sample.facts
    expected = facts.metadata.get("estimated_records")
    if not isinstance(expected, int) or expected <= 0:
        return
    done = facts.counters["commit"]
    rate = sample.rate("commit")
    left = max(0, expected - done)
    wait = f", {format_duration(round(left / rate))} left" if rate and left else ""
    yield _row(
        style,
        "progress",
        f"{style.bar(done / expected)} {done / expected:4.0%}  of {expected:,}{wait}",
    )


def _counts(sample: Sample) -> Iterator[tuple[str, str]]:
    counters = sample.facts.counters

    def with_rate(name: str, *, size: bool = False) -> str:
        value, rate = counters[name], sample.rate(name)
        text = format_bytes(value) if size else f"{value:,}"
        if rate is None:
            return text
        return f"{text} (+{format_bytes(round(rate)) if size else format_rate(rate)}/s)"

    yield "records", f"commit {with_rate('commit')}, read {with_rate('read')}"
    yield "payloads", with_rate("heap_commit", size=True)
    if "stalls" in counters:
        counts = ", ".join(f"{name} {with_rate(name)}" for name in ("stalls", "wakes", "sleeps"))
        yield "waits", counts


def _owners(facts: RingFacts, style: Style) -> Iterator[str]:
    if not facts.owners:
        yield _row(style, "owners", "unknown: another implementation made this ring")
        return
    counts = f"{'read':>16}{'unread':>12}{'sleeps':>10}{'wakes':>10}"
    yield style.paint(f"  {'role':<12}{'pid':>8}  {'state':<8}{counts}", _DIM)
    for owner in facts.owners:
        yield f"  {owner.role:<12}{_pid(owner.pid):>8}  {_state(owner.state, style)}"
    vacant = [reader.index for reader in facts.consumers if reader.state == "vacant"]
    for reader in facts.consumers:
        if reader.state != "vacant":
            yield _consumer(reader, facts, style)
    if vacant:
        yield f"  {'consumer ' + _ranges(vacant):<20}  {_state('vacant', style)}"


def _consumer(reader: Reader, facts: RingFacts, style: Style) -> str:
    unread = max(0, facts.counters["commit"] - reader.read)
    return (
        f"  {f'consumer {reader.index}':<12}{_pid(reader.pid):>8}  {_state(reader.state, style)}"
        f"{reader.read:>16,}{unread:>12,}{reader.sleeps:>10,}{reader.wakes:>10,}"
    )


def _fields(facts: RingFacts, style: Style) -> Iterator[str]:
    yield style.paint("  offset  field", _DIM)
    for field in facts.fields:
        notes = [field["type"], *(["nullable"] if field["nullable"] else [])]
        notes += [f"sorted {field['order']}"] if field["order"] else []
        yield f"  {field['offset']:>6}  {field['name']}: {', '.join(notes)}"


_HEADING = (
    f"{'time':<9}{'status':<11}{'commit':>14}{'read':>14}{'unread':>8}"
    f"{'commit/s':>11}{'read/s':>11}{'stalls':>9}{'wakes':>9}{'sleeps':>9}"
)


def _line(sample: Sample) -> str:
    facts = sample.facts
    counters = facts.counters
    rates = [sample.rate(name) for name in ("commit", "read")]
    written, read = ("-" if rate is None else format_rate(rate) for rate in rates)
    waits = "".join(f"{counters.get(name, 0):>9}" for name in ("stalls", "wakes", "sleeps"))
    return (
        f"{time.strftime('%H:%M:%S'):<9}{facts.status:<11}{counters['commit']:>14}"
        f"{counters['read']:>14}{facts.unread / facts.records:>8.0%}{written:>11}{read:>11}{waits}"
    )


def format_rate(rate: float) -> str:
    """Return a rate with three digits: `4.31 M`, `128 k`, `7`."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.0f}"


def _row(style: Style, label: str, text: str) -> str:
    return "  " + style.paint(f"{label:<10}", _DIM) + text


def _state(state: str, style: Style) -> str:
    colour = {"alive": _GREEN, "dead": _RED}.get(state, _DIM)
    return style.paint(f"{state:<8}", colour)


def _pid(pid: int) -> str:
    return str(pid) if pid else "-"


def _ranges(numbers: list[int]) -> str:
    """Return `0, 3-7` for 0, 3, 4, 5, 6, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
