"""A good batch breaks no rule; whatever sabotage is done to it, a rule says so."""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Sequence

import polars as pl
import pytest

from fetch_mask_assets.keys.keyset import open_keyring
from fetch_mask_assets.pipeline.batch import raw_value_rule
from fetch_mask_assets.pipeline.batch.frames import mask_batch
from fetch_mask_assets.pipeline.batch.masked_batch import MaskedBatch
from fetch_mask_assets.pipeline.batch.masking_rules import (
    MASKING_RULES,
    MAX_QUARANTINED_VIOLATIONS,
    broken_rules,
    quarantine_violations,
    quarantined_violation_count,
)
from fetch_mask_assets_tests.support.factories import (
    body,
    keyring,
    new_keysets,
    raw_batch,
    rotated,
    strangers_keyring,
)

Sabotage = Callable[[pl.DataFrame], pl.DataFrame]

# m0 and m3 share an IP, m1 and m3 a device id; m2 is a reject.
BODIES = (
    body(user_id="u-0", ip="192.0.2.10", device_id="device-00"),
    body(user_id="u-1", ip="2001:db8::7", device_id="device-01"),
    body(user_id="u-2", ip="bad address"),
    body(user_id="u-3", ip="192.0.2.10", device_id="device-01"),
)


def _good(bodies: Sequence[str] = BODIES) -> MaskedBatch:
    raw = raw_batch(bodies)
    return MaskedBatch(raw, mask_batch(raw, keyring()), keyring())


def _broken(sabotage: Sabotage) -> dict[str, int]:
    good = _good()
    return broken_rules(MaskedBatch(good.raw, sabotage(good.masked), good.keyring))


def _with(column: str, line: int, value: object) -> Sabotage:
    """Puts a value into one cell."""

    def sabotage(masked: pl.DataFrame) -> pl.DataFrame:
        cells = masked[column].to_list()
        cells[line] = value
        return masked.with_columns(pl.Series(column, cells, masked.schema[column]))

    return sabotage


def _like(digest: bytes, field: str = "ip") -> str:
    """A digest dressed as a token under the primary key."""
    masker = keyring().masker(field)
    prefix = b"\1" + masker.primary_key_id.to_bytes(4, "big")
    padded = digest.ljust(max(32, -(-len(digest) // 16) * 16), b"\0")
    return f"{field}:" + urlsafe_b64encode(prefix + padded).rstrip(b"=").decode()


def _md5(text: str) -> bytes:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def test_a_good_batch_breaks_no_rule() -> None:
    assert broken_rules(_good()) == {}


@pytest.mark.parametrize(
    "bodies",
    [
        [],
        ["x", "{}"],
        [body(), body(), body()],
        [body(ip="::"), body(ip="1.1.1.1"), body(ip="::1", device_id="1")],
        [body(ip="2001:DB8::7"), body(ip="2001:db8:0:0:0:0:0:7"), body(ip="2001:db8::7")],
        [body(ip="192.0.2.1"), body(ip="::ffff:192.0.2.1"), body(ip="::ffff:c000:201")],
        [body(device_id="é" * 64), body(device_id="\t\n\\N"), body(device_id="x" * 128)],
        [body(locale=None, app_version="2.3.0-beta")],
    ],
    ids=["empty", "rejects", "equal", "short", "IPv6", "mapped", "odd ids", "nulls"],
)
def test_no_batch_that_was_masked_breaks_a_rule(bodies: list[str]) -> None:
    actual = broken_rules(_good(bodies))

    assert actual == {}


def test_300_different_logins_break_no_rule() -> None:
    bodies = [body(ip=f"198.51.100.{n % 256}", device_id=f"{n:06}") for n in range(300)]

    actual = broken_rules(_good(bodies))

    assert actual == {}


def test_a_device_id_may_be_another_lines_user_id_or_device_type() -> None:
    bodies = [
        body(user_id="android 14", device_id="android-handset"),
        body(user_id="device-17", device_type="android-handset", device_id="android 14"),
        body(user_id="192.0.2.99", device_id="device-17"),
        body(user_id="u-4", ip="192.0.2.99", device_id="en_US-4"),
        body(user_id="u-5", locale="en_US-4"),
    ]

    actual = broken_rules(_good(bodies))

    assert actual == {}


@pytest.mark.parametrize(
    "device_id", ["device", "device_id", "device_id:", "evice_id:", "vice_id", "masked", "ip:AQE"]
)
def test_a_device_id_that_is_a_part_of_the_tokens_name_breaks_no_rule(device_id: str) -> None:
    """One such message would hold back every batch that it is in, for ever."""
    actual = broken_rules(_good([body(), body(user_id="u-9", device_id=device_id)]))

    assert actual == {}


def test_a_device_id_that_is_a_piece_of_a_known_token_breaks_no_rule() -> None:
    """Who reads the table and sends events could otherwise have whole batches refused for ever."""
    before = _good([body(ip="203.0.113.77")])
    piece = before.masked["masked_ip"][0][8:22]
    raw = raw_batch([body(ip="203.0.113.77", device_id=piece)])
    batch = MaskedBatch(raw, mask_batch(raw, before.keyring), before.keyring)

    assert broken_rules(batch) == {}


def test_a_device_id_that_occurs_in_a_message_id_breaks_no_rule() -> None:
    """Six digits occur in a UUID by chance: about once in half a million messages."""
    raw = raw_batch([body(device_id="481516")], ids=["6f1c1a2e-53c5-4f4e-9a52-0c8b48151611"])

    actual = broken_rules(MaskedBatch(raw, mask_batch(raw, keyring()), keyring()))

    assert actual == {}


def _rule_and_sabotage() -> list[tuple[str, str, Sabotage]]:
    """Rule, what was done, and the doing."""
    ring, stranger = keyring(), strangers_keyring()
    first_ip, other_ip = ring.masker("ip").mask("192.0.2.10"), ring.masker("ip").mask("2001:db8::7")
    of_device = ring.masker("device_id").mask("device-00")
    everywhere: list[tuple[str, str, Sabotage]] = [
        ("every_message_accounted_for", "last line dropped", lambda frame: frame.head(3)),
        ("every_message_accounted_for", "all lines dropped", lambda frame: frame.head(0)),
        ("every_message_accounted_for", "a line doubled", lambda f: pl.concat([f, f.head(1)])),
        ("every_message_accounted_for", "lines turned round", lambda frame: frame.reverse()),
        (
            "every_message_accounted_for",
            "ids swapped",
            lambda frame: frame.with_columns(pl.Series("message_id", ["m1", "m0", "m2", "m3"])),
        ),
        ("every_message_accounted_for", "an id lost", _with("message_id", 0, None)),
        ("every_message_accounted_for", "an id changed", _with("message_id", 0, "m9")),
        ("every_message_accounted_for", "reason lost", _with("reason", 2, None)),
        ("every_message_accounted_for", "sealed body lost", _with("sealed_body", 2, None)),
        ("every_message_accounted_for", "an ip token lost", _with("masked_ip", 0, None)),
        ("every_message_accounted_for", "a device lost", _with("masked_device_id", 0, None)),
        ("every_message_accounted_for", "a login with a reason", _with("reason", 0, "blank")),
        ("no_unexpected_column", "raw ip", lambda frame: frame.with_columns(ip=pl.lit("x"))),
        ("no_unexpected_column", "bytes", lambda frame: frame.with_columns(body=pl.lit(b"x"))),
        ("no_unexpected_column", "lost", lambda frame: frame.drop("locale")),
        ("no_unexpected_column", "token column lost", lambda frame: frame.drop("masked_ip")),
        ("no_unexpected_column", "reason lost", lambda frame: frame.drop("reason")),
        (
            "no_unexpected_column",
            "token column retyped",
            lambda frame: frame.cast({"masked_ip": pl.Binary()}),
        ),
        ("no_unexpected_column", "renamed", lambda frame: frame.rename({"locale": "region"})),
        ("no_unexpected_column", "retyped", lambda f: f.cast({"app_version": pl.Int64()})),
        ("no_raw_value", "ip as user id", _with("user_id", 0, "192.0.2.10")),
        ("no_raw_value", "ip inside", _with("locale", 0, "at 192.0.2.10!")),
        ("no_raw_value", "ip as token", _with("masked_ip", 0, "192.0.2.10")),
        ("no_raw_value", "ip in token", _with("masked_ip", 0, "ip:192.0.2.10")),
        ("no_raw_value", "ipv6 as version", _with("app_version_text", 1, "2001:db8::7")),
        ("no_raw_value", "ipv6 in another spelling", _with("user_id", 1, "2001:DB8:0::7")),
        ("no_raw_value", "mapped ip", _with("user_id", 0, "::ffff:192.0.2.10")),
        ("no_raw_value", "device as type", _with("device_type", 0, "device-00")),
        ("no_raw_value", "device as token", _with("masked_device_id", 0, "device-00")),
        ("no_raw_value", "device as field", _with("field", 0, "device-00")),
        (
            "no_raw_value",
            "column",
            lambda frame: frame.with_columns(x=pl.lit("192.0.2.10")),
        ),
        ("tokens_well_formed", "empty", _with("masked_ip", 0, "")),
        ("tokens_well_formed", "no prefix", _with("masked_ip", 0, first_ip[3:])),
        ("tokens_well_formed", "the other field's", _with("masked_ip", 0, of_device)),
        ("tokens_well_formed", "md5", _with("masked_ip", 0, _md5("192.0.2.10").hex())),
        (
            "tokens_well_formed",
            "prefixed md5",
            _with("masked_ip", 0, "ip:" + _md5("192.0.2.10").hex()),
        ),
        ("tokens_well_formed", "padded", _with("masked_ip", 0, first_ip + "==")),
        (
            "tokens_well_formed",
            "stranger's",
            _with("masked_ip", 0, stranger.masker("ip").mask("192.0.2.10")),
        ),
        (
            "one_token_per_value",
            "two for one",
            _with("masked_ip", 3, stranger.masker("ip").mask("192.0.2.10")),
        ),
        ("one_token_per_value", "one for two", _with("masked_ip", 1, first_ip)),
        ("one_token_per_value", "one of two", _with("masked_ip", 0, other_ip)),
        (
            "one_token_per_value",
            "one for all",
            lambda frame: frame.with_columns(
                masked_device_id=pl.when(pl.col("reason").is_null()).then(pl.lit(of_device))
            ),
        ),
        (
            "tokens_can_be_unmasked",
            "altered",
            _with("masked_ip", 0, first_ip[:30] + "AAAA" + first_ip[34:]),
        ),
        ("tokens_can_be_unmasked", "zeros", _with("masked_ip", 0, _like(bytes(32)))),
        (
            "tokens_can_be_unmasked",
            "another value's",
            _with("masked_ip", 1, ring.masker("ip").mask("::1")),
        ),
        (
            "tokens_can_be_unmasked",
            "other field",
            _with("masked_ip", 0, of_device.replace("device_id", "ip")),
        ),
    ]
    unkeyed = [
        ("md5 hex", _md5("192.0.2.10").hex()),
        ("md5 hex in capitals", _md5("192.0.2.10").hex().upper()),
        ("sha1", hashlib.sha1(b"192.0.2.10", usedforsecurity=False).hexdigest()),
        ("sha256", hashlib.sha256(b"192.0.2.10").hexdigest()),
        ("sha512", hashlib.sha512(b"192.0.2.10").hexdigest()),
        ("crc32", f"{zlib.crc32(b'192.0.2.10'):08x}"),
        ("base64", b64encode(b"192.0.2.10").decode()),
        ("hex", b"192.0.2.10".hex()),
        ("reversed", "01.2.0.291"),
        ("md5 dressed", _like(_md5("192.0.2.10"))),
        ("sha256 dressed", _like(hashlib.sha256(b"192.0.2.10").digest())),
        ("raw dressed", _like(b"192.0.2.10")),
        ("packed dressed", _like(bytes(10) + b"\xff\xff\xc0\0\2\x0a")),
        ("packed md5 dressed", _like(_md5("192.0.2.10") + bytes(16))),
        ("hex dressed", _like(b"192.0.2.10".hex().encode())),
    ]
    everywhere += [
        ("tokens_hold_no_digest", f"{what} {how}", _with("masked_ip", 0, before + text))
        for what, text in unkeyed
        for how, before in (("alone", ""), ("prefixed", "ip:"))
        if how == "alone" or not text.startswith("ip:")
    ]
    return everywhere


@pytest.mark.parametrize(
    ("rule", "sabotage"),
    [
        pytest.param(rule, sabotage, id=f"{rule}-{what}")
        for rule, what, sabotage in _rule_and_sabotage()
    ],
)
def test_a_sabotaged_batch_breaks_its_rule_and_all_rules_can_be_asked(
    rule: str, sabotage: Sabotage
) -> None:
    actual = _broken(sabotage)

    assert actual.get(rule, 0) > 0


@pytest.mark.parametrize(
    ("rule", "sabotage"),
    [
        pytest.param(rule, sabotage, id=f"{rule}-{what}")
        for rule, what, sabotage in _rule_and_sabotage()
    ],
)
def test_a_rule_that_has_rows_has_violations(rule: str, sabotage: Sabotage) -> None:
    """Rows are looked for under the rules alone that have violations."""
    good = _good()
    batch = MaskedBatch(good.raw, sabotage(good.masked), good.keyring)
    broken = broken_rules(batch)

    assert rule in broken
    assert {each.name for each in MASKING_RULES if each.rows and [*each.rows(batch)]} <= set(broken)


@pytest.mark.parametrize("field", ["masked_ip", "masked_device_id"])
def test_tokens_swapped_between_lines_are_found(field: str) -> None:
    good = _good([body(ip="192.0.2.1", device_id="one"), body(ip="192.0.2.2", device_id="two")])
    swapped = good.masked.with_columns(pl.col(field).reverse())

    actual = broken_rules(MaskedBatch(good.raw, swapped, good.keyring))

    assert actual == {"tokens_can_be_unmasked": 2}


@pytest.mark.parametrize("logins_in_part", [1, 2, 3])
@pytest.mark.parametrize("line", [0, 1, 3])
def test_a_raw_value_is_found_in_whatever_part_of_the_batch(
    monkeypatch: pytest.MonkeyPatch, line: int, logins_in_part: int
) -> None:
    monkeypatch.setattr(raw_value_rule, "LOGINS_IN_PART", logins_in_part)
    good = _good()
    device_id = json.loads(BODIES[line])["device_id"]

    leaked = MaskedBatch(good.raw, _with("user_id", line, device_id)(good.masked), good.keyring)
    masked = quarantine_violations(leaked, broken_rules(leaked))

    assert masked["field"].to_list()[line] == "no_raw_value"
    assert quarantined_violation_count(masked, raw_value_rule.NO_RAW_VALUE) == 1
    assert broken_rules(good) == {}


def test_a_token_under_a_retired_key_is_found_though_it_can_be_unmasked() -> None:
    keysets = new_keysets()
    old = open_keyring(keysets)
    new = open_keyring(keysets | {"ip": rotated(keysets["ip"], "ip")})
    raw = raw_batch([body(user_id="u-0"), body(user_id="u-1")])
    masked = _with("masked_ip", 0, old.masker("ip").mask("192.0.2.17"))(mask_batch(raw, new))

    actual = broken_rules(MaskedBatch(raw, masked, new))

    assert actual == {"tokens_well_formed": 1, "one_token_per_value": 1}


def test_a_batch_masked_by_a_stranger_is_found() -> None:
    raw = raw_batch(BODIES)
    masked = mask_batch(raw, strangers_keyring())

    actual = broken_rules(MaskedBatch(raw, masked, keyring()))

    assert actual["tokens_well_formed"] == actual["tokens_can_be_unmasked"] == 4


def test_a_device_id_in_an_unkeyed_digest_is_found() -> None:
    digest = hashlib.sha256(b"device-00").hexdigest()

    actual = _broken(_with("masked_device_id", 0, f"device_id:{digest}"))

    assert actual["tokens_hold_no_digest"] == 1


@pytest.mark.parametrize(
    "sealed",
    [BODIES[2].encode(), b"", keyring().sealer.seal(BODIES[2], "m1"), b64encode(b"bad address")],
    ids=["the body itself", "empty", "sealed for another message", "base64"],
)
def test_a_sealed_body_that_is_not_sealed_breaks_a_rule(sealed: bytes) -> None:
    actual = _broken(_with("sealed_body", 2, sealed))

    assert actual != {}


def test_a_raw_value_beside_a_rejection_breaks_a_rule() -> None:
    """A rejection may become a login when it is replayed."""
    actual = _broken(_with("app_version_text", 2, "593-47-5928"))

    assert actual != {}


def test_a_rule_counts_the_lines_that_break_it() -> None:
    actual = _broken(
        lambda frame: frame.with_columns(
            user_id=pl.Series(["192.0.2.10", "2001:db8::7", None, "device-01"])
        )
    )

    assert actual == {"no_raw_value": 3}


def test_every_rule_has_a_name_of_its_own_says_something_and_knows_a_remedy() -> None:
    names = [rule.name for rule in MASKING_RULES]

    assert len(set(names)) == len(names)
    assert all(
        rule.description.endswith(".") and rule.remedy.endswith(".") for rule in MASKING_RULES
    )
    assert {rule for rule, _, _ in _rule_and_sabotage()} <= set(names)


_LINE_RULES = {"no_raw_value", "tokens_well_formed", "tokens_can_be_unmasked"}


def _many(count: int, sabotage: Sabotage) -> tuple[MaskedBatch, pl.DataFrame]:
    """A batch of so many logins after a sabotage, and what is left of it with lines set aside."""
    good = _good([body(user_id=f"u-{n}", device_id=f"device-{n:02}") for n in range(count)])
    batch = MaskedBatch(good.raw, sabotage(good.masked), good.keyring)
    return batch, quarantine_violations(batch, broken_rules(batch))


def _raw_device_ids(lines: int) -> Sabotage:
    """Puts the device id of the first lines into another column."""
    return lambda frame: frame.with_columns(
        device_type=pl.when(pl.int_range(pl.len()) < lines)
        .then(pl.Series([f"device-{n:02}" for n in range(frame.height)]))
        .otherwise("device_type")
    )


@pytest.mark.parametrize(
    ("rule", "column", "value"),
    [
        ("no_raw_value", "locale", "device-03"),
        ("tokens_well_formed", "masked_device_id", "device_id:x"),
        (
            "tokens_can_be_unmasked",
            "masked_device_id",
            keyring().masker("device_id").mask("another"),
        ),
        ("tokens_well_formed", "masked_ip", _md5("192.0.2.17").hex()),
    ],
    # A name of its own: tokens differ from worker to worker.
    ids=["raw value", "no token", "token of another value", "digest"],
)
def test_a_line_that_alone_breaks_a_rule_is_sealed_and_the_others_stay(
    rule: str, column: str, value: str
) -> None:
    batch, actual = _many(8, _with(column, 3, value))
    others = [n for n in range(8) if n != 3]

    assert rule in broken_rules(batch)
    assert broken_rules(MaskedBatch(batch.raw, actual, batch.keyring)) == {}
    assert actual[others].equals(batch.masked[others])
    line = actual.row(3, named=True)
    assert line["reason"] == "breaks_masking_rule"
    assert line["field"] in broken_rules(batch)
    assert (
        batch.keyring.sealer.open(line["sealed_body"], line["message_id"]) == batch.raw["body"][3]
    )
    kept = {"message_id", "sent_at", "receive_count", "reason", "field", "sealed_body"}
    assert {name for name, cell in line.items() if cell is not None} == kept
    assert sum(quarantined_violation_count(actual, each) for each in MASKING_RULES) == 1


def test_as_many_lines_as_the_cap_are_set_aside_and_one_more_is_not() -> None:
    _, under = _many(40, _raw_device_ids(MAX_QUARANTINED_VIOLATIONS))
    over, unchanged = _many(40, _raw_device_ids(MAX_QUARANTINED_VIOLATIONS + 1))

    assert under["reason"].count() == MAX_QUARANTINED_VIOLATIONS
    assert unchanged.equals(over.masked)


@pytest.mark.parametrize(("broken", "expected"), [(1, 1), (2, 2), (3, 0), (4, 0)])
def test_more_than_half_of_a_small_batch_is_a_fault_of_the_masking(
    broken: int, expected: int
) -> None:
    _, actual = _many(4, _raw_device_ids(broken))

    assert actual["reason"].count() == expected


def test_a_single_login_is_never_set_aside() -> None:
    batch, actual = _many(1, _with("locale", 0, "device-00"))

    assert actual.equals(batch.masked)
    assert broken_rules(batch) == {"no_raw_value": 1}


@pytest.mark.parametrize(
    ("rule", "sabotage"),
    [
        pytest.param(rule, sabotage, id=f"{rule}-{what}")
        for rule, what, sabotage in _rule_and_sabotage()
        if rule not in _LINE_RULES
    ],
)
def test_what_speaks_of_the_batch_or_the_masking_is_set_aside_with_its_line_or_not_at_all(
    rule: str, sabotage: Sabotage
) -> None:
    """What is left keeps every rule, or it is left as it was and refused."""
    good = _good()
    batch = MaskedBatch(good.raw, sabotage(good.masked), good.keyring)
    actual = quarantine_violations(batch, broken_rules(batch))
    left = broken_rules(MaskedBatch(batch.raw, actual, batch.keyring))

    assert left == {} or actual.equals(batch.masked)
    assert rule not in {"every_message_accounted_for", "no_unexpected_column"} or left


def test_a_token_that_tells_something_under_a_genuine_key_fails_the_batch() -> None:
    """Digests are looked for in a sample: one that is found speaks for others that are not."""
    telling = next(rule for rule in MASKING_RULES if rule.name == "tokens_hold_no_digest")

    assert telling.rows is None
    assert {rule.name for rule in MASKING_RULES if rule.rows} == _LINE_RULES


def test_a_line_is_set_aside_at_each_of_its_deliveries() -> None:
    raw = raw_batch(
        [body(user_id=f"u-{n % 4}") for n in range(8)], ids=[f"m{n % 4}" for n in range(8)]
    )
    masked = mask_batch(raw, keyring())
    twice = _with("masked_ip", 5, "ip:x")(_with("masked_ip", 1, "ip:x")(masked))

    batch = MaskedBatch(raw, twice, keyring())
    actual = quarantine_violations(batch, broken_rules(batch))

    assert broken_rules(MaskedBatch(raw, actual, keyring())) == {}
    assert actual["reason"].to_list().count("breaks_masking_rule") == 2
