"""Keysets in AWS Secrets Manager, one secret `PREFIX/NAME` for each.

Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from fetch_mask_assets.aws import connect_aws, translate_aws_errors
from fetch_mask_assets.errors import KeysetError

SCHEME = "aws-secretsmanager"

_REMEDIES = {
    "ResourceExistsException": "A secret of that name exists, perhaps without a value. It was not"
    " changed.",
    "ResourceNotFoundException": "The secret does not exist: check MASKING_KEYSETS.",
    "InvalidRequestException": "The secret may be scheduled for deletion: check its state.",
    "DecryptionFailure": "The caller has no permission for the KMS key that encrypts the secret.",
}


@dataclass(frozen=True, slots=True)
class KeysetSecrets:
    """The secrets under a prefix."""

    prefix: str
    _client: Any = field(repr=False)

    def location(self, name: str) -> str:
        """Return the URL of a keyset, for messages."""
        return f"{SCHEME}://{self._secret_id(name)}"

    def read(self, name: str) -> str | None:
        """Return the current version of a keyset as stored, or None if it does not exist.

        Raises:
            KeysetError: Secrets Manager refuses or cannot be reached.
        """
        with translate_aws_errors(f"reading {self.location(name)}", KeysetError, _REMEDIES):
            answer = self._current(name)
        return None if answer is None else self._text(name, answer)

    def create(self, name: str, text: str) -> None:
        """Store a new keyset.

        Raises:
            KeysetError: one exists, or Secrets Manager refuses or cannot be reached.
        """
        with translate_aws_errors(f"creating {self.location(name)}", KeysetError, _REMEDIES):
            self._client.create_secret(Name=self._secret_id(name), SecretString=text)

    def replace(self, name: str, text: str) -> None:
        """Store a new version of a keyset; the previous one stays as AWSPREVIOUS.

        Raises:
            KeysetError: Secrets Manager refuses or cannot be reached.
        """
        with translate_aws_errors(f"writing {self.location(name)}", KeysetError, _REMEDIES):
            self._client.put_secret_value(SecretId=self._secret_id(name), SecretString=text)

    def _current(self, name: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._client.get_secret_value(SecretId=self._secret_id(name))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return None
            raise
        return answer

    def _text(self, name: str, answer: dict[str, Any]) -> str:
        if "SecretString" not in answer:
            raise KeysetError(
                f"the secret {self.location(name)} is binary: store the keyset as text."
            )
        return str(answer["SecretString"])

    def _secret_id(self, name: str) -> str:
        return f"{self.prefix}/{name}"


def keyset_secrets(prefix: str) -> KeysetSecrets:
    """Return the secrets under a prefix.

    Raises:
        KeysetError: the AWS settings do not allow a client.
    """
    return KeysetSecrets(prefix, connect_aws("secretsmanager", KeysetError))
