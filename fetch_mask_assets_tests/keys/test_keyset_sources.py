"""Keysets in files, in Secrets Manager and wrapped under KMS, against a real server."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

import pytest
from tink import json_proto_keyset_format, proto_keyset_format, secret_key_access

from fetch_mask_assets.aws import connect_aws
from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.keyset import KEYSET_NAMES, new_keyset
from fetch_mask_assets.keys.keyset_change import rotated
from fetch_mask_assets.keys.storage import Keysets, keysets_at, read_keyring
from fetch_mask_assets.local_stack.state import free_port
from fetch_mask_assets_tests.support.factories import new_keysets, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fetch_mask_assets.local_stack.stack import Stack

AwsClient: TypeAlias = Any
"""Clients that boto3 makes at run time, of services whose stubs are not installed."""


@pytest.fixture
def aws(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that boto3 reads."""
    for name, value in stack.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def secrets_location(aws: None) -> str:  # noqa: ARG001 (needed for its effect)
    """A prefix of the test's own."""
    return f"aws-secretsmanager://{uuid4().hex}/masking"


@pytest.fixture
def kms(aws: None) -> AwsClient:  # noqa: ARG001 (needed for its effect)
    """A client of KMS."""
    return connect_aws("kms", KeysetError)


@pytest.fixture
def kms_key(kms: AwsClient) -> str:
    """The id of a KMS key of the test's own."""
    return str(kms.create_key()["KeyMetadata"]["KeyId"])


@pytest.fixture(params=["files", "secrets", "wrapped files", "wrapped secrets"])
def keysets(
    request: pytest.FixtureRequest, tmp_path: Path, secrets_location: str, kms_key: str
) -> Keysets:
    """An empty place of each kind."""
    location = secrets_location if "secrets" in request.param else str(tmp_path / "place")
    return keysets_at(location, kms_key if "wrapped" in request.param else None)


def test_a_stored_keyset_is_read_unchanged(keysets: Keysets) -> None:
    texts = _fill(keysets)
    assert {name: json.loads(keysets.read(name)) for name in KEYSET_NAMES} == {
        name: json.loads(text) for name, text in texts.items()
    }
    assert (
        read_keyring(keysets)
        .masker("ip")
        .unmask(read_keyring(keysets).masker("ip").mask("192.0.2.1"))
    )


def test_a_replaced_keyset_is_completely_new(keysets: Keysets) -> None:
    texts = _fill(keysets)
    rotation = rotated("ip", texts["ip"])
    keysets.replace("ip", rotation.keyset)
    assert json.loads(keysets.read("ip")) == json.loads(rotation.keyset)
    assert read_keyring(keysets).masker("ip").primary_key_id == rotation.key_id


def test_create_overwrites_no_keyset(keysets: Keysets) -> None:
    texts = _fill(keysets)
    with pytest.raises(KeysetError, match="was not changed"):
        keysets.create("ip", new_keyset("ip"))
    assert json.loads(keysets.read("ip")) == json.loads(texts["ip"])


def test_reading_creates_no_keyset(keysets: Keysets) -> None:
    for _ in range(2):
        with pytest.raises(KeysetError, match=r"no keyset at .*ip.*MASKING_KEYSETS.*never made"):
            read_keyring(keysets)
    assert not any(keysets.exists(name) for name in KEYSET_NAMES)


def test_no_repr_and_no_debug_log_contains_a_key(
    keysets: Keysets, caplog: pytest.LogCaptureFixture, kms_key: str
) -> None:
    caplog.set_level(logging.DEBUG)
    location = keysets.location("ip").removesuffix(".json").removesuffix("/ip")
    again = keysets_at(location, kms_key if keysets.wrapping else None)
    texts = _fill(again)
    again.replace("ip", rotated("ip", texts["ip"]).keyset)
    seen = caplog.text + repr(again) + repr(read_keyring(again))
    stored = [again.store.read(name) or "" for name in KEYSET_NAMES]
    assert not any(secret in seen for secret in (*_material(texts), *stored))


@pytest.mark.parametrize("prefix", ["", "file:", "file://", "file://localhost"])
def test_a_directory_may_be_a_path_or_a_file_url(keysets_directory: Path, prefix: str) -> None:
    read_keyring(keysets_at(f"{prefix}{keysets_directory}"))


def test_a_file_url_may_be_encoded(tmp_path: Path) -> None:
    keysets_at(str(tmp_path / "two words")).create("ip", new_keyset("ip"))
    assert keysets_at(f"file://{tmp_path}/two%20words").exists("ip")


@pytest.mark.parametrize(
    "location",
    ["s3://bucket/keys", "https://x/y", "aws-secretsmanager:prod", "aws-secretsmanager://",
     "aws-secretsmanager:///", "aws-secretsmanager://pr od", "file://host/keys", "file:keys",
     "file:", "vault:keys"],
)  # fmt: skip
def test_an_invalid_location_is_refused_with_the_name_of_its_setting(location: str) -> None:
    with pytest.raises(KeysetError, match="MASKING_KEYSETS"):
        keysets_at(location)


def test_a_failed_write_keeps_the_old_keyset_and_leaves_no_file(
    keysets_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keysets = keysets_at(str(keysets_directory))
    before, files = keysets.read("ip"), _files(keysets_directory)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KeysetError, match=r"ip\.json cannot be written: OSError") as caught:
        keysets.replace("ip", rotated("ip", before).keyset)
    assert not any(secret in shown(caught.value) for secret in _material({"ip": before}))
    with pytest.raises(KeysetError, match="cannot be written"):
        keysets_at(str(keysets_directory.parent / "new")).create("ip", before)
    monkeypatch.undo()
    assert keysets.read("ip") == before
    assert _files(keysets_directory) == files
    assert _files(keysets_directory.parent / "new") == set()


def test_an_unfinished_file_does_not_block_the_next_rotation(
    keysets_directory: Path,
) -> None:
    keysets = keysets_at(str(keysets_directory))
    (keysets_directory / ".ip.json.unfinished").write_text("half of a key", encoding="utf-8")
    keysets.replace("ip", rotated("ip", keysets.read("ip")).keyset)
    assert _files(keysets_directory) == {f"{name}.json" for name in KEYSET_NAMES}


def test_a_replaced_file_stays_private_and_a_link_stays_a_link(
    keysets_directory: Path, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "ip.json").symlink_to(keysets_directory / "ip.json")
    keysets = keysets_at(str(links))
    rotation = rotated("ip", keysets.read("ip"))
    keysets.replace("ip", rotation.keyset)
    assert (links / "ip.json").is_symlink()
    target = keysets_directory / "ip.json"
    assert target.read_text("utf-8") == rotation.keyset
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_keyset_rotated_by_root_keeps_its_owner(keysets_directory: Path) -> None:
    path = keysets_directory / "ip.json"
    os.chown(path, 65534, 65534)
    keysets = keysets_at(str(keysets_directory))
    keysets.replace("ip", rotated("ip", keysets.read("ip")).keyset)
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_thirty_keys_fit_the_size_limit_of_kms() -> None:
    """As https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html bounds it."""
    keyset = new_keyset("ip")
    for _ in range(29):
        keyset = rotated("ip", keyset).keyset
    handle = json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
    assert len(proto_keyset_format.serialize(handle, secret_key_access.TOKEN)) <= 4096


def test_the_version_before_a_rotation_stays_in_secrets_manager(secrets_location: str) -> None:
    keysets = keysets_at(secrets_location)
    texts = _fill(keysets)
    keysets.replace("ip", rotated("ip", texts["ip"]).keyset)
    previous = connect_aws("secretsmanager", KeysetError).get_secret_value(
        SecretId=keysets.location("ip").partition("://")[2], VersionStage="AWSPREVIOUS"
    )
    assert previous["SecretString"] == texts["ip"]


def test_a_binary_secret_is_refused_without_a_quote(secrets_location: str) -> None:
    keysets = keysets_at(secrets_location)
    connect_aws("secretsmanager", KeysetError).create_secret(
        Name=keysets.location("ip").partition("://")[2], SecretBinary=b"canary"
    )
    with pytest.raises(KeysetError, match="is binary: store") as caught:
        keysets.read("ip")
    assert "canary" not in shown(caught.value)


@pytest.mark.parametrize("place", ["files", "secrets"])
def test_a_wrapped_keyset_contains_no_key(
    place: str, tmp_path: Path, secrets_location: str, kms_key: str
) -> None:
    keysets = keysets_at(str(tmp_path) if place == "files" else secrets_location, kms_key)
    texts = _fill(keysets)
    stored = "".join(keysets.store.read(name) or "" for name in KEYSET_NAMES)
    assert not any(secret in stored for secret in _material(texts))


def test_a_wrapped_keyset_without_the_setting_is_refused(tmp_path: Path, kms_key: str) -> None:
    _fill(keysets_at(str(tmp_path), kms_key))
    with pytest.raises(KeysetError, match=r"keyset of ip at .* is wrapped: set MASKING_KMS_KEY"):
        read_keyring(keysets_at(str(tmp_path)))


def test_a_keyset_in_the_clear_with_the_setting_is_refused(
    keysets_directory: Path, kms_key: str
) -> None:
    with pytest.raises(
        KeysetError, match=r"keyset of ip at .* is not wrapped, and MASKING_KMS_KEY"
    ):
        read_keyring(keysets_at(str(keysets_directory), kms_key))


def test_a_wrapped_keyset_under_another_name_is_refused(tmp_path: Path, kms_key: str) -> None:
    keysets = keysets_at(str(tmp_path), kms_key)
    _fill(keysets)
    (tmp_path / "device_id.json").write_text((tmp_path / "ip.json").read_text("utf-8"), "utf-8")
    with pytest.raises(KeysetError, match=r"unwrapping the keyset of device_id: Invalid.*another"):
        read_keyring(keysets)


def test_a_keyset_wrapped_under_another_key_is_refused(
    tmp_path: Path, kms_key: str, kms: AwsClient
) -> None:
    _fill(keysets_at(str(tmp_path), kms_key))
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(KeysetError, match=r"keyset of ip .*under another KMS key"):
        read_keyring(keysets_at(str(tmp_path), other))


def test_a_disabled_kms_key_is_refused_by_name(
    tmp_path: Path, kms_key: str, kms: AwsClient
) -> None:
    keysets = keysets_at(str(tmp_path), kms_key)
    _fill(keysets)
    kms.disable_key(KeyId=kms_key)
    with pytest.raises(KeysetError, match=r"unwrapping the keyset of ip: Disabled.*Enable the KMS"):
        read_keyring(keysets)


def test_a_kms_key_may_be_named_by_arn_and_by_alias(
    tmp_path: Path, kms_key: str, kms: AwsClient
) -> None:
    alias = f"alias/{uuid4().hex}"
    kms.create_alias(AliasName=alias, TargetKeyId=kms_key)
    arn = kms.describe_key(KeyId=kms_key)["KeyMetadata"]["Arn"]
    _fill(keysets_at(str(tmp_path), alias))
    assert read_keyring(keysets_at(str(tmp_path), arn)) is not None


@pytest.mark.parametrize("junk", ['{"encryptedKeyset": "canary"}', '{"encryptedKeyset": 7}',
                                  '{"encryptedKeyset": ""}', "canary", "[" * 100_000])  # fmt: skip
def test_an_invalid_wrapped_keyset_is_refused_without_a_quote(
    tmp_path: Path, kms_key: str, junk: str
) -> None:
    keysets = keysets_at(str(tmp_path), kms_key)
    _fill(keysets)
    (tmp_path / "ip.json").write_text(junk, "utf-8")
    with pytest.raises(KeysetError, match="keyset of ip") as caught:
        read_keyring(keysets)
    assert "canary" not in shown(caught.value)


def test_a_keyset_that_kms_cannot_wrap_is_not_stored(
    tmp_path: Path, kms_key: str, kms: AwsClient
) -> None:
    kms.disable_key(KeyId=kms_key)
    with pytest.raises(KeysetError, match="wrapping the keyset of ip"):
        keysets_at(str(tmp_path / "place"), kms_key).create("ip", new_keyset("ip"))
    assert not (tmp_path / "place").exists()


def test_an_unreachable_aws_is_reported_with_the_settings_to_check(
    secrets_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(KeysetError, match=r"could not be reached.*EndpointConnectionError.*AWS_"):
        keysets_at(secrets_location).read("ip")


def test_a_region_that_is_not_set_is_named(
    secrets_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(KeysetError, match=r"connecting to secretsmanager: NoRegion.*AWS_DEFAULT_R"):
        keysets_at(secrets_location)


def test_a_run_reads_wrapped_secrets_through_its_resource(
    secrets_location: str, kms_key: str
) -> None:
    # Here, because Dagster takes seconds to import and no other test of these rooms needs it.
    from fetch_mask_assets.defs.resources import MaskingKeysResource  # noqa: PLC0415

    _fill(keysets_at(secrets_location, kms_key))
    resource = MaskingKeysResource(location=secrets_location, kms_key=kms_key)
    assert resource.keyring is resource.keyring


def test_keysets_can_be_copied_between_locations(
    keysets_directory: Path, secrets_location: str, kms_key: str
) -> None:
    old, new = keysets_at(str(keysets_directory)), keysets_at(secrets_location, kms_key)
    for name in KEYSET_NAMES:
        new.create(name, old.read(name))
    assert read_keyring(new).check_values == read_keyring(old).check_values


def _fill(keysets: Keysets) -> Mapping[str, str]:
    texts = new_keysets()
    for name, text in texts.items():
        keysets.create(name, text)
    return texts


def _material(texts: Mapping[str, str]) -> list[str]:
    return [key["keyData"]["value"] for text in texts.values() for key in json.loads(text)["key"]]


def _files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}
