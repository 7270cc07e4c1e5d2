"""Keysets kept in AWS Secrets Manager, one secret `PREFIX/NAME` for each.

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
    "ResourceExistsException": "There is a secret of that name, perhaps without a value: it is"
    " left as it is.",
    "ResourceNotFoundException": "Check MASKING_KEYSETS: there is no such secret.",
    "InvalidRequestException": "The secret may be about to be deleted: look at it.",
    "DecryptionFailure": "The caller may not use the KMS key that the secret is encrypted with.",
}


@dataclass(frozen=True, slots=True)
class KeysetSecrets:
    """The secrets under a prefix."""

    prefix: str
    _client: Any = field(repr=False)

    def place(self, name: str) -> str:
        """Where a keyset is, for a person."""
        return f"{SCHEME}://{self._id(name)}"

    def read(self, name: str) -> str | None:
        """The current version of a keyset as it is stored, or None if there is none.

        Raises:
            KeysetError: Secrets Manager refuses or cannot be reached.
        """
        with translate_aws_errors(f"reading {self.place(name)}", KeysetError, _REMEDIES):
            answer = self._current(name)
        return None if answer is None else self._text(name, answer)

    def create(self, name: str, text: str) -> None:
        """Stores a keyset where there is none.

        Raises:
            KeysetError: there is one, or Secrets Manager refuses or cannot be reached.
        """
        with translate_aws_errors(f"making {self.place(name)}", KeysetError, _REMEDIES):
            self._client.create_secret(Name=self._id(name), SecretString=text)

    def replace(self, name: str, text: str) -> None:
        """Stores a new version of a keyset; the one before stays as AWSPREVIOUS.

        Raises:
            KeysetError: Secrets Manager refuses or cannot be reached.
        """
        with translate_aws_errors(f"writing {self.place(name)}", KeysetError, _REMEDIES):
            self._client.put_secret_value(SecretId=self._id(name), SecretString=text)

    def _current(self, name: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._client.get_secret_value(SecretId=self._id(name))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return None
            raise
        return answer

    def _text(self, name: str, answer: dict[str, Any]) -> str:
        if "SecretString" not in answer:
            raise KeysetError(f"the secret {self.place(name)} holds bytes and no text.")
        return str(answer["SecretString"])

    def _id(self, name: str) -> str:
        return f"{self.prefix}/{name}"


def keyset_secrets(prefix: str) -> KeysetSecrets:
    """The secrets under a prefix.

    Raises:
        KeysetError: the AWS settings do not allow a client to be made.
    """
    return KeysetSecrets(prefix, connect_aws("secretsmanager", KeysetError))
