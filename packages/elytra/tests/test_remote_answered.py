"""Jobs with results of a worker that is found to be wrong later."""

from __future__ import annotations

from elytra.backends.remote.answered import AnsweredJobs, Doubted


def test_the_jobs_of_a_token_are_doubted_and_those_of_others_are_not() -> None:
    answered = AnsweredJobs()
    for token, job in (("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")):
        answered.add(token, job)
    assert answered.doubted("a") == Doubted()
    answered.doubt("a", 7.0)
    assert answered.doubted("a") == Doubted(("3", "1"), 7.0)
    assert answered.doubted("b") == Doubted()


def test_only_the_last_jobs_and_tokens_are_remembered() -> None:
    answered = AnsweredJobs()
    for number in range(1500):
        answered.add("a", str(number))
        answered.add(f"t{number % 255}", "x")
    answered.doubt("a", 1.0)
    assert answered.doubted("a").jobs == tuple(str(number) for number in range(500, 1500))
    for number in range(300):
        answered.add(f"u{number}", "y")
        answered.doubt(f"u{number}", 2.0)
    assert answered.doubted("a") == Doubted()
