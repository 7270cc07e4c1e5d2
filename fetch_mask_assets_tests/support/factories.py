"""Message bodies, batches and keysets for the tests of the domain, and where leaks are sought."""

from __future__ import annotations

import json
import traceback
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

import polars as pl

from fetch_mask_assets.keys.keyset import KEYSET_NAMES, Keyring, new_keyset, open_keyring
from fetch_mask_assets.pipeline.batch.frames import RAW_SCHEMA

IP = "192.0.2.17"
DEVICE_ID = "593-47-5928"
SENT_AT = datetime(2024, 2, 28, 12, 0, tzinfo=UTC)


def members(**changes: object) -> dict[str, object]:
    """The members of a login event that keeps the contract, with some changed."""
    login: dict[str, object] = {
        "user_id": "u-1",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": IP,
        "locale": "en_US",
        "device_id": DEVICE_ID,
    }
    return login | changes


def body(**changes: object) -> str:
    """A login event as JSON, with some members changed or added."""
    return json.dumps(members(**changes))


def body_without(name: str) -> str:
    """A login event that lacks one member."""
    return json.dumps({key: value for key, value in members().items() if key != name})


def body_with_extra(json_text: str) -> str:
    """A login event with one more member, whose value is given as it stands in the JSON."""
    return body().removesuffix("}") + f', "extra": {json_text}}}'


def raw_batch(
    bodies: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    sent_at: datetime = SENT_AT,
    receive_count: int = 1,
) -> pl.DataFrame:
    """A raw batch of messages `m0`, `m1` and so on, unless ids are given."""
    message_ids = [f"m{place}" for place in range(len(bodies))] if ids is None else ids
    lines = [
        (message_id, sent_at, receive_count, text)
        for message_id, text in zip(message_ids, bodies, strict=True)
    ]
    return pl.DataFrame(lines, schema=RAW_SCHEMA, orient="row")


def siv_keyset(key: bytes, key_id: int, prefix: str = "TINK") -> str:
    """An AES-SIV keyset with one given key, written by hand as Tink's JSON."""
    length_of_key_value = bytes([0x12, len(key)])
    return json.dumps(
        {
            "primaryKeyId": key_id,
            "key": [
                {
                    "keyData": {
                        "typeUrl": "type.googleapis.com/google.crypto.tink.AesSivKey",
                        "value": b64encode(length_of_key_value + key).decode(),
                        "keyMaterialType": "SYMMETRIC",
                    },
                    "status": "ENABLED",
                    "keyId": key_id,
                    "outputPrefixType": prefix,
                }
            ],
        }
    )


def rotated(keyset: str, name: str) -> str:
    """The keyset with a new primary key, the old ones kept for reading."""
    old, new = json.loads(keyset), json.loads(new_keyset(name))
    return json.dumps(new | {"key": old["key"] + new["key"]})


def new_keysets() -> dict[str, str]:
    """One new keyset for each name."""
    return {name: new_keyset(name) for name in KEYSET_NAMES}


@cache
def keysets() -> tuple[tuple[str, str], ...]:
    """The keysets that most tests share."""
    return tuple(new_keysets().items())


@cache
def keyring() -> Keyring:
    """The keyring that most tests share."""
    return open_keyring(dict(keysets()))


@cache
def strangers_keyring() -> Keyring:
    """A keyring of someone else."""
    return open_keyring(new_keysets())


def shown(error: BaseException) -> str:
    """All that a log, a traceback or a debugger shows of an exception."""
    texts = [*traceback.format_exception(error), repr(error), str(error)]
    if error.__cause__ is not None:
        texts.append(shown(error.__cause__))
    if error.__context__ is not None and not error.__suppress_context__:
        texts.append(shown(error.__context__))
    return "\n".join(texts)
