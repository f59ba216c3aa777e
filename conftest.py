"""Settings of all tests: which cases a plain run takes, and how many examples of a property."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

for profile, examples in {"plain": 15, "nightly": 150}.items():  # a test's own number wins
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("plain")  # `--hypothesis-profile` loads another one afterwards


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add how much the nightly does of what has no end."""
    group = parser.getgroup("nightly")
    group.addoption(
        "--histories", type=int, default=1000,
        help="simulated histories of each scenario in a night, others than in the night before",
    )  # fmt: skip
    group.addoption(
        "--soak-minutes", type=float, default=30.0, help="how long the soak of a network takes"
    )


def pytest_configure(config: pytest.Config) -> None:
    """End developer mode, which the nightly runs in, for processes that tests start.

    This process stays in it. The mode's allocators fill the memory that a process reserves, which
    tests of memory caps would count.
    """
    starts_workers = bool(config.getoption("numprocesses", None))
    if not starts_workers:  # workers take the mode from the environment
        os.environ.pop("PYTHONDEVMODE", None)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases as nightly that `sample(n)` leaves out of a plain run.

    The n cases that stay are spread evenly over the parametrized cases of the test, the first one
    among them.
    """
    tests = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        marker = cases[0].get_closest_marker("sample")
        if marker is None:
            continue
        (count,) = marker.args
        kept = {index * len(cases) // count for index in range(count)}
        for index, case in enumerate(cases):
            if index not in kept:
                case.add_marker(pytest.mark.nightly)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while tests are collected, and leave them out of later collections.

    They stay until the end. Looking at them again and again took a third of the CPU time in which a
    process collects the tests of the repository, and half a second of each full collection later.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def pytest_unconfigure() -> None:
    """Let the end of the process free what `pytest_collection` left out."""
    gc.unfreeze()
