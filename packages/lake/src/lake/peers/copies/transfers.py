"""Downloads objects from several peers at once, chunk by verified chunk: a state machine.

The list of chunk hashes comes first; it proves itself, as an object's id is the hash of that list. Each
chunk is then asked of any peer that has the object, and compared with its hash before it is written. A
wrong chunk is asked of the same peer once more, as a doubted one, which the peer verifies too: if its disk
is damaged, it finds out and says so. A peer that sends it wrong again is not asked for the object any more,
and after some of them for nothing at all. A request that is much slower than usual is repeated with another
peer (a hedged request; Dean and Barroso 2013), and the first answer counts.

An object is asked for as one of a dataset: a peer may have it for one dataset and not for another
(`lake.peers.sharing.held`), so what was downloaded for one says nothing about the other.

        want ──▶ list, kept chunks ──▶ chunks (several peers, a few at a time each) ──▶ complete
                  └─ wrong, refused, silent: the next peer; none left ──▶ unobtainable

A chunk counts as under way until it is written, so a disk that is slower than the network slows the
requests down. Hashing is work for other threads, and part of the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median

from lake.peers.copies.bandwidth import CopyBandwidth
from lake.peers.copies.chunks import ChunkRequest, ListReply, ListRequest, read_list
from lake.peers.transport.machine import Call, Effect, Failed, Replied
from lake.peers.transport.messages import Message
from sennit_core.hashing import CHUNK_BYTES

__all__ = [
    "PLAN",
    "FindKept",
    "ObjectComplete",
    "ObjectUnobtainable",
    "TransferOptions",
    "Transfers",
    "WriteChunk",
    "at_most",
]

_LATENCIES_KEPT = 64
_WRONG_KEPT = 16
PLAN = "plan"
"""Who wants the objects that this node is to hold."""


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """Numbers of the protocol.

    Args:
        objects_max: Objects that are downloaded at the same time.
        window: Chunks that are asked of one peer at the same time.
        timeout_seconds: After which a request has failed.
        hedge_factor: A request is repeated after so many times the usual latency.
        hedge_seconds_min: But not before this time.
        wrong_max: After so many wrong chunks a peer is asked for nothing,
        wrong_seconds: for so long.
        attempts_max: How often an object is asked of one peer that fails without being wrong.
        busy_seconds: How long a peer is not asked for an object again that was too busy for it.
    """

    objects_max: int = 4
    window: int = 4
    timeout_seconds: float = 30.0
    hedge_factor: float = 4.0
    hedge_seconds_min: float = 1.0
    wrong_max: int = 3
    wrong_seconds: float = 300.0
    attempts_max: int = 3
    busy_seconds: float = 2.0


def at_most(size_max: int) -> Callable[[int], str]:
    """Return what admits an object of at most so many bytes; see `Transfers.want`."""
    return lambda size: f"it has {size} bytes, of at most {size_max}" if size > size_max else ""


@dataclass(frozen=True, slots=True)
class FindKept:
    """An effect: hash the chunks that an earlier attempt has written; leads to `found_kept`.

    Args:
        dataset: The dataset.
        object: The object.
    """

    dataset: str
    object: str


@dataclass(frozen=True, slots=True)
class WriteChunk:
    """An effect: verify a chunk and write it to the object's unfinished file; leads to `written`.

    Args:
        dataset: The dataset.
        object: The object.
        index: Of the chunk.
        offset: Where it begins.
        data: Its bytes.
        digest: Their SHA-256, if they are right.
        peer: The node that has sent them.
    """

    dataset: str
    object: str
    index: int
    offset: int
    data: bytes | memoryview
    digest: str
    peer: str


@dataclass(frozen=True, slots=True)
class ObjectComplete:
    """An effect: every chunk was written.

    Args:
        dataset: The dataset.
        object: The object.
        size: Its bytes.
        chunk_bytes: Of each chunk but the last.
        chunks: The hash of each chunk.
    """

    dataset: str
    object: str
    size: int
    chunk_bytes: int
    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ObjectUnobtainable:
    """An effect: no peer has sent the object.

    Args:
        dataset: The dataset.
        object: The object.
        reason: What happened last.
    """

    dataset: str
    object: str
    reason: str


@dataclass(slots=True, eq=False)
class _Download:
    """An object. `size` is -1, and `digests` is empty, until its list is known."""

    dataset: str
    object: str
    priority: float
    # Peers that may have it, in the order in which they are preferred.
    sources: list[str]
    admit: Callable[[int], str] | None
    # Who wants it; when nobody does, it is forgotten.
    wanted_by: set[Hashable]
    # Chunks that an earlier attempt has written, checked against the list; None until they are hashed.
    kept: Mapping[int, str] | None = None
    size: int = -1
    chunk_bytes: int = CHUNK_BYTES
    digests: tuple[str, ...] = ()
    missing: set[int] = field(default_factory=set)
    # Requests under way: numbers by chunk; -1 is that of the list.
    asked: dict[int, set[int]] = field(default_factory=dict)
    # Chunks that are verified and written, with the peer that has sent each.
    writing: dict[int, str] = field(default_factory=dict)
    # Chunks that were wrong and asked once more, with the peer of each.
    doubted: set[tuple[int, str]] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=dict)
    # Until when a peer that was busy is not asked again.
    paused: dict[str, float] = field(default_factory=dict)
    last_problem: str = "no peer has it"
    started: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.dataset, self.object

    @property
    def is_background(self) -> bool:
        """Whether nobody waits for it."""
        return self.priority >= 0

    def chunk_size(self, index: int) -> int:
        """Return the bytes of a chunk."""
        return min(self.chunk_bytes, self.size - index * self.chunk_bytes)

    @property
    def has_list(self) -> bool:
        return self.size >= 0

    @property
    def is_ready(self) -> bool:
        """Whether it is known which chunks are missing."""
        return self.has_list and self.kept is not None

    def find_missing(self) -> None:
        """Compare the list with what was kept, once both are known."""
        if self.has_list and self.kept is not None:
            kept = self.kept
            self.missing = {n for n, digest in enumerate(self.digests) if kept.get(n) != digest}


@dataclass(slots=True, eq=False)
class _Request:
    download: tuple[str, str]
    index: int  # -1 for the list
    peer: str
    sent_at: float
    reserved: int  # bytes of the bandwidth


class Transfers:
    """The downloads of one node.

    Args:
        options: Numbers.
        bandwidth: Limits of what nobody waits for; None for none.
        now: Seconds of this node's monotonic clock.
    """

    def __init__(
        self,
        options: TransferOptions | None = None,
        bandwidth: CopyBandwidth | None = None,
        *,
        now: float = 0.0,
    ) -> None:
        self._options = options or TransferOptions()
        self._bandwidth = bandwidth or CopyBandwidth()
        self._now = now
        self._numbers = count(1)
        self._downloads: dict[tuple[str, str], _Download] = {}
        # Those of them that were started, in this order.
        self._running: dict[tuple[str, str], _Download] = {}
        # What is complete, and not in the store yet.
        self._storing: set[tuple[str, str]] = set()
        self._requests: dict[int, _Request] = {}
        self._latencies: list[float] = []
        self.wrong: dict[str, list[float]] = {}
        """When wrong chunks and lists came, by the peer that sent them."""

    @property
    def objects(self) -> Collection[tuple[str, str]]:
        """The objects that are wanted and not complete, each after its dataset."""
        return self._downloads.keys()

    @property
    def missing_chunks(self) -> int:
        """The number of chunks that downloads lack whose lists are here."""
        return sum(len(each.missing) for each in self._downloads.values())

    def want(
        self,
        dataset: str,
        name: str,
        sources: Sequence[str],
        *,
        by: Hashable = PLAN,
        priority: float = 0.0,
        admit: Callable[[int], str] | None = None,
    ) -> None:
        """Ask for an object, or add sources to a download.

        Args:
            dataset: The dataset that has it.
            name: The object's id.
            sources: Peers that may have it, the preferred ones first.
            by: Who wants it, for `cancel`.
            priority: Downloads with a lesser one start first.
            admit: Called with its bytes before any of them is fetched, as a peer may announce any number;
                returns why it is not to be fetched, or "". None for any number.
        """
        if (dataset, name) in self._storing:
            return  # it is being stored
        known = self._downloads.get((dataset, name))
        if known is None:
            self._downloads[dataset, name] = _Download(
                dataset, name, priority, list(sources), admit, {by}
            )
            return
        known.wanted_by.add(by)
        known.priority = min(known.priority, priority)
        known.sources += [peer for peer in sources if peer not in known.sources]

    def cancel(self, dataset: str, name: str, by: Hashable = PLAN) -> None:
        """Forget a download, unless somebody else wants it; answers under way have no effect."""
        known = self._downloads.get((dataset, name))
        if known is not None:
            known.wanted_by.discard(by)
            if not known.wanted_by:
                self._forget(known)

    def stored(self, dataset: str, name: str) -> None:
        """Go on after a complete object was moved into the store, or could not be.

        Until then it is not fetched again: it would find the whole file, and move it twice.
        """
        self._storing.discard((dataset, name))

    def abandon(self, dataset: str, name: str) -> None:
        """Forget a download that cannot be written."""
        known = self._downloads.get((dataset, name))
        if known is not None:
            self._forget(known)

    def tick(self, now: float) -> list[Effect]:
        """Let time pass: start downloads, repeat slow requests."""
        self._now = now
        return [*self._hedge(), *self._start(), *self._continue()]

    def replied(self, reply: Replied, now: float) -> list[Effect]:
        """Handle an answer; the number must be one of a request of this machine."""
        self._now = now
        request = self._requests.pop(reply.id)
        download = self._downloads.get(request.download)
        self._latencies = [*self._latencies[1 - _LATENCIES_KEPT :], now - request.sent_at]
        if download is None:
            return self._continue()  # the peer may be asked for something else
        self._drop(download, request.index, reply.id)
        if request.index < 0:
            return self._on_list(download, request, reply)
        return self._on_chunk(download, request, reply)

    def found_kept(self, effect: FindKept, kept: Mapping[int, str], now: float) -> list[Effect]:
        """Go on with what is on disk.

        Args:
            effect: The effect that has led to it.
            kept: The SHA-256 of each whole chunk, by its index.
            now: Seconds of this node's monotonic clock.
        """
        self._now = now
        download = self._downloads.get((effect.dataset, effect.object))
        if download is None or download.kept is not None:
            return []
        download.kept = kept
        download.find_missing()
        return self._continue()

    def written(self, effect: WriteChunk, *, is_right: bool, now: float) -> list[Effect]:
        """Go on after a chunk was verified and, if it is right, written."""
        self._now = now
        download = self._downloads.get((effect.dataset, effect.object))
        if download is None or download.writing.pop(effect.index, None) is None:
            return self._continue()
        if not is_right and (effect.index, effect.peer) not in download.doubted:
            download.doubted.add((effect.index, effect.peer))
            return [self._request(download, effect.index, effect.peer)]
        if not is_right:
            return self._on_wrong(download, effect.peer, f"chunk {effect.index} is wrong")
        download.missing.discard(effect.index)
        return self._continue()

    def failed(self, failure: Failed, now: float) -> list[Effect]:
        """Handle a request that has failed."""
        self._now = now
        request = self._requests.pop(failure.id)
        self._bandwidth.not_received(request.reserved)
        download = self._downloads.get(request.download)
        if download is None:
            return self._continue()
        self._drop(download, request.index, failure.id)
        download.last_problem = failure.reason or failure.code
        if failure.code == "busy":
            download.paused[request.peer] = now + self._options.busy_seconds
            return []  # it has no bandwidth left: that is no fault
        download.failures[request.peer] = download.failures.get(request.peer, 0) + 1
        # Asking a peer again that does not have it leads to the same answer.
        is_final = failure.code in ("not-found", "denied", "corrupt", "unsupported")
        if is_final or download.failures[request.peer] >= self._options.attempts_max:
            self._remove_source(download, request.peer)
        return self._continue()

    # Answers

    def _on_list(self, download: _Download, request: _Request, reply: Replied) -> list[Effect]:
        if download.has_list:
            return []
        digests = read_list(download.object, reply.message, reply.body)
        if digests is None:
            return self._on_wrong(download, request.peer, "its list of chunks is wrong")
        assert isinstance(reply.message, ListReply), "see `read_list`"
        problem = "" if download.admit is None else download.admit(reply.message.size)
        if problem:
            # The id proves the size, so every other peer would say the same.
            return [self._unobtainable(download, problem), *self._continue()]
        download.size, download.chunk_bytes = reply.message.size, reply.message.chunk_bytes
        download.digests = digests
        download.find_missing()
        return self._continue()

    def _on_chunk(self, download: _Download, request: _Request, reply: Replied) -> list[Effect]:
        index = request.index
        if index not in download.missing or index in download.writing:
            return self._continue()  # another peer was faster
        download.writing[index] = request.peer
        offset, digest = index * download.chunk_bytes, download.digests[index]
        return [WriteChunk(*download.key, index, offset, reply.body, digest, request.peer)]

    def _on_wrong(self, download: _Download, peer: str, problem: str) -> list[Effect]:
        self.wrong[peer] = [*self.wrong.get(peer, [])[1 - _WRONG_KEPT :], self._now]
        download.last_problem = f"{problem} at node {peer[:16]}"
        self._remove_source(download, peer)
        return self._continue()

    # Requests

    def _start(self) -> list[Effect]:
        """Start downloads in the place of those that have ended."""
        waiting = sorted(
            (each for each in self._downloads.values() if not each.started),
            key=lambda each: each.priority,
        )
        # Of each kind as many, so that copies that may not go on now stop no query.
        free = dict.fromkeys((True, False), self._options.objects_max)
        for running in self._running.values():
            free[running.is_background] -= 1
        effects: list[Effect] = []
        for each in waiting:
            if free[each.is_background] > 0:
                free[each.is_background] -= 1
                each.started = True
                self._running[each.key] = each
                effects.append(FindKept(*each.key))
        return effects

    def _continue(self) -> list[Effect]:
        """Return the next requests of the downloads that were started, and the ends of some.

        The first of them may use the whole window of a peer. So it ends first, and is synced to the
        disk while the chunks of the next one arrive.
        """
        effects: list[Effect] = []
        running = sorted(self._running.values(), key=lambda each: each.priority)
        for each in running:
            effects += self._ask(each)
        if len(self._running) < len(running):
            effects += self._start()
            for each in [each for each in self._running.values() if each not in running]:
                effects += self._ask(each)
        return effects

    def _ask(self, download: _Download) -> list[Effect]:
        """Return the next requests of a download, or its end."""
        if download.is_ready and not download.missing:
            self._forget(download)
            self._storing.add(download.key)
            size, chunk_bytes = download.size, download.chunk_bytes
            return [ObjectComplete(*download.key, size, chunk_bytes, download.digests)]
        if self._least_busy(download) is None:  # before its chunks are sorted
            is_over = not (download.asked or download.writing or self._usable(download))
            return [self._unobtainable(download, download.last_problem)] if is_over else []
        wanted = sorted(download.missing - (download.asked.keys() | download.writing.keys()))
        if not download.has_list and -1 not in download.asked:
            wanted = [-1]
        effects: list[Effect] = []
        for index in wanted:
            peer = self._least_busy(download)
            if peer is None or not self._is_admitted(download, index):
                break
            effects.append(self._request(download, index, peer))
        return effects

    def _unobtainable(self, download: _Download, reason: str) -> ObjectUnobtainable:
        self._forget(download)
        return ObjectUnobtainable(*download.key, reason)

    def _forget(self, download: _Download) -> None:
        del self._downloads[download.key]
        self._running.pop(download.key, None)

    def _request(self, download: _Download, index: int, peer: str) -> Call:
        number = next(self._numbers)
        is_doubted = (index, peer) in download.doubted
        # A doubted one is asked at once: no bandwidth is reserved, so none is released if it fails.
        is_limited = download.is_background and index >= 0 and not is_doubted
        reserved = download.chunk_size(index) if is_limited else 0
        self._requests[number] = _Request(download.key, index, peer, self._now, reserved)
        download.asked.setdefault(index, set()).add(number)
        dataset, name = download.key
        message: Message = (
            ListRequest(name, dataset)
            if index < 0
            else ChunkRequest(name, index, dataset, download.is_background, is_doubted)
        )
        return Call(peer, number, message, self._options.timeout_seconds)

    def _hedge(self) -> Iterator[Effect]:
        if not self._requests:
            return
        usual = median(self._latencies) if self._latencies else 0.0
        limit = max(usual * self._options.hedge_factor, self._options.hedge_seconds_min)
        for request in list(self._requests.values()):
            if self._now - request.sent_at < limit:
                continue
            download = self._downloads.get(request.download)
            if download is None or len(download.asked.get(request.index, ())) != 1:
                continue
            peer = self._least_busy(download, without=request.peer)
            if peer is not None and self._is_admitted(download, request.index):
                yield self._request(download, request.index, peer)

    def _is_admitted(self, download: _Download, index: int) -> bool:
        is_limited = download.is_background and index >= 0
        return not is_limited or self._bandwidth.may_receive(download.chunk_size(index))

    def _usable(self, download: _Download) -> list[str]:
        return [peer for peer in download.sources if not self._is_avoided(peer)]

    def _is_avoided(self, peer: str) -> bool:
        if peer not in self.wrong:
            return False
        since = self._now - self._options.wrong_seconds
        recent = [at for at in self.wrong[peer] if at >= since]
        return len(recent) >= self._options.wrong_max

    def _least_busy(self, download: _Download, *, without: str = "") -> str | None:
        """Return the source with the fewest requests under way; None if all have enough."""
        if not download.sources:
            return None
        load: dict[str, int] = {}
        for request in self._requests.values():
            load[request.peer] = load.get(request.peer, 0) + 1
        for each in self._downloads.values():
            for peer in each.writing.values():
                load[peer] = load.get(peer, 0) + 1
        free = [
            peer
            for peer in self._usable(download)
            if peer != without
            and load.get(peer, 0) < self._options.window
            and download.paused.get(peer, self._now) <= self._now
        ]
        # `min` returns the first of equals, which is the preferred one.
        return min(free, key=lambda peer: load.get(peer, 0), default=None)

    def _drop(self, download: _Download, index: int, number: int) -> None:
        numbers = download.asked.get(index, set())
        numbers.discard(number)
        if not numbers:
            download.asked.pop(index, None)

    def _remove_source(self, download: _Download, peer: str) -> None:
        if peer in download.sources:
            download.sources.remove(peer)
