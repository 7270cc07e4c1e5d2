"""Masking of a field's values into tokens, and sealing of message bodies.

Masking is AES-256-SIV (RFC 5297), sealing AES-256-GCM, both by Google Tink. Columns are masked by
`SivColumns`, and a sample of every column is compared with Tink.
Source: https://developers.google.com/tink/deterministic-aead
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import polars as pl
import tink
from tink import aead, daead

from fetch_mask_assets.errors import KeysetError, TokenError
from fetch_mask_assets.keys.siv_columns import SivColumns
from fetch_mask_assets.masking.canonical_columns import canonical_column
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.masking.token import format_token, parse_token
from fetch_mask_assets.masking.token_columns import format_tokens, parse_tokens

SAMPLE_SIZE = 64
"""The number of distinct values of a column that are compared with Tink, besides one of each
length. A mistake in the code of the cipher shows with every value of a length, so a sample finds
it."""


@dataclass(frozen=True, slots=True)
class FieldMasker:
    """Masks the values of one field, and unmasks its tokens.

    `_primitive` is Tink's primitive over the whole keyset. By key id, `_under` are those of the
    enabled keys, `_retired` those of the disabled keys, and `_columns` the ciphers over columns of
    the enabled keys.
    """

    field: MaskedField
    primary_key_id: int
    check_values: Mapping[int, bytes] = dataclass_field(repr=False)
    _primitive: daead.DeterministicAead = dataclass_field(repr=False)
    _under: Mapping[int, daead.DeterministicAead] = dataclass_field(repr=False)
    _retired: Mapping[int, daead.DeterministicAead] = dataclass_field(repr=False)
    _columns: Mapping[int, SivColumns] = dataclass_field(repr=False)

    def mask(self, value: str) -> str:
        """The token of a value under the primary key."""
        return self._token(self._primitive, value)

    def mask_under(self, key_id: int, value: str) -> str:
        """The token of a value under one of the keyset's enabled keys, primary or not.

        Raises:
            KeysetError: the keyset has no such key, or it is disabled.
        """
        if key_id not in self._under:
            raise KeysetError(f"the keyset of {self.field.name} has no enabled key {key_id}.")
        return self._token(self._under[key_id], value)

    def tokens_of(self, value: str) -> frozenset[str]:
        """The tokens of a value under every key of the keyset, disabled ones included.

        A disabled key can be enabled again, and its tokens would then open.
        """
        primitives = (*self._under.values(), *self._retired.values())
        return frozenset(self._token(primitive, value) for primitive in primitives)

    @property
    def all_key_ids(self) -> frozenset[int]:
        """The ids of all keys of the keyset, disabled ones included."""
        return frozenset((*self._under, *self._retired))

    def mask_column(self, values: pl.Series) -> pl.Series:
        """The token of each value under the primary key; each distinct value is encrypted once.

        Args:
            values: texts; null stays null.

        Raises:
            ValueError: a value is not of the field's form; carries no value.
            KeysetError: Tink gives another token for a value of the sample.
        """
        distinct = values.drop_nulls().unique()
        canonical = canonical_column(self.field.form, distinct)
        if canonical.has_nulls():
            raise ValueError(f"a value of {self.field.name} is not {self.field.form.name}")
        rows = _sample(canonical.bin.size())
        self._compare(map(self.field.form.to_bytes, distinct.gather(rows)), canonical.gather(rows))
        return _looked_up(values, distinct, self.encrypt_column(self.primary_key_id, canonical))

    def encrypt_column(self, key_id: int, canonical: pl.Series) -> pl.Series:
        """The token of each canonical value under an enabled key.

        Args:
            key_id: the id of one of the keyset's enabled keys, primary or not.
            canonical: binary, without nulls; each is encrypted, so give distinct ones.

        Raises:
            KeysetError: Tink gives another token for a value of the sample.
        """
        sealed = self._columns[key_id].encrypt(canonical.to_list())
        tokens = format_tokens(self.field, key_id, pl.Series(sealed, dtype=pl.Binary))
        rows, tinks = _sample(canonical.bin.size()), self._under[key_id]
        by_tink = (self._encrypted(tinks, value) for value in canonical.gather(rows))
        self._compare(by_tink, tokens.gather(rows))
        return tokens

    def open_column(self, tokens: pl.Series) -> pl.DataFrame:
        """The key id and the canonical value behind each token.

        Args:
            tokens: texts, tokens or not; each is decrypted, so give distinct ones.

        Returns:
            The columns `key_id`, null for a text that is not a token of this field, and
            `canonical`, null for one that is not genuine under an enabled key. The rows are
            in the order of the tokens.

        Raises:
            KeysetError: Tink gives another value for a token of the sample.
        """
        opened = parse_tokens(self.field, tokens)
        values: list[bytes | None] = [None] * len(tokens)
        for key_id, cipher in self._columns.items():
            own = (opened["key_id"] == key_id).arg_true()
            sealed = opened["sealed"].gather(own).to_list()
            for row, value in zip(own.to_list(), cipher.decrypt(sealed), strict=True):
                values[row] = value
        canonical = pl.Series("canonical", values, pl.Binary)
        rows = _sample(tokens.str.len_bytes())
        self._compare(map(self._opened, tokens.gather(rows)), canonical.gather(rows))
        return opened.select("key_id", canonical)

    def unmask(self, token: str) -> str:
        """The original behind a token.

        Raises:
            TokenError: not a token of this field, of a key the keyset lacks, or altered.
        """
        try:
            return self.field.form.to_text(self.decrypt(token))
        except ValueError:
            raise self._foreign() from None

    def decrypt(self, token: str) -> bytes:
        """The canonical value behind a token.

        Raises:
            TokenError: not a token of this field, of a key the keyset lacks, or altered.
        """
        parsed = parse_token(self.field, token)
        if parsed.key_id not in self.check_values:
            raise TokenError(f"key {parsed.key_id} is not in the keyset of {self.field.name}.")
        data = self.field.associated_data
        try:
            return self._primitive.decrypt_deterministically(parsed.ciphertext, data)
        except tink.TinkError:
            raise self._foreign() from None

    def _compare(self, expected: Iterable[str | bytes | None], actual: pl.Series) -> None:
        if list(expected) != actual.to_list():
            raise KeysetError(
                f"a column of {self.field.name} was not masked or opened as Tink does it for one"
                " value. Nothing was written. This is a defect of the program or of a library: stop"
                " the sensor and report it."
            )

    def _opened(self, token: str | None) -> bytes | None:
        try:
            return None if token is None else self.decrypt(token)
        except TokenError:
            return None

    def _token(self, primitive: daead.DeterministicAead, value: str) -> str:
        return self._encrypted(primitive, self.field.form.to_bytes(value))

    def _encrypted(self, primitive: daead.DeterministicAead, canonical: bytes) -> str:
        data = self.field.associated_data
        return format_token(self.field, primitive.encrypt_deterministically(canonical, data))

    def _foreign(self) -> TokenError:
        return TokenError(f"an altered or foreign token of {self.field.name}.")


def _sample(lengths: pl.Series) -> list[int]:
    """The rows of the sample: evenly spaced, and the first of each length."""
    spacing = max(1, len(lengths) // SAMPLE_SIZE)
    return sorted({*range(0, len(lengths), spacing), *lengths.arg_unique()})


def _looked_up(keys: pl.Series, known: pl.Series, results: pl.Series) -> pl.Series:
    """The result for each key by the distinct known keys; null stays null."""
    pairs = pl.DataFrame({"key": known, "result": results})
    found = keys.to_frame("key").join(pairs, on="key", how="left", maintain_order="left")
    return found["result"].alias(keys.name)


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals message bodies, each bound to its message id."""

    primary_key_id: int
    check_values: Mapping[int, bytes] = dataclass_field(repr=False)
    _primitive: aead.Aead = dataclass_field(repr=False)

    def seal(self, body: str, message_id: str) -> bytes:
        """The sealed body (AES-256-GCM under Tink's prefix)."""
        text = body.encode("utf-8", "surrogatepass")
        return self._primitive.encrypt(text, _seal_data(message_id))

    def open(self, sealed: bytes, message_id: str) -> str:
        """The body that was sealed for this message id.

        Raises:
            TokenError: altered, sealed for another message, or under a key the keyset lacks.
        """
        try:
            text = self._primitive.decrypt(sealed, _seal_data(message_id))
        except tink.TinkError:
            raise TokenError("the sealed body does not open for this message and keyset.") from None
        return text.decode("utf-8", "surrogatepass")


def _seal_data(message_id: str) -> bytes:
    return f"login_ingest/quarantine/{message_id}".encode()
