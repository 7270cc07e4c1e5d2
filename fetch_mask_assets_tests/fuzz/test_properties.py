"""Any text, and texts that are nearly right, against what must hold for any input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.keys import keyset
from fetch_mask_assets_tests.fuzz import properties
from fetch_mask_assets_tests.fuzz.entry import CORPUS, ORDINARY_BODIES, run_one


def _examples(count: int) -> settings:
    """So many examples; in a long run as many times more as the profile has more than 100."""
    return settings(max_examples=count * settings().max_examples // 100)


_ANY_TEXT = st.text(st.characters())
_PIECES = st.sampled_from(
    [
        *"{}[]:,\"\\'\n\0 01e+-.%/",
        "null",
        "NaN",
        "1e999",
        '"ip"',
        '"device_id": "d-1"',
        '"user_id": "u"',
        "192.0.2.1",
        "::ffff:",
        "2001:db8::",
        "\\ud800",
        "\\u0000",
        "[" * 40,
        "9" * 401,
        "ip:AS",
        "device_id:",
    ]
)
_NEARLY = st.lists(_PIECES | _ANY_TEXT, max_size=12).map("".join)
_TEXT = _ANY_TEXT | _NEARLY

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_EVENTS = st.fixed_dictionaries(
    {
        "user_id": st.text(min_size=1, max_size=130) | _JSON,
        "app_version": st.from_regex(r"\A[0-9]{1,11}(\.[0-9]{1,4}){0,3}\Z") | _JSON,
        "device_type": st.sampled_from(["ios", "android"]) | _JSON,
        "ip": st.ip_addresses().map(str) | _JSON,
        "device_id": st.text(min_size=1, max_size=130) | _JSON,
    },
    optional={"locale": _JSON, "extra": _JSON},
).map(json.dumps)


@_examples(200)
@given(body=_TEXT | _EVENTS | _JSON.map(json.dumps))
def test_any_body_loads_as_it_came_or_is_sealed(body: str) -> None:
    properties.body_is_loaded_or_sealed(body)
    properties.body_has_a_shape_that_tells_nothing(body)
    properties.bodies_are_decoded_as_each_alone([body, *ORDINARY_BODIES])


_NEXT_TO_SURROGATES = st.lists(
    st.sampled_from(
        ["\\", "\\u", "u", "d83d", "de00", "\\ud83d", "\\ude00", "\ud83d", "\ude00", "x", '"']
    ),
    min_size=2,
    max_size=6,
).map("".join)


@_examples(500)
@given(text=_NEXT_TO_SURROGATES)
def test_what_is_stored_of_a_body_means_what_was_received_or_nothing(text: str) -> None:
    properties.stored_body_means_the_same_or_nothing(text)
    properties.stored_body_means_the_same_or_nothing(f'{{"a": "{text}"}}')
    properties.stored_body_means_the_same_or_nothing(json.dumps({text: text}, ensure_ascii=False))


@_examples(100)
@given(event=_EVENTS, cut=st.integers(0, 400), inserted=_TEXT)
def test_an_event_that_was_cut_or_filled_loads_as_it_came_or_is_sealed(
    event: str, cut: int, inserted: str
) -> None:
    properties.body_is_loaded_or_sealed(event[:cut])
    properties.body_is_loaded_or_sealed(event[:cut] + inserted + event[cut:])


@_examples(200)
@given(text=_TEXT | st.ip_addresses().map(str) | st.text("0123456789abcdef.:%/ x", max_size=50))
def test_any_text_has_a_canonical_form_that_reads_back_or_none(text: str) -> None:
    properties.text_is_an_address_or_refused(text)
    properties.text_is_a_device_id_or_refused(text)
    properties.text_is_a_version_or_none(text)


@_examples(100)
@given(padded=st.binary(max_size=64))
def test_any_bytes_are_a_padding_or_refused(padded: bytes) -> None:
    properties.bytes_are_a_padding_or_refused(padded)


@_examples(100)
@given(text=_TEXT | st.from_regex(r"\A(ip|device_id):A[A-Za-z0-9_-]{48,80}\Z"))
def test_any_text_is_a_genuine_token_or_refused(text: str) -> None:
    properties.text_is_a_token_or_refused(text)


@_examples(100)
@given(value=st.text(min_size=1, max_size=32), place=st.integers(0, 200), by=st.integers(0, 7))
def test_a_token_with_a_changed_bit_is_refused(value: str, place: int, by: int) -> None:
    properties.token_is_refused_once_altered(value, place, by)


@_examples(60)
@given(cut=st.integers(0, 400), inserted=_TEXT, whole=_TEXT)
def test_any_text_is_a_keyset_or_refused(cut: int, inserted: str, whole: str) -> None:
    genuine = keyset.new_keyset("ip")
    properties.text_is_a_keyset_or_refused(whole)
    properties.text_is_a_keyset_or_refused(genuine[:cut])
    properties.text_is_a_keyset_or_refused(genuine[:cut] + inserted + genuine[cut:])


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_every_input_of_the_corpus_keeps_the_properties(name: str) -> None:
    run_one((CORPUS / name).read_bytes())


# Each property is seen to fail


@pytest.mark.parametrize(
    ("target", "fault", "data"),
    [
        ("decode_login_event", lambda _body: {"ip": "1.2.3.4"}, b"\x00{}"),
        ("body_profile", lambda body: body, b"\x001.2.3.4 is the shape"),
        (
            "storable_text",
            lambda body: body.encode("utf-8", "backslashreplace").decode(),
            b'\x00{"a": "\\\xff"}',
        ),
        ("pack_ip", lambda text: (_ for _ in ()).throw(ValueError(text)), b"\x011.2.3.4-canary"),
        ("pad_text", lambda text: text.strip().encode() + b"\x80", b"\x02 x "),
        ("version_number", lambda _text: -1, b"\x03x"),
        ("parse_token", lambda _field, text: int(text), b"\x04ip:AS"),
        ("parse_keyset", lambda _name, text: json.loads(text), b"\x05{"),
    ],
    ids=["decoder", "shape", "stored", "address", "device id", "version", "token", "keyset"],
)
def test_a_faulty_parser_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, fault: object, data: bytes
) -> None:
    monkeypatch.setattr(properties, target, fault)

    with pytest.raises((AssertionError, ValueError)):
        run_one(data)
