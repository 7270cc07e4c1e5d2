"""What an engineer sees in Dagster: the graph, a run by a click, checks, and nothing raw."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from playwright.sync_api import expect

from fetch_mask_assets.local_stack import sqs as local_sqs
from fetch_mask_assets_tests.support.logins import body, send
from fetch_mask_assets_tests.support.webserver import LOCATION

if TYPE_CHECKING:
    from fetch_mask_assets_tests.browser.conftest import Visit
    from fetch_mask_assets_tests.support.webserver import Webserver

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
CANARY_IP = "203.0.113.219"
CANARY_DEVICE = "canary-device-2190"
LOCATION_PATH = "/locations/fetch_mask_assets.definitions"


@pytest.fixture(scope="module", name="run_id")
def _run_id(visit: Visit) -> str:
    """The run that a click on Materialize started, on three logins and one message that is none.

    In the table is a row without a token, so that one check fails though the run is green.
    """
    _stop_the_sensor(visit.server)
    stack = visit.server.stack
    texts = [body(number, ip=CANARY_IP, device_id=CANARY_DEVICE) for number in range(3)]
    queue = stack.environment["LOGIN_QUEUE_URL"]
    send(local_sqs.client(stack.state), queue, [*texts, f"junk {CANARY_DEVICE} {CANARY_IP}"])
    with psycopg.connect(stack.environment["LOGIN_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("INSERT INTO user_logins (user_id, masked_ip) VALUES ('bare', 'none')")

    visit.open(f"{LOCATION_PATH}/jobs/ingest_logins")
    visit.page.get_by_text("Materialize all").first.click()
    visit.shows(re.compile("Launched run"))
    visit.page.locator('a[href^="/runs/"]').first.click()
    visit.page.wait_for_url(re.compile("/runs/[0-9a-f]{8}"))
    return visit.page.url.split("/runs/")[1][:36]


def test_the_graph_shows_the_story(visit: Visit) -> None:
    visit.open(f"{LOCATION_PATH}/asset-groups/user_logins/lineage")
    for name in ("login_queue", "raw_login_batch", "masked_logins", "user_logins"):
        visit.shows(re.compile(f"^{name}$"))


def test_a_click_on_materialize_starts_a_run_that_becomes_green(visit: Visit, run_id: str) -> None:
    visit.open(f"/runs/{run_id}")
    visit.shows(re.compile("^Success$"))
    visit.shows("RUN_SUCCESS")

    assert visit.server.status_at_the_end(run_id) == "SUCCESS"


def test_a_materialization_shows_balance_and_stages_at_a_glance(visit: Visit, run_id: str) -> None:
    assert visit.server.status_at_the_end(run_id) == "SUCCESS"
    visit.open("/assets/user_logins?view=events")
    visit.shows("4 received = 3 + 1 + 0")
    for name in ("commit_seconds", "oldest_message_age_at_commit_seconds", "rejected_by_reason"):
        visit.shows(name)


def test_a_check_that_passed_shows_what_it_means(visit: Visit, run_id: str) -> None:
    assert visit.server.status_at_the_end(run_id) == "SUCCESS"
    visit.open("/assets/masked_logins?view=checks&checkDetail=tokens_can_be_unmasked")
    visit.shows("Every token gives its original back.")
    visit.shows(re.compile("^Passed$"))


def test_a_failed_check_is_shown_as_failed_with_what_to_do(visit: Visit, run_id: str) -> None:
    assert visit.server.status_at_the_end(run_id) == "SUCCESS"
    visit.open("/assets/user_logins?view=checks&checkDetail=masked_columns_are_tokens")
    visit.shows("The masked columns of user_logins hold no text without the prefix of a token")
    visit.shows(re.compile("^Failed$"))
    visit.shows(re.compile("mask or remove them"))


def test_a_column_of_the_table_is_described_and_its_asset_owned(visit: Visit) -> None:
    visit.open("/assets/user_logins")
    visit.shows("Token of the IP: equal values have equal tokens under one key.")
    visit.shows("data-platform")
    visit.shows(re.compile("^Postgres$"))


@pytest.mark.parametrize("name", ["login_queue_depth", "alerts"])
def test_a_sensor_says_what_it_is_for_and_was_evaluated(visit: Visit, name: str) -> None:
    selector = {**LOCATION, "sensorName": name}
    description = visit.server.ask(_SENSOR, sensor=selector)["sensorOrError"]["description"]
    visit.open(f"{LOCATION_PATH}/sensors/{name}")
    visit.shows(description)
    visit.shows(re.compile(r"^\d+ runs? requested$"))
    expect(visit.page.get_by_text(re.compile("^Failure$"))).to_have_count(0)


@pytest.mark.parametrize(
    "path", ["/runs", "/automation", "/assets", "/assets/raw_login_batch?view=events"]
)
def test_the_other_pages_load(visit: Visit, run_id: str, path: str) -> None:
    assert visit.server.status_at_the_end(run_id) == "SUCCESS"
    landmarks = {
        "/runs": re.compile(f"^{run_id[:8]}$"),
        "/automation": re.compile("^alerts$"),
        "/assets": re.compile("^masked_logins$"),
    }
    visit.open(path)
    visit.shows(landmarks.get(path, "oldest_message_age_at_receive_seconds"))


def test_the_whole_visit_showed_no_error_and_nothing_raw(visit: Visit, run_id: str) -> None:
    visit.open(f"/runs/{run_id}")
    visit.shows("RUN_SUCCESS")
    visit.open("/assets/masked_logins?view=events")
    visit.shows("tokens_per_key")
    visit.open("/assets/user_logins?view=checks")
    visit.shows("masked_columns_are_tokens")
    shown = "".join([*visit.seen, *visit.server.answers])
    for text in (run_id, "tokens_per_key", "STEP_SUCCESS", "masked_columns_are_tokens"):
        assert text in shown
    assert visit.errors == []
    for secret in (CANARY_IP, CANARY_DEVICE, visit.server.stack.state.postgres_password):
        assert secret not in shown


_SENSOR = """
query ($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { id description sensorState { id } }
} }
"""
_STOP = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"


def _stop_the_sensor(server: Webserver) -> None:
    """So that the run is the one of the click."""
    selector = {**LOCATION, "sensorName": "login_queue_depth"}
    sensor = server.ask(_SENSOR, sensor=selector)["sensorOrError"]
    stopped = server.ask(_STOP, id=sensor["sensorState"]["id"])["stopSensor"]
    assert stopped["__typename"] == "StopSensorMutationResult", stopped
