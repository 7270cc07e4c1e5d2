"""Settings have defaults and bounds, and a refusal names the setting and never its value."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fetch_mask_assets.errors import SettingError
from fetch_mask_assets.settings import (
    DATABASE_URL,
    KEYSETS,
    QUEUE_URL,
    REQUIRED,
    Tuning,
    alert_command,
    alert_webhook,
    required,
)
from fetch_mask_assets_tests.support.factories import shown

BOUNDS = [
    ("batch_messages", "LOGIN_BATCH_MESSAGES", 10_000, 1, 100_000),
    ("batch_bytes", "LOGIN_BATCH_BYTES", 67_108_864, 1_048_576, 1_073_741_824),
    ("batch_seconds", "LOGIN_BATCH_SECONDS", 30, 1, 3_600),
    ("receivers", "LOGIN_RECEIVERS", 4, 1, 32),
    ("wait_seconds", "LOGIN_RECEIVE_WAIT_SECONDS", 2, 1, 20),
    ("empty_receives", "LOGIN_MAX_EMPTY_RECEIVES", 4, 2, 100),
    ("visibility_seconds", "LOGIN_VISIBILITY_SECONDS", 300, 10, 43_200),
    ("max_runs", "LOGIN_MAX_RUNS", 4, 1, 1_000),
    ("warn_rejected_percent", "LOGIN_WARN_REJECTED_PERCENT", 5, 0, 100),
    ("warn_unparsed_version_percent", "LOGIN_WARN_UNPARSED_VERSION_PERCENT", 5, 0, 100),
    ("warn_redelivered_percent", "LOGIN_WARN_REDELIVERED_PERCENT", 10, 0, 100),
    ("warn_oldest_age_seconds", "LOGIN_WARN_OLDEST_AGE_SECONDS", 3_600, 1, 1_209_600),
    ("freshness_seconds", "LOGIN_FRESHNESS_SECONDS", 3_600, 120, 604_800),
    ("run_retention_days", "LOGIN_RUN_RETENTION_DAYS", 14, 1, 3_650),
    ("max_recovery_values", "LOGIN_MAX_RECOVERY_VALUES", 100, 1, 10_000),
    ("quarantine_retention_days", "LOGIN_QUARANTINE_RETENTION_DAYS", 90, 1, 3_650),
    ("report_days", "LOGIN_REPORT_DAYS", 30, 1, 3_650),
    ("reports_kept", "LOGIN_REPORTS_KEPT", 90, 1, 10_000),
]

# Room for the extremes of one number, so that no pair disagrees.
ROOM = {
    "LOGIN_BATCH_SECONDS": "1",
    "LOGIN_RECEIVE_WAIT_SECONDS": "1",
    "LOGIN_VISIBILITY_SECONDS": "43200",
    "LOGIN_BATCH_MESSAGES": "1",
    "LOGIN_MAX_RUNS": "1",
}


def test_the_table_of_bounds_is_complete() -> None:
    actual = [each.name for each in fields(Tuning)]

    assert [name for name, *_ in BOUNDS] == actual


@pytest.mark.parametrize(("name", "variable", "default", "lowest", "highest"), BOUNDS)
def test_a_number_has_a_default_and_bounds(
    name: str, variable: str, default: int, lowest: int, highest: int
) -> None:
    for environment, expected in [
        ({}, default),
        ({variable: ""}, default),
        ({variable: "  "}, default),
        (ROOM | {variable: str(lowest)}, lowest),
        (ROOM | {variable: str(highest)}, highest),
        (ROOM | {variable: f" {highest} "}, highest),
    ]:
        actual = getattr(Tuning.from_environment(environment), name)

        assert expected == actual


@pytest.mark.parametrize(("name", "variable", "default", "lowest", "highest"), BOUNDS)
def test_a_number_out_of_its_bounds_is_refused_by_the_settings_name(
    name: str, variable: str, default: int, lowest: int, highest: int
) -> None:
    del name, default
    wrong = [str(lowest - 1), str(highest + 1), "-1", "canary", "1.5", "1e3", "0x10", "9" * 5_000]

    for text in wrong:
        with pytest.raises(SettingError, match=f"^{variable} .* from {lowest} to {highest}") as no:
            Tuning.from_environment(ROOM | {variable: text})

        assert "canary" not in shown(no.value)
        assert "9999999" not in shown(no.value)


@pytest.mark.parametrize(
    "environment",
    [
        {"LOGIN_VISIBILITY_SECONDS": "32"},
        {"LOGIN_VISIBILITY_SECONDS": "10"},
        {"LOGIN_BATCH_SECONDS": "298"},
        {"LOGIN_BATCH_SECONDS": "280", "LOGIN_RECEIVE_WAIT_SECONDS": "20"},
    ],
)
def test_messages_must_stay_hidden_for_longer_than_a_batch_receives(
    environment: dict[str, str],
) -> None:
    with pytest.raises(
        SettingError,
        match=r"^LOGIN_VISIBILITY_SECONDS .* LOGIN_BATCH_SECONDS .* LOGIN_RECEIVE_WAIT_SECONDS",
    ):
        Tuning.from_environment(environment)


def test_one_second_more_than_a_batch_receives_will_do() -> None:
    actual = Tuning.from_environment({"LOGIN_VISIBILITY_SECONDS": "33"}).visibility_seconds

    assert 33 == actual  # noqa: SIM300 (expected first)


@pytest.mark.parametrize(
    "environment",
    [
        {"LOGIN_MAX_RUNS": "13"},
        {"LOGIN_BATCH_MESSAGES": "30001"},
        {"LOGIN_BATCH_MESSAGES": "100000", "LOGIN_MAX_RUNS": "2"},
    ],
)
def test_all_runs_together_must_fit_into_what_sqs_hands_out(environment: dict[str, str]) -> None:
    with pytest.raises(
        SettingError, match=r"^LOGIN_BATCH_MESSAGES times LOGIN_MAX_RUNS must not exceed 120000"
    ):
        Tuning.from_environment(environment)


def test_runs_may_take_all_that_sqs_hands_out() -> None:
    actual = Tuning.from_environment({"LOGIN_MAX_RUNS": "12"}).max_runs

    assert 12 == actual  # noqa: SIM300 (expected first)


def test_other_variables_mean_nothing() -> None:
    actual = Tuning.from_environment({"PATH": "/bin", "BATCH_MESSAGES": "x"})

    assert Tuning() == actual


def test_tuning_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Tuning().max_runs = 5  # type: ignore[misc]


def test_these_settings_are_required() -> None:
    assert set(REQUIRED) == {"LOGIN_QUEUE_URL", "LOGIN_DATABASE_URL", "MASKING_KEYSETS"}


@pytest.mark.parametrize("name", [QUEUE_URL, DATABASE_URL, KEYSETS])
def test_a_required_setting_is_given_without_the_spaces_around_it(name: str) -> None:
    actual = required({name: " postgresql://canary@host/x \n"}, name)

    assert actual == "postgresql://canary@host/x"


@pytest.mark.parametrize("value", [None, "", " \n"])
@pytest.mark.parametrize("name", [QUEUE_URL, DATABASE_URL, KEYSETS])
def test_a_required_setting_that_is_not_set_is_named_and_no_other_is_shown(
    name: str, value: str | None
) -> None:
    environment = dict.fromkeys(REQUIRED, "postgresql://loader:canary@host/x")
    environment = {key: text for key, text in environment.items() if key != name}
    environment |= {} if value is None else {name: value}

    with pytest.raises(SettingError, match=f"^{name} is not set: set it to ") as caught:
        required(environment, name)

    assert "canary" not in shown(caught.value)


def test_a_dsn_that_was_put_into_a_number_is_not_shown() -> None:
    environment = {"LOGIN_MAX_RUNS": "postgresql://loader:canary@host/x"}

    with pytest.raises(SettingError, match=r"^LOGIN_MAX_RUNS ") as caught:
        Tuning.from_environment(environment)

    assert "canary" not in shown(caught.value)


def test_alert_destinations_are_refused_by_name_and_not_shown() -> None:
    assert alert_webhook({}) == alert_command({}) == ""
    for name, read, text in (
        ("LOGIN_ALERT_WEBHOOK", alert_webhook, "ftp://canary/x"),
        ("LOGIN_ALERT_COMMAND", alert_command, "notify 'canary"),
    ):
        with pytest.raises(SettingError, match=f"^{name} ") as caught:
            read({name: text})
        assert "canary" not in shown(caught.value)
