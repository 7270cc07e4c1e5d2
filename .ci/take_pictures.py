"""Takes the pictures of the documentation from the running product: `make pictures`.

Needs a local stack with a batch or two in its table, and Chromium.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright
from served_page import START_SECONDS, wait_for_page

_PICTURES = Path("docs/pictures")
_PORT = 3333
_SERVER = f"http://127.0.0.1:{_PORT}"
_LOCATION = "/locations/fetch_mask_assets.definitions"
_CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_SETTLE_MILLISECONDS = 4_000

# Each with a text that shows when the page has what it is for.
_PAGES = {
    "graph": (f"{_LOCATION}/asset-groups/user_logins", "raw_login_batch"),
    "checks": ("/assets/masked_logins?view=checks", "tokens_can_be_unmasked"),
    "table": ("/assets/user_logins?view=overview", "user_logins"),
    "sensor": (f"{_LOCATION}/sensors/login_queue_depth", "login_queue_depth"),
}


@contextmanager
def _webserver() -> Iterator[None]:
    command = ["dagster-webserver", "--host", "127.0.0.1", "--port", str(_PORT)]
    server = subprocess.Popen([*command, "--workspace", "workspace.yaml"])
    try:
        wait_for_page(_SERVER)
        yield
    finally:
        server.terminate()
        server.wait(timeout=START_SECONDS)


def _take(page: Page, name: str, address: str, shows: str) -> None:
    page.goto(address)
    page.get_by_text(shows).first.wait_for(timeout=60_000)
    # Dagster's pages never fall silent: they ask for news all the time.
    page.wait_for_timeout(_SETTLE_MILLISECONDS)
    page.screenshot(path=_PICTURES / f"{name}.png")


def _report(folder: str) -> str:
    path = Path(folder, "report.html")
    # Whether everything in it holds is not what the picture is about.
    subprocess.run(["fetch-mask", "report", "--output", str(path)], check=False)
    return path.as_uri()


def main() -> None:
    """Takes each picture anew."""
    _PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, _webserver(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 810})
        for name, (path, shows) in _PAGES.items():
            _take(page, name, f"{_SERVER}{path}", shows)
        _take(page, "report", _report(folder), "Privacy report")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
