from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emsqrt.io.testing import columns_or_fault, parse

KINDS = ("Int64", "Float64", "Decimal(15,2)", "Decimal(9,1)", "Decimal(38,8)", "Decimal(18,10)")
BEHIND = b"1\n" * 20
"""Numbers are read in long steps where so many bytes follow, and octet by octet at the end."""
DIGITS = st.text(alphabet="0123456789", max_size=10)
NUMBERS = st.builds(
    "{}{}{}{}".format, st.sampled_from(["", "-"]), DIGITS, st.sampled_from([".", ""]), DIGITS
)
OTHERS = st.text(alphabet="019.-+ e/:", max_size=12)


@given(NUMBERS | OTHERS)
@example("1234567.12345678")
@example("12345678.1")
@example("12345678")
@example("123456789")
@example("-0.00")
@example("-0")
@example(".5")
@example("5.")
@example("1.2.3")
@example("1.234567:")
@example("--5")
@example("-")
def test_a_number_does_not_depend_on_the_bytes_after_it(text: str) -> None:
    for kind in KINDS:
        alone = columns_or_fault(text.encode() + b"\n", [kind])
        followed = columns_or_fault(text.encode() + b"\n" + BEHIND, [kind])
        if isinstance(alone, str):
            assert followed == alone
        else:
            assert repr(followed[0][0]) == repr(alone[0][0])


@pytest.mark.parametrize("word", ["-1", "12.5", "0"])
def test_a_number_may_be_a_word_for_null(word: str) -> None:
    data = f"{word},1\n2,{word}\n3,4\n".encode() + b"5,6\n" * 20
    found = parse(data, ["Int64", "Float64"], null_values=(word,))
    assert found[0].to_pylist()[:3] == [None, 2, 3]
    assert found[1].to_pylist()[:3] == [1.0, None, 4.0]


@pytest.mark.parametrize("quote", ["5", "-"])
def test_a_quote_may_look_like_a_part_of_a_number(quote: str) -> None:
    data = f"{quote}17{quote},1\n".encode() + b"2,3\n" * 20
    found = parse(data, ["Int64", "Float64"], quote=quote)
    assert found[0].to_pylist()[:2] == [17, 2]


def test_batches_end_where_the_memory_does_for_any_numbers() -> None:
    rows = [f"{n},{n / 4},x{n}\n" if n % 7 else f" {n}, {n / 4},\n" for n in range(900)]
    found = parse("".join(rows).encode(), ["Int64", "Float64", "Utf8"], room=700)
    assert found[0].to_pylist() == list(range(900))
    assert found[1].to_pylist() == [n / 4 for n in range(900)]


def test_records_of_many_short_fields_are_indexed_whole() -> None:
    data = (b"1," * 99 + b"1\n") * 50
    found = parse(data, ["Int64"] * 2, fields=[0, 99], field_count=100)
    assert [column.to_pylist() for column in found] == [[1] * 50] * 2
