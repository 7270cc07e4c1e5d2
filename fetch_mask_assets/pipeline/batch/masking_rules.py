"""The rules that a masked batch must keep, as data.

One tuple gives the asset checks their specs and their results, and the write path its refusal,
so that none of them can disagree with another.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import zlib
from base64 import b16encode, b32encode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote

import polars as pl

from fetch_mask_assets.errors import TokenError
from fetch_mask_assets.keys.keyset import FieldMasker, Keyring, Sealer
from fetch_mask_assets.masking.fields import MASKED_FIELDS, MaskedField
from fetch_mask_assets.masking.token import parse_token
from fetch_mask_assets.pipeline.batch.frames import LOGIN_COLUMNS, MASKED_SCHEMA
from fetch_mask_assets.pipeline.contract.login_event import MIN_REVEALING_LENGTH, repeats
from fetch_mask_assets.pipeline.contract.rejection import Reason

DIGEST_SAMPLE = 256
"""Distinct values of each field whose digests are looked for; digests are the code's, not the
values', so a few tell of all."""


MIN_LENGTH_IN_TOKEN = 12
"""Shorter forms occur in a token by chance, and a token is for ever: its message would be refused
each time, and its batch with it."""


MAX_QUARANTINED_VIOLATIONS = 10
"""More lines than this in one batch that break a rule are a fault of the masking, not of lines."""

_LINE = "__line__"


class Pair(NamedTuple):
    """A value that a batch holds, in its text and its canonical form, and a token of it."""

    original: str
    canonical: bytes
    token: str


@dataclass(frozen=True)
class MaskedBatch:
    """What the rules look at: the raw and the masked frame of one batch, and the keys.

    Without slots: what several rules need is worked out once and kept.
    """

    raw: pl.DataFrame
    masked: pl.DataFrame
    keyring: Keyring

    @cached_property
    def logins(self) -> pl.DataFrame:
        """The masked logins with what they were made of, read from the bodies a second way.

        Lines that are none, which another rule tells, are left out.
        """
        logins = self.lines.filter(pl.col("reason").is_null())
        events = [_strings(body) for body in logins["body"]]
        names = [f"original_{field.name}" for field in MASKED_FIELDS]
        columns = [
            pl.Series(name, [event.get(field.name) for event in events], pl.String)
            for name, field in zip(names, MASKED_FIELDS, strict=True)
        ]
        return logins.drop("body").with_columns(columns).drop_nulls(names)

    @cached_property
    def lines(self) -> pl.DataFrame:
        """The masked lines beside their bodies, as far as both frames reach."""
        height = min(self.raw.height, self.masked.height)
        lines = complete(self.masked).head(height)
        return lines.with_columns(body=self.raw["body"].head(height)).with_row_index(_LINE)

    @cached_property
    def pairs(self) -> dict[str, list[Pair]]:
        """For each field by name, its distinct pairs of value and token."""
        return {field.name: _pairs(self.logins, field) for field in MASKED_FIELDS}

    @cached_property
    def genuine(self) -> dict[str, frozenset[Pair]]:
        """For each field by name, its pairs whose token opens to the value."""
        return {
            masker.field.name: frozenset(
                pair for pair in self.pairs[masker.field.name] if _unmasks(masker, pair)
            )
            for masker in self.keyring.maskers
        }


def complete(masked: pl.DataFrame) -> pl.DataFrame:
    """The columns of the schema; those that are lost or retyped, which another rule tells, null."""
    return masked.with_columns(
        pl.lit(None, kind).alias(name)
        for name, kind in MASKED_SCHEMA.items()
        if masked.schema.get(name) != kind
    )


def _strings(body: str) -> dict[str, str]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    members = event.items() if isinstance(event, dict) else ()
    return {name: value for name, value in members if isinstance(value, str)}


def _pairs(logins: pl.DataFrame, field: MaskedField) -> list[Pair]:
    distinct = logins.select(f"original_{field.name}", field.column).drop_nulls().unique()
    return [
        Pair(original, canonical, token)
        for original, token in distinct.iter_rows()
        if (canonical := _canonical(field, original)) is not None
    ]


def _canonical(field: MaskedField, original: str) -> bytes | None:
    try:
        return field.canonical(original)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class MaskingRule:
    """A rule: its name, what it says, what to do when it is broken, and how often it is.

    `lines` gives the numbers of all lines that break it, for a rule that speaks of each line by
    itself; None for one that speaks of the batch or of the masking as a whole.
    """

    name: str
    description: str
    remedy: str
    count_broken: Callable[[MaskedBatch], int]
    lines: Callable[[MaskedBatch], Iterable[int]] | None = None


def broken_rules(batch: MaskedBatch) -> dict[str, int]:
    """The rules that a batch breaks, with how many lines, tokens or values break each."""
    counts = {rule.name: rule.count_broken(batch) for rule in MASKING_RULES}
    return {name: count for name, count in counts.items() if count}


def quarantine_violations(batch: MaskedBatch) -> pl.DataFrame:
    """The masked frame with the few lines that break a rule turned into rejections.

    Their sealed bodies go to the quarantine, under the rule's name. The frame stays as it is, so
    that the rules refuse it, where it cannot be the lines' own fault: more than
    `MAX_QUARANTINED_VIOLATIONS` of them or more than half of the logins, or frames that do
    not fit each other.
    """
    if batch.masked.is_empty() or _unaccounted(batch) or _foreign_columns(batch):
        return batch.masked
    broken = {line: rule.name for rule in MASKING_RULES if rule.lines for line in rule.lines(batch)}
    if not broken or len(broken) > min(MAX_QUARANTINED_VIOLATIONS, batch.logins.height // 2):
        return batch.masked
    return _as_rejections(batch, broken)


def quarantined_violation_count(masked: pl.DataFrame, rule: MaskingRule) -> int:
    """How many lines of a masked frame were set aside for a rule."""
    lines = complete(masked)
    return lines.filter(reason=Reason.BREAKS_MASKING_RULE.value, field=rule.name).height


def _as_rejections(batch: MaskedBatch, broken: Mapping[int, str]) -> pl.DataFrame:
    numbers = sorted(broken)
    lines = batch.masked[numbers]
    messages = batch.raw[numbers].select("body", "message_id").iter_rows()
    rejections = lines.with_columns(
        *(pl.lit(None, MASKED_SCHEMA[name]).alias(name) for name in {*_TOKENS, *_OF_LOGINS}),
        reason=pl.lit(Reason.BREAKS_MASKING_RULE.value),
        field=pl.Series([broken[number] for number in numbers], dtype=pl.String),
        sealed_body=pl.Series([batch.keyring.sealer.seal(*each) for each in messages]),
    )
    places = {number: place for place, number in enumerate(numbers)}
    height = batch.masked.height
    both = pl.concat([batch.masked, rejections])
    return both[[height + places[n] if n in places else n for n in range(height)]]


def _unaccounted(batch: MaskedBatch) -> int:
    received: list[str] = batch.raw["message_id"].to_list()
    kept: list[str] = complete(batch.masked)["message_id"].to_list()
    strangers = sum(one != other for one, other in zip(received, kept, strict=False))
    neither_or_both = complete(batch.masked).filter(_IS_LOGIN == _IS_REJECT).height
    return abs(len(received) - len(kept)) + strangers + neither_or_both


_TOKENS = [field.column for field in MASKED_FIELDS]
_OF_LOGINS = [*LOGIN_COLUMNS, "app_version_text", "extra_fields"]
_IS_LOGIN = pl.all_horizontal(
    pl.col(_TOKENS).is_not_null(), pl.col("reason", "sealed_body").is_null()
)
_IS_REJECT = pl.all_horizontal(
    pl.col(_OF_LOGINS).is_null(), pl.col("reason", "sealed_body").is_not_null()
)


def _foreign_columns(batch: MaskedBatch) -> int:
    kept = dict(batch.masked.schema)
    return len(kept.items() ^ dict(MASKED_SCHEMA).items())


def _raw_values(batch: MaskedBatch) -> int:
    return len(_raw_value_lines(batch))


def _raw_value_lines(batch: MaskedBatch) -> list[int]:
    """The line of each raw value that is found."""
    # SQS gave the message id: what it repeats is chance.
    texts = [
        name
        for name, kind in batch.masked.schema.items()
        if kind == pl.String and name != "message_id"
    ]
    return [line for text in texts for line in _raw_values_in(_suspect_lines(batch, text), text)]


def _suspect_lines(batch: MaskedBatch, text: str) -> pl.DataFrame:
    """The logins whose text may be a raw value; tokens without the prefix, which is ours.

    A token that opens to its value is none, whatever it repeats: a sender who knows a token could
    otherwise send a piece of it as a device id, and have the whole batch refused for ever.
    """
    for masker in batch.keyring.maskers:
        if text == masker.field.column:
            genuine = [pair.token for pair in batch.genuine[masker.field.name]]
            other = ~pl.col(text).is_in(genuine)
            bare = pl.col(text).str.strip_prefix(masker.field.token_prefix)
            return batch.logins.filter(other).with_columns(bare)
    return batch.logins


def _raw_values_in(lines: pl.DataFrame, text: str) -> Iterator[int]:
    for field in MASKED_FIELDS:
        yield from lines.filter(_repeats(pl.col(text), pl.col(f"original_{field.name}")))[_LINE]
    yield from _respelled(lines, text)


def _respelled(lines: pl.DataFrame, text: str) -> list[int]:
    """The lines whose text is their IP in another spelling."""
    similar = lines.filter(
        pl.col(text).str.contains(r"^[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*$"),
        ~_repeats(pl.col(text), pl.col("original_ip")),
    )
    columns = similar.select(_LINE, text, "original_ip")
    return [line for line, clear, masked in columns.iter_rows() if repeats(clear, masked)]


def _repeats(clear: pl.Expr, masked: pl.Expr) -> pl.Expr:
    telling = masked.str.len_chars() >= MIN_REVEALING_LENGTH
    return (clear == masked) | (telling & clear.str.contains(masked, literal=True))


def _malformed_tokens(batch: MaskedBatch) -> int:
    return sum(len(_malformed(batch.masked, masker)) for masker in batch.keyring.maskers)


def _malformed_lines(batch: MaskedBatch) -> Iterator[int]:
    for masker in batch.keyring.maskers:
        malformed = pl.col(masker.field.column).is_in(_malformed(batch.masked, masker))
        yield from batch.lines.filter(malformed)[_LINE]


def _malformed(masked: pl.DataFrame, masker: FieldMasker) -> list[str]:
    tokens = _distinct(complete(masked)[masker.field.column])
    return [token for token in tokens if not _is_well_formed(masker, token)]


def _is_well_formed(masker: FieldMasker, token: str) -> bool:
    try:
        return parse_token(masker.field, token).key_id == masker.primary_key_id
    except TokenError:
        return False


def _unequal_groups(batch: MaskedBatch) -> int:
    return sum(_ambiguous(pairs) for pairs in batch.pairs.values())


def _ambiguous(pairs: list[Pair]) -> int:
    """How many more pairs there are than values, and than tokens: 0 if it is one to one."""
    values = {pair.canonical for pair in pairs}
    tokens = {pair.token for pair in pairs}
    return 2 * len({pair[1:] for pair in pairs}) - len(values) - len(tokens)


def _unopened_tokens(batch: MaskedBatch) -> int:
    return sum(
        len(batch.pairs[masker.field.name]) - len(batch.genuine[masker.field.name])
        for masker in batch.keyring.maskers
    )


def _unopened_lines(batch: MaskedBatch) -> Iterator[int]:
    if not _unopened_tokens(batch):
        return
    for masker in batch.keyring.maskers:
        name, column = masker.field.name, masker.field.column
        unopened = {pair[::2] for pair in batch.pairs[name] if not _unmasks(masker, pair)}
        for line, *pair in batch.logins.select(_LINE, f"original_{name}", column).iter_rows():
            if tuple(pair) in unopened:
                yield line


def _unmasks(masker: FieldMasker, pair: Pair) -> bool:
    try:
        return masker.decrypt(pair.token) == pair.canonical
    except TokenError:
        return False


def _revealing_tokens(batch: MaskedBatch) -> int:
    return sum(
        _tells(masker, pair, is_genuine=pair in batch.genuine[masker.field.name])
        for masker in batch.keyring.maskers
        for pair in batch.pairs[masker.field.name][:DIGEST_SAMPLE]
    )


def _tells(masker: FieldMasker, pair: Pair, *, is_genuine: bool) -> bool:
    text = pair.token.removeprefix(masker.field.token_prefix)
    haystacks = [text.encode(), text.lower().encode(), *_opened(pair.token, masker)]
    # In a genuine token a short form is chance; elsewhere it is a finding.
    shortest = MIN_LENGTH_IN_TOKEN if is_genuine else MIN_REVEALING_LENGTH
    return any(
        len(form) >= shortest and form in haystack
        for value in (pair.original.encode(), pair.canonical)
        for form in _unkeyed_forms(value)
        for haystack in haystacks
    )


def _opened(token: str, masker: FieldMasker) -> list[bytes]:
    try:
        return [parse_token(masker.field, token).ciphertext]
    except TokenError:
        return []


def _unkeyed_forms(value: bytes) -> Iterator[bytes]:
    """The digests and encodings of a value that need no key."""
    text = value.decode("latin-1")
    for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2s"):
        digest = hashlib.new(name, value, usedforsecurity=False).digest()
        yield from (digest, digest.hex().encode(), b64encode(digest).rstrip(b"="))
        yield urlsafe_b64encode(digest).rstrip(b"=")
    yield f"{zlib.crc32(value):08x}".encode()
    yield from (value, value[::-1], value.hex().encode(), b16encode(value).lower())
    yield from (b64encode(value).rstrip(b"="), urlsafe_b64encode(value).rstrip(b"="))
    yield from (b32encode(value).rstrip(b"="), quote(text).encode())
    yield codecs.encode(text, "rot13").encode()


def _unopened_bodies(batch: MaskedBatch) -> int:
    sealed = batch.lines.select("sealed_body", "message_id", "body").drop_nulls()
    return sum(not _opens_to(batch.keyring.sealer, *line) for line in sealed.iter_rows())


def _opens_to(sealer: Sealer, sealed: bytes, message_id: str, body: str) -> bool:
    try:
        return sealer.open(sealed, message_id) == body
    except TokenError:
        return False


def _distinct(column: pl.Series) -> list[str]:
    return column.drop_nulls().unique().to_list()


MASKING_RULES = (
    MaskingRule(
        "every_message_accounted_for",
        "Each message received is one line: a masked login, or a reason with the sealed body.",
        "Nothing was written; the messages are back on the queue. This is a defect of the"
        " pipeline: stop the sensor and report it.",
        _unaccounted,
    ),
    MaskingRule(
        "no_foreign_column",
        "The masked frame has the columns of its schema and no others.",
        "Nothing was written. A change to the masking added, lost or retyped a column: revert it.",
        _foreign_columns,
    ),
    MaskingRule(
        "no_raw_value",
        "No text of a masked login is, or holds, its own IP or device id.",
        "Nothing was written. A change to the contract or the masking lets raw values through:"
        " revert it.",
        _raw_values,
        _raw_value_lines,
    ),
    MaskingRule(
        "tokens_well_formed",
        "Every token has its field's form and is under that field's primary key.",
        "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
        _malformed_tokens,
        _malformed_lines,
    ),
    MaskingRule(
        "equal_stays_equal",
        "One value has one token, and one token stands for one value.",
        "Nothing was written. The masking is not deterministic: revert the last change to it.",
        _unequal_groups,
    ),
    MaskingRule(
        "tokens_unmask",
        "Every token gives its original back.",
        "Nothing was written. Compare the keysets with the key registry (fetch-mask doctor).",
        _unopened_tokens,
        _unopened_lines,
    ),
    MaskingRule(
        "tokens_opaque",
        "No token holds an unkeyed digest or an encoding of its value.",
        "Nothing was written. The masking is reversible without the key: revert the change.",
        _revealing_tokens,
    ),
    MaskingRule(
        "sealed_bodies_open",
        "Every sealed body gives back the body of its message.",
        "Nothing was written. A change to the sealing would lose or show rejected messages:"
        " revert it.",
        _unopened_bodies,
    ),
)
