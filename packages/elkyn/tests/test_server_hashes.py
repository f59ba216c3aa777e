"""Hashes of values as the JavaScript SDK sends them (recorded from its transactions)."""

from __future__ import annotations

from typing import Any

import pytest

from elkyn.server.hashes import etag_of, hash_of
from elkyn.tree.values import prepare


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "YPVfR2bXt/lcDjiQZ8pOkAd3qkQ="),
        (1.0, "YPVfR2bXt/lcDjiQZ8pOkAd3qkQ="),
        (1.5, "4MftviR9Z/2MQCMkjh2RNbvlLJc="),
        (-0.25, "rtpYI7p34pbDMms5zQwv5ck+ue8="),
        (0, "7ysMph9WPitGP7poMnMHMVPtUlI="),
        (9007199254740991, "m4qsp/5BbIWTdjthNlnOX+WCTB0="),
        (0.03125, "5jHPZ69WrbH0prlgkl44FwDwyzU="),
        (2.0**-29, "7d5QMiELKDnWdrss5Z2LtOES7JA="),
        (1e21, "rZwDOBGJ9Z0+flzyrCWzeSigSyE="),
        (True, "E5z61QM0lN/U2WsOnusszCTkR8M="),
        (False, "aSSNoqcS4oQwJ2xxH20rvpp3zP0="),
        ("", "Ki0Xy0V6morg0TO3Sxi/jwugYDQ="),
        ("é😀😀", "pYjx7S47qyWh73iVjwmInCP8mBk="),
        ({"a": 1, "b": "x", "c": {"d": True}}, "hqzLU5l3sFRUPgv4HTKxJBdqAsE="),
        ({"10": 1, "2": 2, "b": 3, "a": 4}, "LymLhwlAE/gJN4I06xVNprjYekc="),
        ({".value": 1, ".priority": 5}, "C6BwQ8cWaQAaTPvogioX7cMcHt0="),
        (
            {
                ".priority": "p",
                "a": {".value": 1, ".priority": 2},
                "b": {".value": 1, ".priority": 1},
                "c": 3,
                "d": {".value": "z", ".priority": "s"},
            },
            "YAWnkn/fvfAymNCFKmO2r0/oC/o=",
        ),
    ],
)
def test_a_hash_is_the_one_that_clients_send(value: Any, expected: str) -> None:
    assert hash_of(prepare(value).value) == etag_of(prepare(value).value) == expected


def test_nothing_has_an_empty_hash_and_a_tag_of_its_own() -> None:
    assert (hash_of(None), etag_of(None)) == ("", "null_etag")
