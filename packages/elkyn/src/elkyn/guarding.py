"""Feeds that show somebody what rules allow: they end when that is allowed no more.

Each is judged before every event it shows, and in the background when rules change, when a write
touches what its permission rests on, and when its token has run out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elkyn.access import Access
from elkyn.disk import Disk
from elkyn.identity import Identity
from elkyn.paths import Path, format_path
from elkyn.query import Query
from elkyn.watch import Feed
from elkyn.writer import Observer
from sennit_core.clock import Clock
from sennit_core.errors import Closed, Denied, SennitError

if TYPE_CHECKING:
    from elkyn.rules.footprint import Footprint

__all__ = ["Guarding", "Judge"]

_SKEW_SECONDS = 60.0  # as long as a token is good after its end
_TIMED_SECONDS = 1.0
_NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Judge:
    """Says whether somebody may go on reading; call it to be told by what it raises."""

    guarding: Guarding
    path: Path
    token: str | None
    query: Query | None
    footprint: Footprint | None = None
    ends_at: float = _NEVER
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        """Raise `Denied` when the rules, or the end of the token, forbid it now."""
        with self.lock:
            self.guarding.ask(self)

    def attach(self, feed: Feed[Any]) -> None:
        """End `feed` when it is forbidden, at once."""
        feed.judge = self
        self.guarding.keep(feed, self)


class Guarding:
    """Judges the feeds of a store on a thread of its own, which lives while there are any.

    Args:
        access: the rules.
        disk: what they look at.
        clock: tells when tokens end.
        observe: `ElkynStore.observe`.
    """

    def __init__(
        self,
        access: Access,
        disk: Disk,
        clock: Clock,
        observe: Callable[[Observer], Callable[[], None]],
    ) -> None:
        self._access = access
        self._disk = disk
        self._clock = clock
        self._observe = observe
        self._changed = threading.Condition()
        self._feeds: dict[Feed[Any], Judge] = {}
        self._due: set[Feed[Any]] = set()
        self._thread: threading.Thread | None = None

    def judge(self, path: Path, token: str | None, query: Query | None) -> Judge | None:
        """Return what refuses to go on reading `path`; None when nothing ever does.

        Raises:
            Denied: it is refused now.
        """
        if self._access.identify(token).admin:
            return None
        judge = Judge(self, path, token, query)
        judge()
        return judge

    def ask(self, judge: Judge) -> None:
        """Judge once, and note what the answer rests on."""
        identity = self._access.identify(judge.token)
        if identity.admin:
            return
        rules, now_ms = self._access.rules, int(self._clock.now() * 1000)
        allowed = False
        if rules is not None:
            with self._disk.snapshot() as view:
                allowed, judge.footprint = rules.judge_stream(
                    view, judge.path, identity, now_ms, judge.query
                )
        judge.ends_at = _end_of(identity)
        if not allowed:
            raise Denied(f"reading {format_path(judge.path)}", "a rule that allows it")

    def keep(self, feed: Feed[Any], judge: Judge) -> None:
        """Judge `feed` from now on, once more at first: something may have changed meanwhile."""
        with self._changed:
            self._feeds[feed] = judge
            self._due.add(feed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="elkyn-judge", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def rules_changed(self) -> None:
        """Judge all feeds."""
        if self._feeds:
            with self._changed:
                self._due |= self._feeds.keys()
                self._changed.notify_all()

    def _committed(self, _position: int, paths: list[Path]) -> None:
        with self._changed:
            for feed, judge in self._feeds.items():
                if judge.footprint is not None and judge.footprint.touched_by(paths):
                    self._due.add(feed)
            if self._due:
                self._changed.notify_all()

    def _run(self) -> None:
        end = self._observe(self._committed)
        try:
            while (due := self._wait()) is not None:
                for feed, judge in due:
                    self._judge(feed, judge)
        finally:
            end()

    def _wait(self) -> list[tuple[Feed[Any], Judge]] | None:
        """Return the feeds that are to be judged, once there are some; None when none are left."""
        with self._changed:
            while True:
                self._feeds = {f: judge for f, judge in self._feeds.items() if not f.closed}
                if not self._feeds:
                    self._thread = None
                    return None
                now = self._clock.now()
                late = {feed for feed, judge in self._feeds.items() if judge.ends_at <= now}
                due, self._due = (self._due | late) & self._feeds.keys(), set()
                if due:
                    return [(feed, self._feeds[feed]) for feed in due]
                if not self._changed.wait(self._patience(now)):
                    self._due |= {f for f, judge in self._feeds.items() if _is_timed(judge)}

    def _patience(self, now: float) -> float:
        nearest = min(judge.ends_at for judge in self._feeds.values()) - now
        return max(0.05, min(nearest, _TIMED_SECONDS))

    def _judge(self, feed: Feed[Any], judge: Judge) -> None:
        try:
            judge()
        except Closed:
            feed.close()
        except SennitError as error:
            feed.end(error)
        else:
            judge.ends_at = max(judge.ends_at, self._clock.now() + _TIMED_SECONDS)


def _end_of(identity: Identity) -> float:
    ends_ms = identity.expires_ms
    return _NEVER if ends_ms is None else ends_ms / 1000 + _SKEW_SECONDS


def _is_timed(judge: Judge) -> bool:
    return judge.footprint is not None and judge.footprint.timed
