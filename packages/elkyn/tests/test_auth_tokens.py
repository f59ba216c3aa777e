"""Tokens: what is signed is verified, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from elkyn.auth.errors import BadToken
from elkyn.auth.jws import (
    Key,
    PrivateKey,
    PublicKey,
    SecretKey,
    encode_base64url,
    parse_token,
    sign_token,
    unsigned_token,
)
from elkyn.auth.principal import Principal
from elkyn.auth.tokens import TokenSigner, Trust, Verifier
from sennit_core.errors import BadInput, UsageError
from sennit_core.testing import ManualClock

SECRET = "a secret of at least thirty-two bytes"
NOW = 1_700_000_000
RSA = PrivateKey.generate("r1")
EC_PRIVATE = ec.generate_private_key(ec.SECP256R1())
EC_PUBLIC = PublicKey("e1", "ES256", EC_PRIVATE.public_key())
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
CHARACTERS = BASE64URL + "=+/. \n\0é"


def claims(**more: Any) -> dict[str, Any]:
    return {"iss": "https://id.test", "aud": "app", "sub": "u", "iat": NOW, "exp": NOW + 60, **more}


def trust(*keys: Key, **fields: Any) -> Trust:
    fields = {"issuer": "https://id.test", "audience": frozenset({"app"}), **fields}
    return Trust(
        find=lambda kid, _algorithm: [key for key in keys if kid in (None, key.kid)],
        algorithms=frozenset(key.algorithm for key in keys),
        **fields,
    )


ISSUER = Verifier([trust(RSA, EC_PUBLIC)])
BY_SECRET = Verifier.of_secret(SECRET)
EXAMPLES = {
    "HS256": (BY_SECRET, TokenSigner(SECRET, ManualClock(NOW)).sign("u", {"admin": True})),
    "RS256": (ISSUER, sign_token(claims(), RSA)),
    "ES256": (ISSUER, jwt.encode(claims(), EC_PRIVATE, "ES256", headers={"kid": "e1"})),
}


def refused(verifier: Verifier, text: str, now: float = NOW) -> BadToken:
    with pytest.raises(BadToken) as caught:
        verifier.verify(text, now)
    return caught.value


@pytest.mark.parametrize("algorithm", EXAMPLES)
def test_a_signed_token_is_verified(algorithm: str) -> None:
    verifier, text = EXAMPLES[algorithm]
    assert verifier.verify(text, NOW).uid == "u"


@pytest.mark.parametrize("algorithm", EXAMPLES)
def test_no_character_of_a_token_can_be_changed(algorithm: str) -> None:
    verifier, text = EXAMPLES[algorithm]
    for place, old in enumerate(text):
        for new in {CHARACTERS[place % len(CHARACTERS)], chr(ord(old) ^ 1), "A", "="} - {old}:
            refused(verifier, text[:place] + new + text[place + 1 :])
        refused(verifier, text[:place] + text[place + 1 :])
        refused(verifier, text[:place])


@pytest.mark.parametrize("algorithm", EXAMPLES)
def test_the_unused_bits_of_a_last_character_count_too(algorithm: str) -> None:
    verifier, text = EXAMPLES[algorithm]
    parts = text.split(".")
    for place, part in enumerate(parts):
        for last in set(BASE64URL) - {part[-1]}:
            changed = [*parts[:place], part[:-1] + last, *parts[place + 1 :]]
            refused(verifier, ".".join(changed))


@given(st.text(CHARACTERS, max_size=80) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_no_text_is_a_token(text: str) -> None:
    refused(BY_SECRET, text)


@pytest.mark.slow
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "crit", "jwk", "typ"]), st.text()),
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
def test_well_formed_tokens_without_a_valid_signature_are_refused(
    header: dict[str, Any], body: Any
) -> None:
    parts = (encode_base64url(json.dumps(part).encode()) for part in (header, body))
    text = f"{'.'.join(parts)}."
    refused(BY_SECRET, text)
    refused(ISSUER, text + "AAAA")


def test_a_public_key_cannot_be_used_as_a_secret() -> None:
    pem = RSA._key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = TokenSigner(pem, ManualClock(NOW)).sign("u")
    assert refused(Verifier([trust(RSA, issuer=None, audience=None)]), text).fault == "algorithm"
    assert refused(Verifier([trust(RSA), Trust.of_secret(SECRET)]), text).fault == "signature"


def test_an_rsa_token_cannot_name_an_elliptic_key() -> None:
    text = sign_token(claims(), PrivateKey("e1", RSA._private))
    assert refused(ISSUER, text).fault == "signature"


def test_a_key_verifies_its_own_algorithm_alone() -> None:
    key = SecretKey(SECRET)
    both = Verifier([Trust(lambda _kid, _algorithm: (key,), frozenset({"HS256", "RS256"}))])
    header, body = ({"alg": "RS256"}, claims())
    signed = ".".join(encode_base64url(json.dumps(part).encode()) for part in (header, body))
    text = f"{signed}.{encode_base64url(key.sign(signed.encode()))}"
    assert refused(both, text).fault == "signature"
    assert both.verify(sign_token(claims(), key), NOW).uid == "u"


def test_algorithm_none_is_for_emulators_alone() -> None:
    text = unsigned_token({"sub": "u", "exp": NOW + 1})
    assert refused(BY_SECRET, text).fault == "algorithm"
    emulator = Verifier([Trust.of_secret(SECRET)], unsigned=True)
    assert emulator.verify(text, NOW).uid == "u"
    assert refused(emulator, text + "AAAA").fault == "algorithm"
    verified = emulator.verify(text, NOW + 3600)  # emulators read no times of unsigned tokens
    assert (verified.expires_ms, verified.claims["exp"]) == (None, NOW + 1)
    assert emulator.verify(unsigned_token({"sub": "u", "iat": NOW + 3600}), NOW).uid == "u"
    for spelling in ("None", "NONE", "nOnE", ""):
        parts = (
            encode_base64url(json.dumps(x).encode()) for x in ({"alg": spelling}, {"sub": "u"})
        )
        refused(emulator, f"{'.'.join(parts)}.")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"exp": NOW - 60}, "expired"),
        ({"exp": None}, "claims"),
        ({"exp": "tomorrow"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 1e300}, "claims"),
        ({"nbf": NOW + 61}, "early"),
        ({"iat": NOW + 61}, "early"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": ["x", {"app": 1}]}, "audience"),
        ({"iss": "https://evil.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"sub": ""}, "claims"),
        ({"sub": 7}, "claims"),
        ({"sub": "x" * 129}, "claims"),
        ({"sub": "a\nb"}, "claims"),
    ],
)
def test_claims_that_do_not_hold_refuse_the_token(changed: dict[str, Any], fault: str) -> None:
    assert refused(ISSUER, sign_token(claims(**changed), RSA)).fault == fault


def test_clocks_may_differ_by_a_minute() -> None:
    assert ISSUER.verify(sign_token(claims(nbf=NOW + 59), RSA), NOW).uid == "u"
    assert ISSUER.verify(sign_token(claims(), RSA), NOW + 119).uid == "u"
    refused(ISSUER, sign_token(claims(), RSA), NOW + 120)


def test_sizes_and_depth_are_bounded() -> None:
    refused(ISSUER, sign_token(claims(x="x" * 20_000), RSA))
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    assert refused(ISSUER, sign_token(claims(x=deep), RSA)).fault == "malformed"
    with pytest.raises(BadToken):
        parse_token(encode_base64url(b"[" * 9000) + ".e30.")


def test_duplicate_names_and_half_surrogates_are_refused() -> None:
    header = encode_base64url(b'{"alg":"HS256"}')
    for body in (b'{"sub":"a","sub":"b"}', b'{"sub":"\\ud800"}', b'{"exp":NaN,"sub":"a"}', b"\xff"):
        with pytest.raises(BadToken):
            parse_token(f"{header}.{encode_base64url(body)}.AAAA")


def test_custom_claims_are_merged_with_the_uid() -> None:
    verifier, text = EXAMPLES["HS256"]
    auth = verifier.verify(text, NOW).as_auth()
    assert auth is not None
    assert (auth["uid"], auth["admin"], auth["provider"]) == ("u", True, "custom")
    assert auth["token"]["admin"] is True
    assert "exp" not in auth


def test_an_id_token_of_firebase_shows_its_provider() -> None:
    firebase = {"sign_in_provider": "password", "identities": {}}
    text = sign_token(claims(firebase=firebase, user_id="u", email="a@b.c", level=3), RSA)
    principal = ISSUER.verify(text, NOW)
    assert principal.provider == "password"
    assert principal.custom == ("level",)
    assert principal.expires_ms == (NOW + 60) * 1000


def test_a_legacy_token_carries_auth_in_d() -> None:
    data = {"uid": "u", "level": 3, "provider": "mine"}
    text = jwt.encode({"v": 0, "iat": NOW, "d": data}, SECRET, "HS256")
    principal = BY_SECRET.verify(text, NOW)
    auth = principal.as_auth()
    assert auth is not None
    assert (auth["uid"], auth["level"], auth["token"]["level"]) == ("u", 3, 3)
    assert not principal.admin
    assert refused(BY_SECRET, text, NOW + 25 * 3600).fault == "expired"
    admin = jwt.encode({"v": 0, "iat": NOW, "d": {"a": 1}, "admin": True}, SECRET, "HS256")
    assert BY_SECRET.verify(admin, NOW).admin
    assert BY_SECRET.verify(admin, NOW).as_auth() == {"a": 1}


def test_an_external_issuer_cannot_make_admins_or_collide() -> None:
    text = sign_token(claims(roles={"admin": True}), RSA)
    assert not ISSUER.verify(text, NOW).admin
    prefixed = Verifier([trust(RSA, uid_prefix="corp:", provider="https://id.test")])
    principal = prefixed.verify(text, NOW)
    assert (principal.uid, principal.provider) == ("corp:u", "https://id.test")
    assert Verifier([trust(RSA, roles=True)]).verify(text, NOW).admin


def test_other_libraries_read_our_tokens() -> None:
    _verifier, text = EXAMPLES["HS256"]
    assert jwt.decode(text, SECRET, ["HS256"], options={"verify_exp": False})["sub"] == "u"
    text = sign_token(claims(), RSA)
    decoded = jwt.decode(text, RSA._key, ["RS256"], audience="app", options={"verify_exp": False})
    assert decoded["sub"] == "u"


def test_keys_go_through_jwk_and_der() -> None:
    again = PrivateKey.from_der(RSA.to_der(), "r1")
    public = PublicKey.from_jwk(RSA.to_jwk())
    assert public.verify(b"x", again.sign(b"x"))
    assert PublicKey.from_jwk(EC_PUBLIC.to_jwk()).algorithm == "ES256"


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "AAAA"},
        {**RSA.to_jwk(), "alg": "RS512"},
        {**RSA.to_jwk(), "use": "enc"},
        {**RSA.to_jwk(), "d": "AQAB"},
        {**RSA.to_jwk(), "n": "AQAB"},
        {**EC_PUBLIC.to_jwk(), "x": "AAAA"},
        {**EC_PUBLIC.to_jwk(), "crv": "P-384"},
    ],
)
def test_weak_and_foreign_keys_are_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        PublicKey.from_jwk(jwk)


@pytest.mark.parametrize(
    ("uid", "own"), [("", {}), ("x" * 129, {}), ("u", {"sub": "v"}), ("u", {"x": object()})]
)
def test_claims_that_cannot_be_signed_are_refused(uid: str, own: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TokenSigner(SECRET).sign(uid, own)


def test_an_empty_secret_is_refused() -> None:
    for make in (TokenSigner, Verifier.of_secret):
        with pytest.raises(UsageError):
            make("")


def test_an_override_is_shown_as_it_is() -> None:
    assert Principal(uid="u", override={"uid": "x", "a": 1}).as_auth() == {"uid": "x", "a": 1}
    assert Principal().as_auth() is None


def test_one_secret_needs_no_third_party_package() -> None:
    program = (
        "import sys\n"
        "for name in ('jwt', 'cryptography', 'argon2'):\n"
        "    sys.modules[name] = None\n"
        "from elkyn.auth.tokens import TokenSigner, Verifier\n"
        "from elkyn.auth.jws import PrivateKey\n"
        "from sennit_core.errors import Unsupported\n"
        "assert Verifier.of_secret('s').verify(TokenSigner('s').sign('u')).uid == 'u'\n"
        "try:\n"
        "    PrivateKey.generate('k')\n"
        "except Unsupported as error:\n"
        "    assert 'pyjwt' in error.hint\n"
        "else:\n"
        "    sys.exit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
