"""`fetch-mask alert test` and what the doctor says of alerts."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from fetch_mask_assets.cli.main import cli
from fetch_mask_assets_tests.support.receiver import SECRET, receiving


def _run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, list(words), env=environment)


def test_a_test_alert_goes_to_every_destination() -> None:
    with receiving() as receiver:
        done = _run("alert", "test", LOGIN_ALERT_WEBHOOK=receiver.url, LOGIN_ALERT_COMMAND="true")

    assert done.exit_code == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "log:"],
        ["ok", "webhook:"],
        ["ok", "command:"],
    ]
    assert [each["severity"] for each in receiver.alerts] == ["test"]
    assert SECRET not in done.output


def test_a_destination_that_does_not_take_it_is_named_without_its_address() -> None:
    with receiving(404) as receiver:
        done = _run("alert", "test", LOGIN_ALERT_WEBHOOK=receiver.url)

    assert done.exit_code == 1
    assert "webhook: the alert webhook answered 404" in done.stdout
    assert SECRET not in done.output


def test_the_doctor_says_where_alerts_go_and_not_at_which_address() -> None:
    done = _run("doctor", "--json", LOGIN_ALERT_WEBHOOK=f"https://host/{SECRET}")

    [finding] = [each for each in json.loads(done.stdout)["findings"] if each["name"] == "alerts"]
    assert "sent to the log, the webhook" in finding["description"]
    assert SECRET not in done.output


def test_the_doctor_refuses_a_webhook_that_is_no_url_without_showing_it() -> None:
    done = _run("doctor", "--json", LOGIN_ALERT_WEBHOOK=SECRET)

    [finding] = [each for each in json.loads(done.stdout)["findings"] if each["name"] == "alerts"]
    assert not finding["ok"]
    assert finding["description"].startswith("LOGIN_ALERT_WEBHOOK must start with http")
    assert SECRET not in done.output
