"""The user that Postgres runs as: oneself, or `nobody` for root, whom Postgres refuses to serve."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from fetch_mask_assets.local_stack.errors import LocalStackError

_NAME = "nobody"

# Our directory is closed to all but root, and so may be the ones above it; the capability lets the
# server through them, where the other way would be to open them to everyone.
_CAPABILITIES = (
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",
)


def command_prefix() -> tuple[str, ...]:
    """What to write before a Postgres command so that it does not run as root.

    Raises:
        LocalStackError: we are root and cannot become anyone else.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalStackError(
            "Postgres refuses to run as root, and the command setpriv, which would run it as"
            f" {_NAME}, is missing: install util-linux, or run this as another user."
        )
    user = _nobody()
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return (setpriv, *identity, *_CAPABILITIES, "--")


def give_to_server(path: Path) -> None:
    """Makes the server's user the owner of one of our own paths."""
    if os.geteuid() == 0:
        user = _nobody()
        os.chown(path, user.pw_uid, user.pw_gid)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_NAME)
    except KeyError:
        raise LocalStackError(
            f"Postgres refuses to run as root, and there is no user {_NAME} to run it as:"
            " run this as another user."
        ) from None
