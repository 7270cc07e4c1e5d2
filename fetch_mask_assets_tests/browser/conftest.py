"""One browser for all tests of a module; at Dagster's pages it keeps what it was shown."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright

from fetch_mask_assets_tests.support.webserver import Webserver, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import ConsoleMessage, Error, Response, Route

BROWSERS = ("google-chrome", "chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Generous: waiting ends as soon as the page shows what is looked for.
MS = 90_000


@dataclass
class Visit:
    """A browser at the pages, and all that it was shown."""

    page: Page
    server: Webserver
    errors: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Opens a page of the webserver."""
        self.page.goto(f"{self.server.url}{path}")

    def shows(self, text: str | re.Pattern[str]) -> None:
        """Waits until a text is on the page, and keeps the whole page.

        On a busy machine Dagster's page at times stays at what it first knew: it is loaded again.
        """
        shown = self.page.get_by_text(text).first
        try:
            expect(shown).to_be_visible(timeout=MS / 3)
        except AssertionError:
            self.page.reload()
            expect(shown).to_be_visible(timeout=MS)
        self.seen.append(self.page.content())

    def note_message(self, message: ConsoleMessage) -> None:
        """Keeps what the console calls an error."""
        if message.type == "error":
            self.errors.append(message.text)

    def note_error(self, error: Error) -> None:
        """Keeps what a script of the page did not catch."""
        self.errors.append(str(error))

    def note_response(self, response: Response) -> None:
        """Keeps the address of what the server could not answer."""
        if response.status >= 500:
            self.errors.append(f"{response.status} {response.url}")

    def pass_on(self, route: Route) -> None:
        """Lets a query through, and keeps what it was answered."""
        # A connection that the server has closed meanwhile is no answer; the query is asked again.
        answer = route.fetch(timeout=MS, max_retries=5)
        self.seen.append(answer.text())
        route.fulfill(response=answer)

    def listen(self, socket: WebSocket) -> None:
        """Keeps what the server pushes: the events of a run come so."""
        socket.on("framereceived", self._note_frame)

    def _note_frame(self, frame: str | bytes) -> None:
        self.seen.append(frame if isinstance(frame, str) else frame.decode(errors="replace"))


def browser_path() -> str:
    """The browser that FETCH_MASK_TEST_BROWSER names, or the first one that is installed.

    Where CI is true, a missing browser is a failure and not a reason to skip.
    """
    named = os.environ.get("FETCH_MASK_TEST_BROWSER", "")
    found = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        return found
    reason = "no Chromium: apt-get install chromium, or set FETCH_MASK_TEST_BROWSER to one"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


# Not for the session: while Playwright runs, this thread has an event loop, and a Dagster run in
# it leaves coroutines behind.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser that is installed."""
    executable = browser_path()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """A page of the browser, and Dagster's webserver and daemon on a stack of their own."""
    with serving(tmp_path_factory.mktemp("checkout")) as server:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(MS)
        seen = Visit(page, server)
        page.on("console", seen.note_message)
        page.on("pageerror", seen.note_error)
        page.on("response", seen.note_response)
        page.on("websocket", seen.listen)
        page.route("**/graphql*", seen.pass_on)
        yield seen
        page.unroute_all(behavior="ignoreErrors")
        page.close()
