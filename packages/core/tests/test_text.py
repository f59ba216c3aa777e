import pytest

from sennit_core.text import nearest, shorten_list


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("distnace", ["carrier", "distance"], "distance"),
        ("ID", ["id", "idx"], "id"),
        ("x", ["distance"], None),
        ("a", [], None),
        ("Flight", ["FLIGHT", "light"], "FLIGHT"),
    ],
)
def test_nearest_known_name(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected


def test_long_lists_are_counted() -> None:
    assert shorten_list("abc") == "a, b, c"
    assert shorten_list("abcde", 2) == "a, b and 3 more"
