"""Clients of AWS, and their errors without requests or responses."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from fetch_mask_assets.errors import FetchMaskError

CONNECT_SECONDS = 5
READ_SECONDS = 15


def connect_aws(service: str, error_class: type[FetchMaskError]) -> Any:  # noqa: ANN401 (boto3 makes its clients at run time)
    """A client of an AWS service, set up by boto3's own environment.

    Raises:
        FetchMaskError: one of `error_class`; the AWS settings do not allow a client to be made.
    """
    import boto3  # noqa: PLC0415 (takes half a second)
    from botocore.config import Config  # noqa: PLC0415 (as above)

    silence_boto()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    with translate_aws_errors(f"connecting to {service}", error_class):
        return boto3.session.Session().client(service, config=config)  # type: ignore[call-overload]  # the name is not a literal


def silence_boto() -> None:
    """Turns boto's debug logging off: its records hold whole requests, with bodies and keys."""
    logging.getLogger("botocore").setLevel(logging.INFO)


@contextmanager
def translate_aws_errors(
    verb: str,
    error_class: type[FetchMaskError],
    remedies: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[None]:
    """Turns boto's errors into one of `error_class` that names the verb, AWS's code and a remedy.

    `remedies` are remedies by a part of AWS's error code.
    """
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise error_class(f"AWS refused {verb}: {code}. {_remedy(code, remedies)}") from None
    except (BotoCoreError, ValueError) as error:
        raise error_class(
            f"AWS could not be reached for {verb}: {type(error).__name__}. Check AWS_ENDPOINT_URL,"
            " AWS_DEFAULT_REGION, the credentials, LOGIN_QUEUE_URL and the network."
        ) from None


def _remedy(code: str, remedies: Mapping[str, str]) -> str:
    found = [remedy for part, remedy in {**remedies, **_REMEDIES}.items() if part in code]
    return found[0] if found else "Look the code up in AWS's API reference."


_CREDENTIALS = "Check the AWS credentials and what they are allowed to do."
_REMEDIES = {"AccessDenied": _CREDENTIALS, "Token": _CREDENTIALS, "Signature": _CREDENTIALS}
