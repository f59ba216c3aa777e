import json
import math
import random
import shutil
import struct
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import UsageError
from sennit_core.hashing import canonical_json

SAFE = 2**53 - 1
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)

# RFC 8785, appendix B: the bits of a double, and its text.
NUMBERS = """
0000000000000000 0
8000000000000000 0
0000000000000001 5e-324
8000000000000001 -5e-324
7fefffffffffffff 1.7976931348623157e+308
ffefffffffffffff -1.7976931348623157e+308
4340000000000000 9007199254740992
c340000000000000 -9007199254740992
4430000000000000 295147905179352830000
44b52d02c7e14af5 9.999999999999997e+22
44b52d02c7e14af6 1e+23
44b52d02c7e14af7 1.0000000000000001e+23
444b1ae4d6e2ef4e 999999999999999700000
444b1ae4d6e2ef4f 999999999999999900000
444b1ae4d6e2ef50 1e+21
3eb0c6f7a0b5ed8c 9.999999999999997e-7
3eb0c6f7a0b5ed8d 0.000001
41b3de4355555553 333333333.3333332
41b3de4355555554 333333333.33333325
41b3de4355555555 333333333.3333333
41b3de4355555556 333333333.3333334
41b3de4355555557 333333333.33333343
becbf647612f3696 -0.0000033333333333333333
43143ff3c1cb0959 1424953923781206.2
"""


def double(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


@pytest.mark.parametrize("line", NUMBERS.split("\n")[1:-1])
def test_numbers_of_the_rfc(line: str) -> None:
    bits, text = line.split()
    assert canonical_json(double(bits)).decode() == text


def test_members_are_ordered_by_utf16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    ordered = ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical_json(dict.fromkeys(names, 0)))) == ordered


def test_strings_escape_only_what_they_must() -> None:
    text = "\u20ac$\x0f\nA'B\"\\/\x7f\u2028\b\t\f\r"
    assert canonical_json(text).decode() == '"€$\\u000f\\nA\'B\\"\\\\/\x7f\u2028\\b\\t\\f\\r"'


@pytest.mark.slow
@given(VALUES)
def test_text_means_the_same_and_stays(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text, parse_int=float) == value
    assert canonical_json(json.loads(text, parse_int=float)) == text


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=3), SCALARS, min_size=2), st.randoms())
def test_order_of_insertion_does_not_matter(value: Any, shuffler: random.Random) -> None:
    items = list(value.items())
    shuffler.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@given(st.integers(-SAFE, SAFE))
def test_whole_doubles_and_integers_are_one(number: int) -> None:
    assert canonical_json(number) == canonical_json(float(number))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        SAFE + 1,
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        {None: 1},
        b"",
        {1},
        1j,
    ],
)
def test_values_that_json_cannot_hold_are_refused(value: Any) -> None:
    with pytest.raises(UsageError):
        canonical_json([value])


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to compare with")
def test_numbers_are_written_as_javascript_writes_them() -> None:
    chance = random.Random(8785)
    doubles = [struct.unpack(">d", chance.randbytes(8))[0] for _ in range(3000)]
    doubles += [chance.uniform(-1, 1) * 10 ** chance.randint(-9, 23) for _ in range(3000)]
    doubles = [number for number in doubles if math.isfinite(number)]
    hexes = json.dumps([struct.pack(">d", number).hex() for number in doubles])
    script = (
        "const bits = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(bits.map(b => String(Buffer.from(b, 'hex').readDoubleBE()))))"
    )
    run = subprocess.run(
        ["node", "-e", script], input=hexes, check=True, capture_output=True, text=True
    )
    assert [canonical_json(number).decode() for number in doubles] == json.loads(run.stdout)
