"""Authorization of subscriptions: a feed ends when the rules no longer allow its reader to read.

A feed is checked before every event that it delivers, and in the background when the rules change,
when a write touches the read set of the last check, and when the reader's token expires.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elkyn.auth.principal import Principal
from elkyn.auth.store_auth import StoreAuth
from elkyn.storage.disk import Disk
from elkyn.storage.writer import Observer
from elkyn.tree.paths import Path
from elkyn.tree.query import Query
from elkyn.tree.watch import Feed
from sennit_core.clock import Clock
from sennit_core.errors import Closed, SennitError

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet

__all__ = ["ReadAuthorization", "SubscriptionAuthorizer"]

_SKEW_SECONDS = (
    60.0  # clock skew that token verification tolerates: a token is valid this much longer
)
# A rule that reads `now` may change its answer without any write.
_TIMED_SECONDS = 1.0  # how often feeds are checked whose rules use `now`
_NEVER = float("inf")


@dataclass(slots=True, eq=False)
class ReadAuthorization:
    """The permission of one caller to read `path`; calling it checks the permission again.

    Attributes:
        read_set: the paths that the rules read in the last check; None before the first one, and
            for admins.
        ends_at: when a check is due at the latest, because the token expires then.
        lock: lets one thread check at a time.
    """

    authorizer: SubscriptionAuthorizer
    path: Path
    token: str | None
    query: Query | None
    read_set: ReadSet | None = None
    ends_at: float = _NEVER
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        """Raise when the rules deny the read now, or the token has expired."""
        with self.lock:
            self.authorizer.check(self)

    def attach(self, feed: Feed[Any]) -> None:
        """End `feed` as soon as the permission is gone."""
        feed.authorize = self
        self.authorizer.keep(feed, self)


class SubscriptionAuthorizer:
    """Checks the feeds of a store on its own thread, which runs while there are such feeds.

    Args:
        auth: the rules and the verification of tokens.
        disk: the data that the rules read.
        clock: decides when tokens have expired.
        observe: `ElkynStore.observe`.
    """

    def __init__(
        self,
        auth: StoreAuth,
        disk: Disk,
        clock: Clock,
        observe: Callable[[Observer], Callable[[], None]],
    ) -> None:
        self._auth = auth
        self._disk = disk
        self._clock = clock
        self._observe = observe
        self._changed = threading.Condition()
        # All open feeds with their permissions; closed ones are dropped by `_wait`. Guarded by
        # `_changed`.
        self._feeds: dict[Feed[Any], ReadAuthorization] = {}
        # Feeds to check now. Filled by commits, rules and time; emptied by `_wait`.
        self._due: set[Feed[Any]] = set()
        # None iff there are no feeds, decided under `_changed`: a new feed either finds the thread
        # or starts it.
        self._thread: threading.Thread | None = None

    def authorize(
        self, path: Path, token: str | None, query: Query | None
    ) -> ReadAuthorization | None:
        """Return the permission to read `path`; None for admins, who need no further checks.

        Raises:
            Denied: the rules do not allow the read now.
        """
        if self._auth.authenticate(token).admin:
            return None
        permission = ReadAuthorization(self, path, token, query)
        permission()
        return permission

    def check(self, permission: ReadAuthorization) -> None:
        """Evaluate the rules once, and record the read set of the decision.

        Raises:
            Denied: the rules do not allow the read.
        """
        authorizer = self._auth.authorizer_for_token(permission.token)
        permission.ends_at = _end_of(authorizer.principal)
        with self._disk.snapshot() as view:
            permission.read_set = authorizer.check_stream(view, permission.path, permission.query)

    def keep(self, feed: Feed[Any], permission: ReadAuthorization) -> None:
        """Check `feed` from now on.

        The first check is due at once, since rules or data may have changed after `authorize`.
        """
        with self._changed:
            self._feeds[feed] = permission
            self._due.add(feed)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="elkyn-authorizer", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def rules_changed(self) -> None:
        """Check all feeds again."""
        if self._feeds:
            with self._changed:
                self._due |= self._feeds.keys()
                self._changed.notify_all()

    def _committed(self, _position: int, paths: list[Path]) -> None:
        with self._changed:
            for feed, permission in self._feeds.items():
                # An observer, on the committing thread: it only notes what is due, and the rules
                # run elsewhere.
                if permission.read_set is not None and permission.read_set.touched_by(paths):
                    self._due.add(feed)
            if self._due:
                self._changed.notify_all()

    def _run(self) -> None:
        end = self._observe(self._committed)
        try:
            while (due := self._wait()) is not None:
                for feed, permission in due:
                    self._check_feed(feed, permission)
        finally:
            end()

    def _wait(self) -> list[tuple[Feed[Any], ReadAuthorization]] | None:
        """Wait for feeds that are due for a check and return them; None when no feed is left."""
        with self._changed:
            while True:
                self._feeds = {
                    f: permission for f, permission in self._feeds.items() if not f.closed
                }
                if not self._feeds:
                    self._thread = None
                    return None
                now = self._clock.now()
                expired = {
                    feed for feed, permission in self._feeds.items() if permission.ends_at <= now
                }
                due, self._due = (self._due | expired) & self._feeds.keys(), set()
                if due:
                    return [(feed, self._feeds[feed]) for feed in due]
                if not self._changed.wait(self._patience(now)):
                    self._due |= {
                        f for f, permission in self._feeds.items() if _is_timed(permission)
                    }

    def _patience(self, now: float) -> float:
        nearest = min(permission.ends_at for permission in self._feeds.values()) - now
        return max(0.05, min(nearest, _TIMED_SECONDS))

    def _check_feed(self, feed: Feed[Any], permission: ReadAuthorization) -> None:
        try:
            permission()
        except Closed:
            feed.close()
        except SennitError as error:
            feed.end(error)
        else:
            # An expired token whose verification still tolerates it (clocks) is checked again
            # later, not in a loop.
            permission.ends_at = max(permission.ends_at, self._clock.now() + _TIMED_SECONDS)


def _end_of(principal: Principal) -> float:
    ends_ms = principal.expires_ms
    return _NEVER if ends_ms is None else ends_ms / 1000 + _SKEW_SECONDS


def _is_timed(permission: ReadAuthorization) -> bool:
    return permission.read_set is not None and permission.read_set.timed
