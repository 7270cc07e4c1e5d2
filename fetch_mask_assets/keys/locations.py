"""The store of keysets for a location: the value of MASKING_KEYSETS.

A location is a directory of files (a path or a file: URL) or `aws-secretsmanager://PREFIX`.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.files import KeysetFiles
from fetch_mask_assets.keys.secrets_manager import SCHEME, KeysetSecrets, keyset_secrets

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+", re.ASCII)
# Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
_SECRET_PREFIX = re.compile(r"[\w/+=.@-]{1,480}", re.ASCII)


def store_at(location: str) -> KeysetFiles | KeysetSecrets:
    """Return the store of a location.

    Raises:
        KeysetError: the location is invalid, or the AWS settings do not allow a client.
    """
    scheme, colon, rest = location.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        return KeysetFiles(Path(location))
    if scheme == "file":
        return KeysetFiles(Path(unquote(_file_path(rest))))
    if scheme == SCHEME:
        return keyset_secrets(_secret_prefix(rest))
    raise KeysetError(
        f"MASKING_KEYSETS begins with the unsupported scheme {scheme}: set it to a directory, a"
        f" file: URL of one, or {SCHEME}://PREFIX."
    )


def _file_path(rest: str) -> str:
    # RFC 8089: file:/path, file:///path and file://localhost/path.
    path = rest.removeprefix("//localhost") if rest.startswith("//localhost/") else rest
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.startswith("//"):
        raise KeysetError("MASKING_KEYSETS is a file: URL without an absolute path of this host.")
    return path


def _secret_prefix(rest: str) -> str:
    prefix = rest.removeprefix("//").strip("/")
    if not rest.startswith("//") or not _SECRET_PREFIX.fullmatch(prefix):
        raise KeysetError(
            f"MASKING_KEYSETS needs a prefix of secret names after {SCHEME}://, of letters,"
            " digits and /_+=.@- only."
        )
    return prefix
