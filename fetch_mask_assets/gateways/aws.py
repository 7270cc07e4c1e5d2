"""Clients of AWS for the keys, and their errors without what was asked or answered."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fetch_mask_assets.domain.errors import KeysetError

_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=5, read_timeout=15
)


def connect_aws(service: str) -> Any:  # noqa: ANN401 (boto3 makes its clients at run time)
    """A client of an AWS service, set up by boto3's own environment.

    Raises:
        KeysetError: the AWS settings do not allow a client to be made.
    """
    # boto's debug records hold whole requests and responses, keys and all.
    logging.getLogger("botocore").setLevel(logging.INFO)
    with plain_aws_errors(f"connecting to {service}"):
        return boto3.session.Session().client(service, config=_CONFIG)  # type: ignore[call-overload]  # a name that is no literal


@contextmanager
def plain_aws_errors(verb: str, remedies: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turns boto's errors into ones that name the verb, AWS's code and what to do.

    `remedies` are what to do by AWS's error code.
    """
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise KeysetError(f"AWS refused {verb}: {code}. {_remedy(code, remedies or {})}") from None
    except (BotoCoreError, ValueError) as error:
        raise KeysetError(
            f"AWS could not be reached for {verb}: {type(error).__name__}. Check"
            " AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, the AWS credentials and the network."
        ) from None


def _remedy(code: str, remedies: Mapping[str, str]) -> str:
    if code in remedies:
        return remedies[code]
    if "AccessDenied" in code or "Token" in code or "Signature" in code:
        return "Check the AWS credentials and the actions that docs/keys.md lists."
    return "Look the code up in AWS's API reference."
