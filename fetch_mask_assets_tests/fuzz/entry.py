"""One input of the byte fuzzer: its first byte says for which property the rest is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fetch_mask_assets_tests.fuzz import properties

ORDINARY_BODIES = (
    '{"user_id":"u","app_version":"1","device_type":"d","ip":"::1","locale":"l","device_id":"d-1"}',
    '{"device_id":"d-1","ip":"192.0.2.1","device_type":"d","app_version":"1","user_id":"u"}',
)
"""Beside them a body is tried in their order of keys."""

CORPUS = Path(__file__).parent / "corpus"


def _body(data: bytes) -> None:
    # With lone surrogates, as the queue's JSON can carry them.
    text = data.decode("utf-8", "surrogateescape")
    properties.body_is_loaded_or_sealed(text)
    properties.body_has_a_shape_that_tells_nothing(text)
    properties.bodies_are_decoded_as_each_alone([text, *ORDINARY_BODIES])
    properties.stored_body_means_the_same_or_nothing(text)
    # The only lone surrogates that bytes escape to are low ones: here come the others.
    wide = data[: len(data) // 2 * 2].decode("utf-16-le", "surrogatepass")
    properties.stored_body_means_the_same_or_nothing(wide)


def _address(data: bytes) -> None:
    properties.text_is_an_address_or_refused(data.decode("utf-8", "surrogateescape"))


def _device_id(data: bytes) -> None:
    properties.text_is_a_device_id_or_refused(data.decode("utf-8", "surrogateescape"))
    properties.bytes_are_a_padding_or_refused(data)


def _version(data: bytes) -> None:
    properties.text_is_a_version_or_none(data.decode("utf-8", "surrogateescape"))


def _token(data: bytes) -> None:
    properties.text_is_a_token_or_refused(data.decode("utf-8", "surrogateescape"))
    value = data[2:].decode("utf-8", "ignore")[:32]
    if value:
        properties.token_is_refused_once_altered(value, data[0], data[1])


def _keyset(data: bytes) -> None:
    properties.text_is_a_keyset_or_refused(data.decode("utf-8", "surrogateescape"))


TARGETS: tuple[Callable[[bytes], None], ...] = (
    _body,
    _address,
    _device_id,
    _version,
    _token,
    _keyset,
)


def run_one(data: bytes) -> None:
    """Tries one input; an exception is a finding."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])
