"""Equal stays equal, and only that: masking, unmasking, sealing, and the keysets they need."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tink
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tink import daead, secret_key_access
from tink import json_proto_keyset_format as json_format

from fetch_mask_assets.errors import KeysetError, TokenError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.keys.masker import FieldMasker
from fetch_mask_assets_tests.support.factories import (
    keyring,
    new_keysets,
    rotated,
    shown,
    siv_keyset,
    strangers_keyring,
)

KEY = bytes(range(64))
KEY_ID = 0x01020304

_VECTORS = json.loads((Path(__file__).parent / "data" / "aes_siv_vectors.json").read_text())[
    "vectors"
]
_JSON_CHANGE = Callable[[dict[str, Any]], object]


def _known_keyring() -> Keyring:
    known = siv_keyset(KEY, KEY_ID)
    return open_keyring(new_keysets() | {"ip": known, "device_id": known})


def _primitive(keyset: str) -> daead.DeterministicAead:
    handle = json_format.parse(keyset, secret_key_access.TOKEN)
    return handle.primitive(daead.DeterministicAead)  # type: ignore[type-abstract]  # Tink's own idiom


def _altered(token: str, place: int) -> str:
    field, encoded = token.split(":")
    ciphertext = bytearray(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    ciphertext[place] ^= 1
    return f"{field}:{urlsafe_b64encode(ciphertext).rstrip(b'=').decode()}"


def _refuses(masker: FieldMasker, token: str) -> bool:
    try:
        masker.unmask(token)
    except TokenError:
        return True
    return False


@pytest.mark.parametrize("vector", _VECTORS, ids=lambda vector: str(vector["tcId"]))
@pytest.mark.parametrize(
    ("prefix", "written"), [("RAW", b""), ("TINK", b"\1\1\2\3\4")], ids=["raw", "prefixed"]
)
def test_the_cipher_gives_the_published_answers(
    vector: dict[str, str], prefix: str, written: bytes
) -> None:
    keyring()  # registers the cipher
    cipher = _primitive(siv_keyset(bytes.fromhex(vector["key"]), KEY_ID, prefix))
    message, data = bytes.fromhex(vector["msg"]), bytes.fromhex(vector["aad"])
    published = written + bytes.fromhex(vector["ct"])

    if vector["result"] == "valid":
        assert cipher.encrypt_deterministically(message, data) == published
        assert cipher.decrypt_deterministically(published, data) == message
    else:
        with pytest.raises(tink.TinkError):
            cipher.decrypt_deterministically(published, data)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ip", "192.0.2.1", "ip:AQECAwSIT3CH7KX5ktLjbIyt0PKtZGFxrmMc1gbQO6r7W1lZVQ"),
        ("ip", "2001:db8::7", "ip:AQECAwTVhlAhrb480ZMbdrrRJWXKNW2Z5awAhXgJeyNo8F2gMw"),
        (
            "device_id",
            "593-47-5928",
            "device_id:AQECAwQO324Ipmz8NlvegJyJxfW6pCVyuP8ukVGvo6cnLPIUzw",
        ),
        (
            "device_id",
            "0123456789abcdef",
            "device_id:AQECAwR7h8sOVTAI1bJLSBBYXpZSDsx-IRYT6c09nL7HSzpm4wycRrLcWkJ7bZXWCe7okPc",
        ),
    ],
)
def test_a_value_under_a_known_key_has_this_token_for_ever(
    field: str, value: str, expected: str
) -> None:
    """Computed with another implementation of RFC 5297: a change breaks every stored token."""
    masker = _known_keyring().masker(field)

    actual = masker.mask(value)

    assert expected == actual
    assert masker.unmask(expected) == value


def test_an_ipv4_mapped_address_has_the_token_of_its_ipv4() -> None:
    masker = keyring().masker("ip")

    assert masker.mask("::ffff:199.172.111.135") == masker.mask("199.172.111.135")
    assert masker.unmask(masker.mask("::ffff:199.172.111.135")) == "199.172.111.135"


def test_every_spelling_of_an_ipv6_address_has_one_token() -> None:
    masker = keyring().masker("ip")

    actual = {masker.mask(text) for text in ("2001:db8::7", "2001:DB8:0:0:0:0:0:7")}

    assert {masker.mask("2001:0db8::0007")} == actual


def test_the_same_keyset_opened_again_gives_the_same_tokens() -> None:
    keysets = new_keysets()

    one, other = open_keyring(keysets), open_keyring(keysets)

    assert one.masker("ip").mask("192.0.2.1") == other.masker("ip").mask("192.0.2.1")
    assert one.masker("device_id").mask("593-47-5928") == other.masker("device_id").mask(
        "593-47-5928"
    )


@settings(max_examples=100, deadline=None)
@given(one=st.ip_addresses(v=4).map(str), other=st.ip_addresses(v=4).map(str))
def test_equal_ips_and_only_they_have_equal_tokens(one: str, other: str) -> None:
    masker = keyring().masker("ip")

    assert masker.mask(one) == masker.mask(one)
    assert (one == other) == (masker.mask(one) == masker.mask(other))
    assert masker.unmask(masker.mask(one)) == one


_DEVICE_IDS = st.text(min_size=1, max_size=128).filter(lambda text: len(text.encode()) <= 128)


@settings(max_examples=100, deadline=None)
@given(one=_DEVICE_IDS, other=_DEVICE_IDS)
@example(one="a", other="A")
@example(one="a", other="a ")
@example(one="é", other="e\u0301")
def test_equal_device_ids_and_only_they_have_equal_tokens(one: str, other: str) -> None:
    masker = keyring().masker("device_id")

    assert masker.mask(one) == masker.mask(one)
    assert (one == other) == (masker.mask(one) == masker.mask(other))
    assert masker.unmask(masker.mask(one)) == one
    assert len(masker.mask(one)) <= 256


def test_a_token_tells_the_length_of_no_ip_and_of_no_short_device_id() -> None:
    ips = ["::", "1.1.1.1", "255.255.255.255", "2001:db8:1111:2222:3333:4444:5555:6666"]

    ip_lengths = {len(keyring().masker("ip").mask(ip)) for ip in ips}
    device_lengths = {
        len(keyring().masker("device_id").mask("x" * length)) for length in range(1, 16)
    }

    assert {53} == ip_lengths
    assert {60} == device_lengths


@pytest.mark.parametrize("device_id", ["x" * 128, "é" * 64, "😀" * 32])
def test_the_longest_device_id_has_a_token_that_fits_its_column(device_id: str) -> None:
    actual = len(keyring().masker("device_id").mask(device_id))

    assert 230 == actual  # noqa: SIM300 (expected first)


def test_a_token_of_the_other_field_is_refused() -> None:
    ring = keyring()
    of_device = ring.masker("device_id").mask("593-47-5928")

    assert _refuses(ring.masker("ip"), of_device)
    assert _refuses(ring.masker("ip"), of_device.replace("device_id:", "ip:"))
    assert _refuses(ring.masker("device_id"), ring.masker("ip").mask("192.0.2.1"))


def test_a_token_of_the_other_field_is_refused_even_under_one_key() -> None:
    ring = _known_keyring()
    of_device = ring.masker("device_id").mask("593-47-5928")

    assert _refuses(ring.masker("ip"), of_device.replace("device_id:", "ip:"))


@pytest.mark.parametrize("place", range(37))
def test_a_token_with_an_altered_byte_is_refused(place: int) -> None:
    masker = keyring().masker("ip")
    altered = _altered(masker.mask("192.0.2.1"), place)

    with pytest.raises(TokenError) as caught:
        masker.unmask(altered)

    assert "192.0.2.1" not in shown(caught.value)
    assert altered not in shown(caught.value)


def test_a_token_with_any_other_character_is_refused() -> None:
    masker = keyring().masker("device_id")
    token = masker.mask("593-47-5928")
    altered = [
        token[:place] + other + token[place + 1 :]
        for place in range(len(token))
        for other in "Aa0-_+/=. \n"
        if token[place] != other
    ]

    assert all(_refuses(masker, text) for text in altered)


def test_a_shortened_or_lengthened_token_is_refused() -> None:
    masker = keyring().masker("ip")
    token = masker.mask("192.0.2.1")

    assert all(_refuses(masker, token[:length]) for length in range(len(token)))
    assert all(_refuses(masker, token + "A" * length) for length in range(1, 44))


def test_a_token_of_a_strangers_key_is_refused_by_its_key_id() -> None:
    stranger = strangers_keyring().masker("ip")

    with pytest.raises(TokenError, match=rf"^key {stranger.primary_key_id} is not in the keyset"):
        keyring().masker("ip").unmask(stranger.mask("192.0.2.1"))


def test_a_token_of_another_key_under_the_same_id_is_refused() -> None:
    other = open_keyring(new_keysets() | {"ip": siv_keyset(bytes(64), KEY_ID)})

    assert _refuses(_known_keyring().masker("ip"), other.masker("ip").mask("192.0.2.1"))


def test_a_rotated_keyset_masks_under_the_new_key_and_unmasks_both() -> None:
    keysets = new_keysets()
    old = open_keyring(keysets)
    new = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")})
    before, after = old.masker("ip").mask("192.0.2.1"), new.masker("ip").mask("192.0.2.1")

    assert before != after
    assert new.masker("ip").primary_key_id != old.masker("ip").primary_key_id
    assert new.masker("ip").unmask(before) == new.masker("ip").unmask(after) == "192.0.2.1"
    assert _refuses(old.masker("ip"), after)


def test_a_rotated_keyset_keeps_the_check_values_of_its_old_keys() -> None:
    keysets = new_keysets()
    old = open_keyring(keysets)
    new = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")})

    assert old.masker("ip").check_values.items() < new.masker("ip").check_values.items()
    assert set(new.masker("ip").check_values) == {
        old.masker("ip").primary_key_id,
        new.masker("ip").primary_key_id,
    }


def test_a_disabled_key_neither_unmasks_nor_counts() -> None:
    keysets = new_keysets()
    old = open_keyring(keysets)
    keyset = json.loads(rotated(keysets["ip"], "ip"))
    keyset["key"][0]["status"] = "DISABLED"

    new = open_keyring(keysets | {"ip": json.dumps(keyset)})

    assert set(new.masker("ip").check_values) == {new.masker("ip").primary_key_id}
    assert _refuses(new.masker("ip"), old.masker("ip").mask("192.0.2.1"))


def test_check_values_are_equal_for_equal_keys_and_differ_for_others() -> None:
    keysets = new_keysets()
    ring = open_keyring(keysets)
    checks = [check for each in ring.check_values.values() for check in each.values()]

    assert ring.check_values == open_keyring(keysets).check_values
    assert len(set(checks)) == 3
    assert {len(check) for check in checks} == {16}


def test_a_check_value_is_that_of_the_key_and_not_of_its_id() -> None:
    one = open_keyring(new_keysets() | {"ip": siv_keyset(KEY, 1)})
    other = open_keyring(new_keysets() | {"ip": siv_keyset(KEY, 2)})
    stranger = open_keyring(new_keysets() | {"ip": siv_keyset(bytes(64), 1)})

    assert one.masker("ip").check_values[1] == other.masker("ip").check_values[2]
    assert one.masker("ip").check_values[1] != stranger.masker("ip").check_values[1]


def test_a_check_value_is_this_for_ever() -> None:
    """The database keeps check values: another formula would refuse every known key."""
    actual = {
        name: check.hex() for name, check in _known_keyring().masker("ip").check_values.items()
    }

    assert actual == {KEY_ID: "dbe4556f40c2c438694c67f6357eb06e"}


def test_check_values_hold_nothing_of_the_key() -> None:
    check = _known_keyring().masker("ip").check_values[KEY_ID]

    assert not any(check[place : place + 4] in KEY for place in range(13))


def test_nothing_that_holds_keys_shows_them_or_their_check_values() -> None:
    keysets = new_keysets()
    ring = open_keyring(keysets)
    seen = " ".join(
        f"{each!r} {each}"
        for each in (ring, ring.masker("ip"), ring.masker("device_id"), ring.sealer, ring.maskers)
    )
    secrets = [json.loads(text)["key"][0]["keyData"]["value"] for text in keysets.values()]
    material = [b64decode(secret) for secret in secrets]
    checks = [check for each in ring.check_values.values() for check in each.values()]

    for secret in (*material, *checks):
        assert secret.hex() not in seen
        assert b64encode(secret).decode() not in seen
        assert repr(secret) not in seen


def test_a_keyring_shows_which_keys_are_primary() -> None:
    assert f"primary_key_id={KEY_ID}" in repr(_known_keyring())


@pytest.mark.parametrize("name", KEYSET_NAMES)
def test_a_missing_keyset_is_named(name: str) -> None:
    keysets = {other: text for other, text in new_keysets().items() if other != name}

    with pytest.raises(KeysetError, match=f"^the keyset of {name} is missing"):
        open_keyring(keysets)


@pytest.mark.parametrize(
    ("name", "other"), [("ip", "quarantine"), ("device_id", "quarantine"), ("quarantine", "ip")]
)
def test_a_keyset_of_the_wrong_kind_is_refused(name: str, other: str) -> None:
    with pytest.raises(KeysetError, match=f"^the keyset of {name} holds key .* of another kind"):
        open_keyring(new_keysets() | {name: new_keyset(other)})


def test_a_keyset_whose_retired_key_is_of_the_wrong_kind_is_refused() -> None:
    keysets = new_keysets()
    mixed = json.loads(keysets["ip"])
    mixed["key"] += json.loads(keysets["quarantine"])["key"]

    with pytest.raises(KeysetError, match="of another kind"):
        open_keyring(keysets | {"ip": json.dumps(mixed)})


@pytest.mark.parametrize("prefix", ["RAW", "CRUNCHY", "LEGACY"])
def test_a_key_that_does_not_write_its_id_is_refused(prefix: str) -> None:
    with pytest.raises(KeysetError, match="of another kind"):
        open_keyring(new_keysets() | {"ip": siv_keyset(KEY, KEY_ID, prefix)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "canary",
        "null",
        "[]",
        "17",
        '"canary"',
        "{}",
        '{"key": []}',
        '{"canary": "canary"}',
        '{"primaryKeyId": 1, "key": ["canary"]}',
        '{"primaryKeyId": "canary", "key": []}',
        '{"primaryKeyId": 1, "key": [{"keyData": {"typeUrl": "canary"}}]}',
        "[" * 100_000,
        '{"key":' * 5_000,
        "\ud800",
        "\0",
    ],
    ids=lambda text: repr(text[:40]),
)
@pytest.mark.parametrize("name", KEYSET_NAMES)
def test_what_is_no_keyset_is_refused_without_its_text(name: str, text: str) -> None:
    keysets = new_keysets() | {name: text}

    with pytest.raises(KeysetError, match=f"^the keyset of {name} ") as caught:
        open_keyring(keysets)

    assert "canary" not in shown(caught.value)


def _key_data(keyset: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = keyset["key"][0]["keyData"]
    return data


@pytest.mark.parametrize(
    "change",
    [
        lambda keyset: keyset.pop("primaryKeyId"),
        lambda keyset: keyset.update(primaryKeyId=7),
        lambda keyset: keyset["key"][0].update(status="DISABLED"),
        lambda keyset: keyset["key"][0].update(status="DESTROYED"),
        lambda keyset: keyset["key"][0].pop("keyId"),
        lambda keyset: keyset["key"][0].pop("keyData"),
        lambda keyset: keyset["key"].append(keyset["key"][0]),
        lambda keyset: _key_data(keyset).pop("value"),
        lambda keyset: _key_data(keyset).update(value=""),
        lambda keyset: _key_data(keyset).update(value="Y2FuYXJ5IGNhbmFyeQ=="),
        lambda keyset: _key_data(keyset).update(value=b64encode(b"\x12\x20" + KEY[:32]).decode()),
        lambda keyset: _key_data(keyset).update(value=b64encode(b"\x12\x41" + KEY + b"x").decode()),
    ],
    ids=[
        "no primary",
        "another primary",
        "primary disabled",
        "primary destroyed",
        "no key id",
        "no key data",
        "the key twice",
        "no material",
        "empty material",
        "other material",
        "32-byte key",
        "65-byte key",
    ],
)
@pytest.mark.parametrize("name", KEYSET_NAMES)
def test_a_broken_keyset_is_refused_by_its_name_without_its_material(
    name: str, change: _JSON_CHANGE
) -> None:
    keysets = new_keysets()
    keyset = json.loads(keysets[name])
    material = _key_data(keyset)["value"]
    change(keyset)

    with pytest.raises(KeysetError, match=f"^the keyset of {name} ") as caught:
        open_keyring(keysets | {name: json.dumps(keyset)})

    assert material not in shown(caught.value)
    assert "canary" not in shown(caught.value)


def test_a_new_keyset_has_one_key_that_writes_its_id() -> None:
    keysets = {name: json.loads(new_keyset(name)) for name in KEYSET_NAMES}

    for keyset in keysets.values():
        assert [key["keyId"] for key in keyset["key"]] == [keyset["primaryKeyId"]]
        assert [key["outputPrefixType"] for key in keyset["key"]] == ["TINK"]


def test_a_masking_key_has_512_bits() -> None:
    """RFC 5297: half of them for the synthetic IV, half for AES-256 in counter mode."""
    material = json.loads(new_keyset("ip"))["key"][0]["keyData"]["value"]

    assert len(b64decode(material).removeprefix(b"\x12\x40")) == 64


@settings(max_examples=100, deadline=None)
@given(body=st.text(st.characters()), message_id=st.text())
@example(body="\ud800 \udfff", message_id="m1")
@example(body="", message_id="")
def test_a_sealed_body_opens_for_its_message_id(body: str, message_id: str) -> None:
    sealer = keyring().sealer

    assert sealer.open(sealer.seal(body, message_id), message_id) == body


def test_a_body_of_1_mib_is_sealed_and_opened() -> None:
    sealer = keyring().sealer

    assert sealer.open(sealer.seal("x" * 2**20, "m1"), "m1") == "x" * 2**20


def test_equal_bodies_are_not_equal_when_sealed() -> None:
    sealer = keyring().sealer

    assert sealer.seal("canary", "m1") != sealer.seal("canary", "m1")


def test_a_sealed_body_holds_nothing_of_the_body() -> None:
    actual = keyring().sealer.seal("canary " * 10, "m1")

    assert b"canary" not in actual


@pytest.mark.parametrize("message_id", ["m2", "", "m1 ", "M1", "m1/"])
def test_a_body_sealed_for_another_message_does_not_open(message_id: str) -> None:
    sealer = keyring().sealer
    sealed = sealer.seal("canary", "m1")

    with pytest.raises(TokenError) as caught:
        sealer.open(sealed, message_id)

    assert "canary" not in shown(caught.value)


def test_a_body_sealed_under_another_key_does_not_open() -> None:
    with pytest.raises(TokenError):
        keyring().sealer.open(strangers_keyring().sealer.seal("canary", "m1"), "m1")


def test_an_altered_or_cut_sealed_body_does_not_open() -> None:
    sealer = keyring().sealer
    sealed = sealer.seal("canary", "m1")
    altered = [
        sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        for place in range(len(sealed))
    ]

    for each in (*altered, *(sealed[:length] for length in range(len(sealed))), b"canary"):
        with pytest.raises(TokenError):
            sealer.open(each, "m1")


def test_a_rotated_sealer_opens_what_the_old_key_sealed() -> None:
    keysets = new_keysets()
    sealed = open_keyring(keysets).sealer.seal("canary", "m1")
    new = open_keyring(keysets | {"quarantine": rotated(keysets["quarantine"], "quarantine")})

    assert new.sealer.open(sealed, "m1") == "canary"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ip", "canary-77"),
        ("ip", "192.0.2.999"),
        ("ip", "192.0.2.17 "),
        ("ip", "canary\ud800"),
        ("device_id", "canary\ud800"),
    ],
)
def test_a_value_that_cannot_be_masked_is_refused_without_it(name: str, value: str) -> None:
    masker: FieldMasker = keyring().masker(name)

    with pytest.raises(ValueError) as caught:  # noqa: PT011 (any text, if it tells nothing)
        masker.mask(value)

    assert "canary" not in shown(caught.value)
    assert "192.0.2" not in shown(caught.value)


@pytest.mark.parametrize("token", ["192.0.2.77", "ip:192.0.2.77", "canary-77", "device_id:canary"])
@pytest.mark.parametrize("name", ["ip", "device_id"])
def test_a_raw_value_given_for_a_token_is_refused_without_it(name: str, token: str) -> None:
    masker: FieldMasker = keyring().masker(name)

    with pytest.raises(TokenError) as caught:
        masker.unmask(token)

    assert "canary" not in shown(caught.value)
    assert "192.0.2" not in shown(caught.value)
