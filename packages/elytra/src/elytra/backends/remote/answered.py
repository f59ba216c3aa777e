"""Which jobs have results of which workers: for those that ended before a worker was found to be wrong."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["AnsweredJobs", "Doubted"]

_TOKENS_MAX = 256
_JOBS_MAX = 1000
"""Of one token. Both bound the memory: 256,000 ids of 100 bytes at the most."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """Jobs with results of a token.

    Args:
        jobs: Their ids, the oldest first.
        since: Unix time in seconds at which the token was found to be wrong. Jobs that had not ended
            then were computed again.
    """

    jobs: tuple[str, ...] = ()
    since: float = 0.0


class AnsweredJobs:
    """The last jobs with results of each token; in memory, as exclusions are."""

    def __init__(self) -> None:
        # The token whose result came last is the last one.
        self._jobs: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._doubted: OrderedDict[str, Doubted] = OrderedDict()

    def add(self, token: str, job: str) -> None:
        """Note that a result of a token counts in a job."""
        jobs = self._jobs.setdefault(token, OrderedDict())
        self._jobs.move_to_end(token)
        jobs[job] = None
        jobs.move_to_end(job)
        if len(jobs) > _JOBS_MAX:
            jobs.popitem(last=False)
        if len(self._jobs) > _TOKENS_MAX:
            self._jobs.popitem(last=False)

    def doubt(self, token: str, now: float) -> None:
        """Note that a token was found to be wrong."""
        self._doubted[token] = Doubted(tuple(self._jobs.pop(token, ())), now)
        if len(self._doubted) > _TOKENS_MAX:
            self._doubted.popitem(last=False)

    def doubted(self, token: str) -> Doubted:
        """Return the jobs with results of a token that was found to be wrong."""
        return self._doubted.get(token, Doubted())
