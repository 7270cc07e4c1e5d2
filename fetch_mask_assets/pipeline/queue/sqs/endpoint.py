"""The endpoint of SQS: its URL and region, the credentials, the CA bundle and the proxy.

botocore resolves it, unless the environment states an endpoint without TLS in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore.exceptions import NoCredentialsError

from fetch_mask_assets.aws import silence_boto


class Credentials(NamedTuple):
    """Credentials of one moment; `token` is that of temporary ones."""

    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        """Only the name of the class."""
        return "Credentials(...)"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The destination of requests, and the parts of their signature.

    `credentials` gives those of the moment, refreshed when they expire. `proxy` is a URL, or empty.
    `ca_bundle` is a file or directory of certificates; None for an endpoint without TLS.
    """

    url: str
    region: str
    credentials: Callable[[], Credentials] = field(repr=False)
    ca_bundle: str | None = None
    proxy: str = field(default="", repr=False)


def resolve_endpoint(options: Mapping[str, Any], environ: Mapping[str, str]) -> Endpoint:
    """The endpoint by these options of a boto3 client, and for the rest by botocore's rules.

    Raises:
        BotoCoreError: the region, the profile or a part of the credentials is missing.
        ValueError: the URL of the endpoint is malformed.
    """
    return _stated_endpoint(options, environ) or _resolved_endpoint(options, environ)


# With one of these set, the endpoint also depends on the files of `~/.aws`, or on the time.
_FURTHER_RULES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)


_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def _stated_endpoint(options: Mapping[str, Any], environ: Mapping[str, str]) -> Endpoint | None:
    """An endpoint without TLS that is stated in full, as that of an emulator is.

    It needs none of botocore's rules, and so not the half second of CPU for its import.
    """

    def stated(option: str, *names: str) -> str:
        texts = (options.get(option), *map(environ.get, names))
        return next(filter(None, texts), None) or ""

    url = stated("endpoint_url", "AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")
    region = stated("region_name", "AWS_DEFAULT_REGION")
    keys = _stated_keys(options, environ)
    further = any(map(environ.get, _FURTHER_RULES))
    if further or not (url.startswith("http://") and region and keys):
        return None
    return Endpoint(url, region, lambda: keys, proxy=_proxy(url))


def _stated_keys(options: Mapping[str, Any], environ: Mapping[str, str]) -> Credentials | None:
    key, secret, token = map(options.get, _KEYS)
    if not (key or secret or token):
        key, secret = map(environ.get, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        token = environ.get("AWS_SECURITY_TOKEN") or environ.get("AWS_SESSION_TOKEN")
    return Credentials(key, secret, token or None) if key and secret else None


def _resolved_endpoint(options: Mapping[str, Any], environ: Mapping[str, str]) -> Endpoint:
    import botocore.session  # noqa: PLC0415 (takes half a second)
    from botocore.credentials import Credentials as StaticCredentials  # noqa: PLC0415 (as above)
    from botocore.httpsession import where  # noqa: PLC0415 (as above)

    silence_boto()
    session = botocore.session.get_session()
    client = session.create_client("sqs", **options)
    client.close()
    key, secret, token = map(options.get, _KEYS)
    given = StaticCredentials(key, secret, token) if key and secret else None

    def credentials() -> Credentials:
        found = given or session.get_credentials()
        if found is None:
            raise NoCredentialsError
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)

    url = client.meta.endpoint_url
    bundle = session.get_config_variable("ca_bundle") or environ.get("REQUESTS_CA_BUNDLE")
    return Endpoint(url, client.meta.region_name, credentials, bundle or where(), _proxy(url))


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    return "" if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme, "")
