"""Waits for the page of a server that a script has started."""

from __future__ import annotations

import urllib.request

from tenacity import RetryError, retry, retry_if_exception_type, stop_after_delay, wait_fixed

START_SECONDS = 120


def wait_for_page(url: str) -> None:
    """Asks a server of Dagster's until it answers; ends the script if it does not in time."""
    try:
        _ask(url)
    except RetryError:
        raise SystemExit(f"no page at {url}") from None


@retry(
    retry=retry_if_exception_type(OSError), stop=stop_after_delay(START_SECONDS), wait=wait_fixed(1)
)
def _ask(url: str) -> None:
    urllib.request.urlopen(f"{url}/server_info", timeout=5).close()
