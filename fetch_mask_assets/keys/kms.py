"""Keysets wrapped under a key of AWS KMS.

A wrapped keyset is Tink's encrypted keyset in JSON. The encryption context binds it to its name, so
a keyset cannot replace another one. Source: https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import tink
from tink import aead, secret_key_access
from tink import json_proto_keyset_format as json_format

from fetch_mask_assets.aws import connect_aws, translate_aws_errors
from fetch_mask_assets.errors import KeysetError

PURPOSE = "fetch_mask_assets/masking"

_MISMATCH = "It was wrapped for another keyset or under another KMS key, or it was altered."
_REMEDIES = {
    "InvalidCiphertextException": _MISMATCH,
    "IncorrectKeyException": _MISMATCH,
    "NotFoundException": "The key does not exist: check MASKING_KMS_KEY and AWS_DEFAULT_REGION.",
    "DisabledException": "Enable the KMS key.",
    "KMSInvalidStateException": "The KMS key is scheduled for deletion or not ready: check its"
    " state.",
    "ValidationException": "Check MASKING_KMS_KEY, and the size of the keyset: KMS encrypts at most"
    " 4096 bytes, which is 30 keys of a masked field.",
}


@dataclass(frozen=True, slots=True)
class KmsWrapping:
    """Wraps and unwraps keysets under one KMS key: its id, ARN or alias."""

    kms_key: str
    _client: Any = field(repr=False)

    def wrap(self, name: str, keyset: str) -> str:
        """Return a keyset, given as Tink's JSON, as Tink's encrypted JSON.

        Raises:
            KeysetError: KMS refuses or cannot be reached.
        """
        handle = json_format.parse(keyset, secret_key_access.TOKEN)
        return json_format.serialize_encrypted(handle, self._aead(), name.encode())

    def unwrap(self, name: str, wrapped: str) -> str:
        """Return the keyset as Tink's JSON, which is secret.

        Raises:
            KeysetError: it is not a keyset wrapped for this name under this KMS key, or KMS
                cannot be reached.
        """
        try:
            handle = json_format.parse_encrypted(wrapped, self._aead(), name.encode())
        except (tink.TinkError, ValueError):
            raise KeysetError(
                f"the wrapped keyset of {name} cannot be unwrapped. {_MISMATCH}"
            ) from None
        return json_format.serialize(handle, secret_key_access.TOKEN)

    def _aead(self) -> aead.Aead:
        return _KmsAead(self.kms_key, self._client)


def kms_wrapping(kms_key: str) -> KmsWrapping:
    """Return the wrapping under a KMS key, given by id, ARN or alias.

    Raises:
        KeysetError: the AWS settings do not allow a client.
    """
    return KmsWrapping(kms_key, connect_aws("kms", KeysetError))


def is_wrapped(keyset: str) -> bool:
    """Return whether a text is Tink's encrypted keyset in JSON."""
    try:
        members = json.loads(keyset)
    except (ValueError, RecursionError):
        return False
    return isinstance(members, dict) and "encryptedKeyset" in members


class _KmsAead(aead.Aead):
    """KMS as Tink's key-encryption key; the associated data is the keyset's name."""

    def __init__(self, kms_key: str, client: Any) -> None:  # noqa: ANN401 (boto3's client)
        self._kms_key = kms_key
        self._client = client

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        name = associated_data.decode()
        with translate_aws_errors(f"wrapping the keyset of {name}", KeysetError, _REMEDIES):
            answer = self._client.encrypt(
                KeyId=self._kms_key, Plaintext=plaintext, EncryptionContext=_context(name)
            )
        return bytes(answer["CiphertextBlob"])

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        name = associated_data.decode()
        with translate_aws_errors(f"unwrapping the keyset of {name}", KeysetError, _REMEDIES):
            answer = self._client.decrypt(
                KeyId=self._kms_key, CiphertextBlob=ciphertext, EncryptionContext=_context(name)
            )
        return bytes(answer["Plaintext"])


def _context(name: str) -> dict[str, str]:
    return {"keyset": name, "purpose": PURPOSE}
