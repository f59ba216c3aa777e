"""Python functions as text: the same results as the function itself, or a refusal that names what."""

import datetime
import decimal
import math
import os.path
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elytra.functions import program as this_module
from elytra.functions.program import program_of
from sennit_core.errors import SennitError, TooLarge, Unsupported

RATE = {"a": 1.5, "b": [1, (2,)], "c": {3, 1}}
SINCE = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
PRICE = decimal.Decimal("1.10")


def scaled(number: int, by: float = RATE["a"], *, up: Any = math.inf) -> float:  # type: ignore[assignment]
    """Text of
    several lines."""
    return float(min(math.sqrt(number) * by, up))


def factorial(number: int) -> int:
    return 1 if number < 2 else number * factorial(number - 1)


def makes(rate: int) -> Callable[[int], Any]:
    def function(n: int) -> Any:
        inner = [each + rate for each in RATE["b"][1]]  # type: ignore[index]
        return (
            scaled(n),
            inner,
            factorial(n),
            SINCE,
            PRICE,
            f"{n!r:>5}{rate}",
            os.path.basename("a/b"),  # noqa: PTH119 - a module that is used by its name
        )

    return function


def loaded(function: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(program_of(function, *rest), names)
    found: Callable[..., Any] = names["function"]
    return found


@pytest.mark.parametrize(
    "function",
    [
        makes(2),
        makes(-3),
        factorial,
        math.sqrt,
        abs,
        lambda n: n + 1,
        lambda n: (lambda m: m * RATE["a"])(n),
        lambda n, k=[1, 2]: [*k, n],
        lambda n: {"yes": n > 3, "no": datetime.timedelta(n)},
    ],
)
def test_the_text_of_a_function_returns_what_it_returns(function: Any) -> None:
    assert loaded(function)(5) == function(5)


def test_lambdas_of_one_line_are_not_confused() -> None:
    several = [lambda n: n, lambda n: n + 1, lambda n: (lambda m: m + n)(2)]
    assert [loaded(each)(5) for each in several] == [5, 6, 7]


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.dates() | st.datetimes() | st.timedeltas() | st.decimals(allow_nan=False),
    lambda items: st.lists(items, max_size=4)
    | st.tuples(items, items)
    | st.dictionaries(st.text(), items, max_size=4),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=25)
@given(_PLAIN)
def test_plain_values_arrive_as_they_are(value: Any) -> None:
    try:
        found = loaded(lambda _: value)(0)
    except TooLarge:
        return
    assert found == value
    assert repr(found) == repr(value)


class _Own:
    pass


OWN = _Own()
LARGE = "x" * 300_000


@pytest.mark.parametrize(
    ("function", "because"),
    [
        (lambda _: OWN, "OWN, which <lambda> uses, is _Own"),
        (lambda _: _Own(), "_Own, which <lambda> uses, is type"),
        (lambda _: this_module, None),
        (partial(max, 3), "the function is partial"),
        (OWN.__str__, "the function is method-wrapper"),
        (lambda _: undefined_name, "is not defined"),  # type: ignore[name-defined]  # noqa: F821
        (eval("lambda n: n"), "is not there"),
    ],
)
def test_what_cannot_be_sent_is_named(function: Any, because: str | None) -> None:
    if because is None:  # a module that is not of an installed package
        because = "not of an installed package"
    with pytest.raises(Unsupported, match=because):
        program_of(function)


def test_functions_with_effects_outside_are_refused() -> None:
    def counts(_: Any) -> None:
        global RATE
        RATE = {}

    async def later(_: Any) -> None: ...

    for function, because in ((counts, "global variable RATE"), (later, "asynchronous")):
        with pytest.raises(Unsupported, match=because):
            program_of(function)
    with pytest.raises(TooLarge, match="as a dataset"):
        program_of(lambda _: LARGE)
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(Unsupported, match="contains itself"):
        program_of(lambda _: nested)


def test_a_source_that_has_changed_is_not_sent(tmp_path: Any, monkeypatch: Any) -> None:
    file = tmp_path / "edited_functions.py"
    file.write_text("def f(n):\n    return n + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_functions  # type: ignore[import-not-found]

    file.write_text("def f(n):\n    return n + 2  # edited\n")
    with pytest.raises(SennitError, match="has changed"):
        program_of(edited_functions.f)
