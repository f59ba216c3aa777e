"""Options of jobs: valid ones survive JSON, others are refused with what is possible."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytra.client.job_choices import request_members
from elytra.service.job_options import JobOptions
from sennit_core.errors import UsageError

SECONDS = st.none() | st.floats(0.001, 1e6) | st.integers(1, 10**6)


@given(
    st.sampled_from(["low", "normal", "high"]), SECONDS, SECONDS, st.sampled_from(["fail", "skip"]),
    st.none() | st.floats(0, 100) | st.integers(0, 100),
)  # fmt: skip
def test_options_survive_json(
    priority: Any, job: Any, task: Any, poison: Any, percent: Any
) -> None:
    options = JobOptions(priority, job, task, poison, percent)

    assert JobOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"priority": "urgent"}, "a job's priority is 'urgent'"),
        ({"priority": ["high"]}, "a job's priority is"),
        ({"onPoison": "ignore"}, "a job's onPoison is 'ignore'"),
        ({"deadlineSeconds": 0}, "a job's deadlineSeconds is 0"),
        ({"deadlineSeconds": float("nan")}, "a job's deadlineSeconds is nan"),
        ({"taskSeconds": -1}, "a job's taskSeconds is -1"),
        ({"taskSeconds": True}, "a job's taskSeconds is True"),
        ({"taskSeconds": 1e12}, "a job's taskSeconds is"),
        ({"samplePercent": 101}, "a job's samplePercent is 101"),
        ({"samplePercent": -0.5}, "a job's samplePercent is -0.5"),
        ({"samplePercent": float("nan")}, "a job's samplePercent is nan"),
        ({"samplePercent": True}, "a job's samplePercent is True"),
        ({"taskSeconds": "5"}, "a job's taskSeconds is 5"),
    ],
)
def test_other_values_are_refused(members: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        JobOptions.from_json(members)

    assert caught.value.hint is not None


def test_the_client_refuses_an_option_that_does_not_exist() -> None:
    assert request_members({"on_poison": "skip"}) == {"onPoison": "skip"}
    with pytest.raises(TypeError, match="no option 'deadline', only priority"):
        request_members({"deadline": 5})
