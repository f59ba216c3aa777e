"""Whose task is next: shares by bytes, between users and between the jobs of each."""

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from elytra.service.fairness import COST_BYTES_MAX, DeficitRoundRobin, FairQueue, task_cost

MIB = 1 << 20


def served(ring: DeficitRoundRobin[str], cost_of: dict[str, int], turns: int) -> list[str]:
    keys = []
    for _ in range(turns):
        key = next(iter(ring.rotation()))
        ring.charge(key, cost_of[key])
        keys.append(key)
    return keys


def ring_of(weights: dict[str, float]) -> DeficitRoundRobin[str]:
    ring: DeficitRoundRobin[str] = DeficitRoundRobin()
    for key, weight in weights.items():
        ring.add(key, weight)
    return ring


def test_tiny_tasks_of_two_jobs_alternate() -> None:
    ring = ring_of({"a": 1.0, "b": 1.0})

    keys = served(ring, {"a": task_cost(0), "b": task_cost(0)}, 6)

    assert keys in (["a", "b"] * 3, ["b", "a"] * 3)


def test_a_job_of_large_tasks_gets_fewer_of_them() -> None:
    ring = ring_of({"large": 1.0, "small": 1.0})

    counts = Counter(served(ring, {"large": 40 * MIB, "small": 4 * MIB}, 1_100))

    assert 9 <= counts["small"] / counts["large"] <= 11


@given(
    st.lists(st.sampled_from([0.25, 1.0, 4.0]), min_size=2, max_size=5),
    st.lists(st.integers(4 * MIB, COST_BYTES_MAX), min_size=5, max_size=5),
)
def test_bytes_are_shared_by_weight(weights: list[float], costs: list[int]) -> None:
    keys = [f"j{index}" for index in range(len(weights))]
    cost_of = dict(zip(keys, costs, strict=False))
    ring = ring_of(dict(zip(keys, weights, strict=True)))

    counts = Counter(served(ring, cost_of, 3_000))

    shares = [
        counts[key] * cost_of[key] / weight for key, weight in zip(keys, weights, strict=True)
    ]
    # Nobody is ahead by more than a quantum and a task of each weight.
    assert max(shares) - min(shares) <= 2 * (COST_BYTES_MAX + 16 * MIB) / min(weights)


def test_users_are_served_by_their_weights_whatever_their_jobs_are() -> None:
    queue: FairQueue[str] = FairQueue()
    for job in ("a1", "a2", "a3"):
        queue.add("ann", job, 4.0, user_weight=1.0)
    queue.add("bo", "b1", 1.0, user_weight=3.0)
    users: Counter[str] = Counter()

    for _ in range(400):
        job = next(queue.rotation())
        user = "bo" if job == "b1" else "ann"
        queue.charge(user, job, task_cost(0))
        users[user] += 1

    assert 2.9 <= users["bo"] / users["ann"] <= 3.1
    queue.add("bo", "b2", 1.0, user_weight=1.0)  # the newest job's weight counts
    users.clear()
    for _ in range(400):
        job = next(queue.rotation())
        user = "bo" if job.startswith("b") else "ann"
        queue.charge(user, job, task_cost(0))
        users[user] += 1
    assert 0.9 <= users["bo"] / users["ann"] <= 1.1


def test_a_new_job_is_served_before_those_that_wait() -> None:
    ring = ring_of({f"old{index}": 1.0 for index in range(50)})
    served(ring, dict.fromkeys((f"old{index}" for index in range(50)), task_cost(0)), 75)
    ring.add("new")

    assert next(iter(ring.rotation())) == "new"


def test_a_stream_of_new_jobs_does_not_starve_an_old_one() -> None:
    ring = ring_of({"old": 1.0})
    order = []
    for index in range(100):
        if len(ring) == 1:
            ring.add(f"new{index}")
        key = next(iter(ring.rotation()))
        ring.charge(key, task_cost(0))
        order.append(key)
        if key != "old":
            ring.remove(key)

    assert order.count("old") >= 33


def test_a_user_who_submits_one_task_after_the_other_gets_half() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.add("eve", "large", 1.0)
    order = []
    for index in range(100):
        queue.add("ann", f"small{index}", 1.0)
        job = next(iter(queue.rotation()))
        user = "eve" if job == "large" else "ann"
        queue.charge(user, job, 16 * MIB)
        order.append(user)
        if user == "ann":
            queue.remove(user, job)

    assert 40 <= order.count("eve") <= 60


def test_a_user_with_many_urgent_jobs_gets_no_more_than_another() -> None:
    queue: FairQueue[str] = FairQueue()
    for index in range(9):
        queue.add("ann", f"ann{index}", 4.0)
    queue.add("eve", "eve0", 0.25)
    turns: Counter[str] = Counter()
    for _ in range(200):
        job = next(iter(queue.rotation()))
        queue.charge(job[:3], job, task_cost(0))
        turns[job[:3]] += 1

    assert turns["ann"] == turns["eve"]


def test_a_job_that_no_worker_fits_earns_nothing_meanwhile() -> None:
    ring = ring_of({"blocked": 1.0, "other": 1.0})
    for _ in range(100):
        key = next(key for key in ring.rotation() if key != "blocked")
        ring.charge(key, task_cost(0))

    keys = served(ring, {"blocked": task_cost(0), "other": task_cost(0)}, 6)

    assert keys.count("blocked") <= 4


def test_the_ring_yields_each_key_once() -> None:
    ring = ring_of({"a": 0.25, "b": 4.0, "c": 1.0})
    ring.charge("b", 100 * MIB)

    assert sorted(ring.rotation()) == ["a", "b", "c"]
    assert _only_b_left(ring) == ["b"]


def _only_b_left(ring: DeficitRoundRobin[str]) -> Iterable[str]:
    ring.remove("a")
    ring.remove("c")
    return list(ring.rotation())
