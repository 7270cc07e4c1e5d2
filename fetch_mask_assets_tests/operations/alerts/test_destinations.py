"""Alerts arrive at a real server and a real command; where not, the error shows no secret."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from fetch_mask_assets.errors import AlertError
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets.operations.alerts.alert import make_test_alert
from fetch_mask_assets.operations.alerts.destinations import AlertDestinations
from fetch_mask_assets_tests.support.factories import shown
from fetch_mask_assets_tests.support.receiver import SECRET, receiving

ALERT = make_test_alert(7.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)


def test_the_log_is_always_a_destination_and_the_others_where_they_are_set() -> None:
    assert AlertDestinations().names == ("log",)
    assert AlertDestinations("http://x", "y").names == ("log", "webhook", "command")


def test_a_webhook_gets_the_alert_as_json() -> None:
    with receiving() as receiver:
        AlertDestinations(webhook=receiver.url).send("webhook", ALERT)

    assert receiver.alerts == [ALERT.as_dict()]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_webhook_that_fails_for_a_moment_is_tried_again(status: int) -> None:
    with receiving(status, status) as receiver:
        AlertDestinations(webhook=receiver.url).send("webhook", ALERT)

    assert (receiver.requests, len(receiver.alerts)) == (3, 1)


@pytest.mark.parametrize(("status", "requests"), [(500, 3), (404, 1), (302, 1)])
def test_a_webhook_that_does_not_take_it_is_an_error_after_a_bounded_number_of_attempts(
    status: int, requests: int
) -> None:
    with receiving(*[status] * 9) as receiver:
        with pytest.raises(AlertError, match=str(status)) as caught:
            AlertDestinations(webhook=receiver.url).send("webhook", ALERT)

        assert receiver.requests == requests
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/" + SECRET, "http://[" + SECRET])
def test_a_webhook_that_cannot_be_reached_is_an_error_without_its_address(url: str) -> None:
    destinations = AlertDestinations(webhook=url.format(port=free_port()))
    with pytest.raises(AlertError, match="LOGIN_ALERT_WEBHOOK") as caught:
        destinations.send("webhook", ALERT)

    assert SECRET not in shown(caught.value)


def test_a_command_gets_the_alert_on_its_standard_input(tmp_path: Path) -> None:
    kept = tmp_path / "alert; touch no-shell"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    AlertDestinations(command=f'{sys.executable} -c "{code}" "{kept}"').send("command", ALERT)

    assert json.loads(kept.read_text()) == ALERT.as_dict()
    assert not (tmp_path / "no-shell").exists()


@pytest.mark.parametrize(
    ("command", "description"),
    [
        (f"/nowhere/{SECRET}", "could not be started"),
        (f"false {SECRET}", "ended with exit code 1"),
    ],
)
def test_a_command_that_fails_is_an_error_without_the_command(
    command: str, description: str
) -> None:
    with pytest.raises(AlertError, match=description) as caught:
        AlertDestinations(command=command).send("command", ALERT)

    assert SECRET not in shown(caught.value)


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetch_mask_assets.operations.alerts.destinations._COMMAND_SECONDS", 0.1)
    with pytest.raises(AlertError, match="did not end"):
        AlertDestinations(command="sleep 60").send("command", ALERT)


def test_neither_the_repr_nor_the_log_shows_an_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving() as receiver:
        destinations = AlertDestinations(webhook=receiver.url, command=f"true {SECRET}")
        for name in destinations.names:
            destinations.send(name, ALERT)

    assert ALERT.id in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(destinations)
