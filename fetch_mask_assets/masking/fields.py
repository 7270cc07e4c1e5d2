"""The fields of the login event, each declared once.

From `FIELDS` follow the contract, the frames, the maskers and their keysets, the rules, the
commands and the documentation of the columns. The database has the same fields in
login_ingest.login_column and login_ingest.masked_field; CONTRIBUTING.md describes how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fetch_mask_assets.masking.canonical import IP_ADDRESS, TEXT, CanonicalForm
from fetch_mask_assets.masking.version_number import version_number

MAX_TOKEN_LENGTH = 256
"""The width of a column of tokens, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearField:
    """A field that the table holds as it came, or as a number.

    `max_length` is in characters. `number` gives the integer that the column holds instead of the
    text, or None for a text that has none.
    """

    name: str
    max_length: int
    description: str
    is_required: bool = True
    number: Callable[[str], int | None] | None = None

    @property
    def column(self) -> str:
        """The column of `user_logins` that holds the value."""
        return self.name

    @property
    def sql_type(self) -> str:
        """The type of the column in Postgres."""
        return "integer" if self.number else f"varchar({self.max_length})"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedField:
    """A field that the table holds as a token.

    `max_length` is in characters. `label` names one value in a sentence. `singular` and `plural`
    are its names in the names of views and of counts, such as `repeated_devices`.
    """

    name: str
    max_length: int
    form: CanonicalForm
    label: str
    singular: str
    plural: str
    is_required: bool = True

    @property
    def column(self) -> str:
        """The column of `user_logins` that holds the token."""
        return f"masked_{self.name}"

    @property
    def sql_type(self) -> str:
        """The type of the column in Postgres."""
        return f"varchar({MAX_TOKEN_LENGTH})"

    @property
    def description(self) -> str:
        """The documentation of the column."""
        return (
            f"Token of the {self.label}: equal values have equal tokens under one key."
            " Null if erased."
        )

    @property
    def option(self) -> str:
        """The option of the command line that names the field."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def token_prefix(self) -> str:
        """The first characters of every token of this field."""
        return f"{self.name}:"

    @property
    def associated_data(self) -> bytes:
        """Bound into each token, so that none can pass for another field's (RFC 5297, 2.6)."""
        return f"user_logins/{self.name}".encode()


USER_ID = ClearField(name="user_id", max_length=128, description="The user, as the app sent it.")
IP = MaskedField(name="ip", max_length=45, form=IP_ADDRESS, label="IP", singular="IP", plural="IPs")
DEVICE_ID = MaskedField(
    name="device_id",
    max_length=128,
    form=TEXT,
    label="device id",
    singular="device",
    plural="devices",
)

FIELDS: tuple[ClearField | MaskedField, ...] = (
    USER_ID,
    ClearField(
        name="app_version",
        max_length=256,
        description="major * 1,000,000 + minor * 1,000 + patch; null if the version has no such"
        " number. Sort and compare by it.",
        number=version_number,
    ),
    ClearField(
        name="device_type", max_length=32, description="The kind of device, as the app sent it."
    ),
    IP,
    ClearField(name="locale", max_length=32, description="The locale, or null.", is_required=False),
    DEVICE_ID,
)
"""In the order in which the contract checks them."""


def _column_order(field: ClearField | MaskedField) -> tuple[bool, bool]:
    is_number = isinstance(field, ClearField) and field.number is not None
    return is_number, not field.is_required


COLUMN_FIELDS = tuple(sorted(FIELDS, key=_column_order))
"""In the order of the columns: required texts, optional texts, numbers."""

FIELD_NAMES = tuple(field.name for field in FIELDS)
CLEAR_FIELDS = tuple(field for field in FIELDS if isinstance(field, ClearField))
MASKED_FIELDS = tuple(field for field in FIELDS if isinstance(field, MaskedField))

CLEAR_COLUMNS = (
    *(field.column for field in COLUMN_FIELDS if isinstance(field, ClearField)),
    "create_date",
)
"""The columns of `user_logins` that hold no token."""


def masked_field(name: str) -> MaskedField:
    """The masked field of a name.

    Raises:
        KeyError: there is none.
    """
    return _MASKED[name]


_MASKED = {field.name: field for field in MASKED_FIELDS}
