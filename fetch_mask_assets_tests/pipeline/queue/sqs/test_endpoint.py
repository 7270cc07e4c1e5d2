"""The endpoint of SQS: the same as boto3's, by every way of stating it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import BotoCoreError, NoCredentialsError

from fetch_mask_assets.pipeline.queue.sqs.endpoint import resolve_endpoint

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "key-id", "AWS_SECRET_ACCESS_KEY": "secret"}
REGION = {"AWS_DEFAULT_REGION": "eu-west-1"}
LOCAL = {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}
STATED = KEYS | REGION | LOCAL


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize(
    "environment",
    [
        STATED,
        STATED | {"AWS_SESSION_TOKEN": "token"},
        STATED | {"AWS_SESSION_TOKEN": "token", "AWS_SECURITY_TOKEN": "older"},
        STATED | {"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9324"},
        STATED | {"AWS_ENDPOINT_URL_SQS": "", "AWS_SESSION_TOKEN": ""},
        STATED | {"AWS_ENDPOINT_URL": "https://sqs.internal.example.com"},
        STATED | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        STATED | {"AWS_PROFILE": "other"},
        STATED | {"AWS_CREDENTIAL_EXPIRATION": "2100-01-01T00:00:00Z", "AWS_SESSION_TOKEN": "t"},
        KEYS | REGION,
        KEYS | {"AWS_DEFAULT_REGION": "cn-north-1"},
        KEYS | REGION | {"AWS_USE_FIPS_ENDPOINT": "true"},
        KEYS | LOCAL | {"AWS_PROFILE": "other"},
        REGION | LOCAL | {"AWS_PROFILE": "other"},
    ],
    ids=str,
)
def test_an_environment_leads_where_it_leads_boto3(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[profile other]\nregion = us-west-2\naws_access_key_id = of-the-profile\n"
        "aws_secret_access_key = secret-of-the-profile\nendpoint_url = http://127.0.0.1:1\n"
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    session = boto3.session.Session()
    client = session.client("sqs")
    expected = session.get_credentials()
    assert expected is not None

    endpoint = resolve_endpoint({}, os.environ)

    assert endpoint.url.rstrip("/") == client.meta.endpoint_url.rstrip("/")
    assert endpoint.region == client.meta.region_name
    assert endpoint.credentials() == expected.get_frozen_credentials()[:3]


@pytest.mark.parametrize("elsewhere", [{}, {"endpoint_url": "https://sqs.internal.example.com"}])
def test_options_go_before_the_environment(elsewhere: dict[str, str]) -> None:
    given = {
        "aws_access_key_id": "mine",
        "aws_secret_access_key": "own",
        "region_name": "us-east-2",
    }

    endpoint = resolve_endpoint(given | elsewhere, {**STATED, "AWS_SESSION_TOKEN": "another's"})

    assert endpoint.credentials() == ("mine", "own", None)
    assert endpoint.region == "us-east-2"


@pytest.mark.parametrize(
    "environment",
    [KEYS, KEYS | LOCAL, REGION | LOCAL | {"AWS_ACCESS_KEY_ID": "key-id"}, {"AWS_PROFILE": "none"}],
    ids=str,
)
def test_half_of_the_settings_is_an_error(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BotoCoreError):
        resolve_endpoint({}, os.environ)


def test_no_credentials_are_an_error_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    endpoint = resolve_endpoint({}, os.environ)
    with pytest.raises(NoCredentialsError):
        endpoint.credentials()


def test_temporary_credentials_are_refreshed_before_they_expire(tmp_path: Path) -> None:
    # Within minutes of their end botocore asks for new ones at each use.
    answer = {"Version": 1, "SecretAccessKey": "s", "SessionToken": "t"}
    source = tmp_path / "credentials.py"
    source.write_text(
        "import datetime as dt, json, uuid\n"
        "end = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)\n"
        f"answer = {json.dumps(answer)}\n"
        "answer |= {'AccessKeyId': uuid.uuid4().hex, 'Expiration': end.isoformat()}\n"
        "print(json.dumps(answer))\n"
    )
    (tmp_path / "config").write_text(
        f"[default]\nregion = eu-west-1\ncredential_process = {sys.executable} {source}\n"
    )
    endpoint = resolve_endpoint({}, os.environ)

    first, second = endpoint.credentials(), endpoint.credentials()

    assert first.access_key != second.access_key
    assert first.token == second.token == answer["SessionToken"]


def test_an_endpoint_does_not_show_its_credentials() -> None:
    endpoint = resolve_endpoint({}, STATED)

    assert "secret" not in repr(endpoint) + repr(endpoint.credentials())


def test_a_stated_endpoint_needs_no_session_of_botocore() -> None:
    program = (
        "import os, sys\n"
        "from fetch_mask_assets.pipeline.queue.sqs.endpoint import resolve_endpoint\n"
        "resolve_endpoint({}, os.environ); print('botocore.session' in sys.modules)"
    )
    done = subprocess.run(  # noqa: S603 (a program of this test)
        [sys.executable, "-c", program],
        env={**os.environ, **STATED},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
