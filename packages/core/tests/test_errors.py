import copy
import json
import pickle
import re
import traceback
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sennit_core import errors
from sennit_core.errors import (
    BadInput,
    Busy,
    CapTooSmall,
    Closed,
    Denied,
    NotFound,
    RemoteError,
    SennitError,
    StorageFull,
    UnknownColumn,
    UsageError,
    WorkerLost,
    error_from_json,
)

ERROR_PAGE = Path(__file__).parents[3] / "docs" / "errors.md"
SAMPLES: dict[str, dict[str, Any]] = {
    "UsageError": {"message": "two sinks"},
    "BadInput": {"what": "a.csv", "line": 3, "byte_offset": 71, "reason": "5 fields, not 4"},
    "SqlError": {"message": "syntax error", "line": 1, "column": 8, "offset": 7},
    "UnknownColumn": {"name": "distnce", "known": ("distance", "carrier")},
    "Unsupported": {"message": "operator sort"},
    "NotFound": {"kind": "dataset", "name": "fligths", "suggestion": "flights"},
    "Conflict": {"message": "part 3 was sent with another hash"},
    "Denied": {"action": "delete a dataset", "needed": "writer"},
    "Unauthenticated": {"action": "GET /api/jobs"},
    "WaitingToJoin": {"action": "joining the network", "needed": "somebody who accepts it"},
    "Closed": {"what": "the ring"},
    "Busy": {"message": "64 queries wait already"},
    "CapacityError": {"message": "no room"},
    "CapTooSmall": {"cap_bytes": 1024, "needed_bytes": 4096, "because": "a page has 4 KiB"},
    "MemoryCapExceeded": {"cap_bytes": 64 << 20, "asked_bytes": 9, "what": "aggregate"},
    "StorageFull": {"path": "/data", "needed_bytes": 10, "free_bytes": 1},
    "TooLarge": {"what": "line 7", "limit_bytes": 100, "actual_bytes": 101},
    "DeadlineExceeded": {"what": "the query", "seconds": 2.5},
    "Cancelled": {"what": "job j1"},
    "Unavailable": {"what": "the node"},
    "WorkerLost": {"worker": "executor-1", "reason": "signal 9"},
    "Corrupt": {"what": "shard 3", "expected": "aa", "found": "bb"},
    "InternalError": {"message": "this is a bug"},
    "RemoteError": {"message": "odd", "code": "odd-thing", "details": {"a": [1]}},
}


def all_classes(root: type[SennitError] = SennitError) -> list[type[SennitError]]:
    subclasses = [c for c in root.__subclasses__() if c.__module__ == errors.__name__]
    return [root, *(below for cls in subclasses for below in all_classes(cls))]


def state(error: SennitError) -> tuple[Any, ...]:
    return type(error), str(error), {f.name: getattr(error, f.name) for f in fields(error)}


@pytest.fixture(params=SAMPLES, ids=str)
def error(request: pytest.FixtureRequest) -> SennitError:
    cls: type[SennitError] = getattr(errors, request.param)
    return cls(**SAMPLES[request.param], hint="look again")


def test_every_class_has_a_sample() -> None:
    assert {cls.__name__ for cls in all_classes()} - {"SennitError"} == set(SAMPLES)


def test_drawing_shows_the_hierarchy() -> None:
    drawn = (errors.__doc__ or "").split("```\n")[1].splitlines()
    parents: dict[int, str] = {}
    found = {}
    for line in drawn:
        name, _, builtin = line.strip().rstrip(")").partition(" (")
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth] = name
        found[name] = (parents.get(depth - 1, "Exception"), builtin or None)
    assert found == {cls.__name__: bases_of(cls) for cls in all_classes()}


def bases_of(cls: Any) -> tuple[str, str | None]:
    own, *builtin = cls.__bases__
    return own.__name__, builtin[0].__name__ if builtin else None


def test_pickles_with_all_fields(error: SennitError) -> None:
    assert state(pickle.loads(pickle.dumps(error))) == state(error)
    assert state(copy.copy(error)) == state(error)


def test_travels_as_json(error: SennitError) -> None:
    wire = json.loads(json.dumps(error.to_json()))
    assert sorted(wire) == ["code", "details", "error", "hint"]
    back = error_from_json(wire)
    assert type(back) is type(error)
    assert back.to_json() == error.to_json()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.characters() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.characters(), inner),
        max_leaves=6,
    )
)
@example([1 << 64, -(1 << 63) - 1, float("nan"), "\ud800", Path("\udcff"), {"\udcff": 1}])
def test_fields_of_any_type_can_be_sent(value: Any) -> None:
    error = NotFound("file", "\ud800", suggestion=value, hint="\udfff")
    sent = json.dumps(error.to_json(), allow_nan=False, ensure_ascii=False).encode()

    def in_64_bits(text: str) -> int:
        assert -(1 << 63) <= int(text) < 1 << 64
        return int(text)

    assert json.loads(sent, parse_int=in_64_bits)["code"] == "not-found"


def test_says_something_and_is_hashable(error: SennitError) -> None:
    assert len(str(error)) >= 3
    assert len({error, copy.copy(error)}) == 2
    assert error.docs.endswith(error.code)


def test_codes_are_distinct_and_kebab_case() -> None:
    codes = [cls.code for cls in all_classes()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.skipif(not ERROR_PAGE.is_file(), reason="the documentation is not here")
def test_every_code_is_documented_where_docs_points() -> None:
    page = ERROR_PAGE.read_text(encoding="utf-8")
    for cls in set(all_classes()) - {SennitError}:
        assert f'<a id="{cls.code}"></a>`{cls.code}` | `{cls.__name__}` |' in page
        row = next(line for line in page.splitlines() if f"| `{cls.__name__}` |" in line)
        assert ("| yes |" in row) == cls.retryable


def test_explicit_message_wins_over_the_described_one() -> None:
    assert str(NotFound("job", "j1", message="that job is gone")) == "that job is gone"


def test_hint_shows_under_the_traceback() -> None:
    text = "".join(traceback.format_exception(UnknownColumn("agee", ["age"])))
    assert 'there is no column "agee"; the columns are age' in text
    assert 'hint: did you mean "age"?' in text


def test_unknown_column_without_anything_near_has_no_hint() -> None:
    error = UnknownColumn("zzz", ("age",))
    assert (error.suggestion, error.hint) == (None, None)


def test_sentences_name_sizes_and_places() -> None:
    small = CapTooSmall(cap_bytes=2**20, needed_bytes=2**22, because="one page has 4 MiB")
    assert str(small) == (
        "a memory cap of 1.0 MiB is too small, at least 4.0 MiB is needed: one page has 4 MiB"
    )
    assert str(BadInput("a.csv", line=3, byte_offset=71)) == "a.csv (line 3, byte 71): malformed"
    assert str(WorkerLost("w1", "signal 9")) == "worker w1 was lost: signal 9"


def test_storage_full_is_an_os_error_with_its_number() -> None:
    error = StorageFull(Path("/data"), needed_bytes=2048, free_bytes=10)
    assert isinstance(error, OSError)
    assert (error.errno, str(error)) == (28, "no space left at /data: 2.0 KiB needed, 10 B free")


def test_only_passing_troubles_are_retryable() -> None:
    retryable = {cls.__name__ for cls in all_classes() if cls.retryable}
    assert retryable == {"Busy", "Unavailable", "WorkerLost"}


def test_unknown_code_keeps_everything() -> None:
    wire = {"error": "e", "code": "from-tomorrow", "hint": "h", "details": {"x": 1}}
    error = error_from_json(wire)
    assert isinstance(error, RemoteError)
    assert error.to_json() == wire


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"error": None, "code": "not-found"},
        {"details": "x"},
        {"code": "cap-too-small", "details": {"capBytes": "much", "neededBytes": None}},
        {"code": "unknown-column", "details": {"name": {}, "known": 5}, "hint": 3},
    ],
)
def test_poor_wire_form_is_still_an_error(wire: dict[str, Any]) -> None:
    assert isinstance(error_from_json(wire), RemoteError)


def test_fields_of_a_newer_version_are_left_out() -> None:
    wire = Closed("the store").to_json() | {"details": {"what": "the store", "since": 3}}
    assert state(error_from_json(wire)) == state(Closed("the store"))


def test_two_classes_cannot_share_a_code() -> None:
    with pytest.raises(TypeError, match="'busy' already belongs to"):
        type("Occupied", (SennitError,), {"code": "busy", "__module__": __name__})


@dataclass(eq=False)
class Lapped(Busy):
    lost: int = 0


def test_subclass_without_a_code_travels_as_its_parent() -> None:
    wire = Lapped("lapped", lost=3).to_json()
    assert wire["details"] == {"lost": 3}
    assert state(error_from_json(wire)) == state(Busy("lapped"))
    assert pickle.loads(pickle.dumps(Lapped("lapped", lost=3))).lost == 3


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (UsageError("x"), ValueError),
        (NotFound("job", "x"), LookupError),
        (Denied("x"), PermissionError),
        (CapTooSmall(1, 2), MemoryError),
    ],
)
def test_fits_the_builtin_that_callers_may_catch(
    error: SennitError, builtin: type[Exception]
) -> None:
    with pytest.raises(builtin):
        raise error
