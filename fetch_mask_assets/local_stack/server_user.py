"""The user that Postgres runs as: the current one, or `nobody` for root, which it refuses."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from fetch_mask_assets.local_stack.errors import LocalStackError

_NAME = "nobody"

# Only root may enter the directory, and perhaps the ones above it. With this capability the server
# may too, and they need not be opened to every user.
_CAPABILITIES = (
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
)


def command_prefix() -> tuple[str, ...]:
    """The prefix of a Postgres command by which it does not run as root.

    Raises:
        LocalStackError: the current user is root, and there is no way to another user.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalStackError(
            "Postgres refuses to run as root, and the command setpriv, which would run it as"
            f" {_NAME}, is missing: install util-linux, or run this as another user."
        )
    user = _server_user()
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return (setpriv, *identity, *_CAPABILITIES, "--")


def give_to_server(path: Path) -> None:
    """Makes the server's user the owner of a path."""
    if os.geteuid() == 0:
        user = _server_user()
        os.chown(path, user.pw_uid, user.pw_gid)


def _server_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_NAME)
    except KeyError:
        raise LocalStackError(
            f"Postgres refuses to run as root, and there is no user {_NAME} to run it as:"
            " run this as another user."
        ) from None
