"""The destinations of alerts: the log, a webhook, a command. Addresses are secrets, never shown."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fetch_mask_assets.errors import AlertError
from fetch_mask_assets.operations.alerts.alert import Alert, Severity

LOG, WEBHOOK, COMMAND = "log", "webhook", "command"

_LOG = logging.getLogger("fetch_mask_assets.alerts")
_ATTEMPTS = 3
_WEBHOOK_SECONDS = 5.0
_COMMAND_SECONDS = 10.0
_LEVELS = {
    Severity.ERROR: logging.ERROR,
    Severity.WARNING: logging.WARNING,
    Severity.TEST: logging.WARNING,
}


class _TransientAlertError(AlertError):
    """A failure that another attempt may not have."""


@dataclass(frozen=True, slots=True)
class AlertDestinations:
    """The log always; a webhook and a command if they are set."""

    webhook: str = field(default="", repr=False)
    command: str = field(default="", repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The destinations that are set."""
        given = ((LOG, True), (WEBHOOK, bool(self.webhook)), (COMMAND, bool(self.command)))
        return tuple(name for name, is_set in given if is_set)

    def send(self, name: str, alert: Alert) -> None:
        """Sends an alert to one destination; retries transient failures.

        Raises:
            AlertError: it did not arrive; the error names the destination and not its address.
        """
        send: Callable[[Alert], None] = {
            LOG: _log,
            WEBHOOK: self._post,
            COMMAND: self._run,
        }[name]
        Retrying(
            retry=retry_if_exception_type(_TransientAlertError),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )(send, alert)

    def _post(self, alert: Alert) -> None:
        # At DEBUG, urllib3 logs the path, and a webhook's path is its secret.
        logging.getLogger("urllib3").setLevel(logging.INFO)
        try:
            with urllib3.PoolManager() as pool:
                answer = pool.request(
                    "POST",
                    self.webhook,
                    json=alert.as_dict(),
                    headers={"Content-Type": "application/json", "Idempotency-Key": alert.id},
                    timeout=urllib3.Timeout(total=_WEBHOOK_SECONDS),
                    retries=False,
                    redirect=False,
                )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _TransientAlertError(
                f"the alert webhook could not be reached ({type(error).__name__}): check"
                " LOGIN_ALERT_WEBHOOK and the network."
            ) from None
        _require_accepted(answer.status)

    def _run(self, alert: Alert) -> None:
        try:
            done = subprocess.run(  # noqa: S603 (the user's own command, without a shell)
                shlex.split(self.command),
                input=json.dumps(alert.as_dict()).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except (OSError, ValueError) as error:
            raise AlertError(
                f"the alert command could not be started ({type(error).__name__}): check"
                " LOGIN_ALERT_COMMAND."
            ) from None
        except subprocess.TimeoutExpired:
            raise AlertError(
                f"the alert command did not end within {_COMMAND_SECONDS:g} seconds and was ended."
            ) from None
        if done.returncode != 0:
            raise _TransientAlertError(
                f"the alert command ended with exit code {done.returncode}: run it by hand with"
                " the JSON of an alert on its standard input."
            )


def _require_accepted(status: int) -> None:
    is_transient = status >= 500 or status == 429  # noqa: PLR2004 (HTTP's own numbers)
    if is_transient:
        raise _TransientAlertError(f"the alert webhook answered {status}: look at the receiver.")
    if not 200 <= status < 300:  # noqa: PLR2004 (HTTP's own numbers)
        raise AlertError(f"the alert webhook answered {status}: check LOGIN_ALERT_WEBHOOK.")


def _log(alert: Alert) -> None:
    _LOG.log(_LEVELS[alert.severity], "%s", json.dumps(alert.as_dict()))
