"""Keysets in files that only their owner can read."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from fetch_mask_assets.errors import KeysetError
from fetch_mask_assets.keys.storage import create_keysets, keysets_at, read_keyring

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("ip", "device_id", "quarantine")


def test_keysets_are_created_private_and_open(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "keysets"
    assert create_keysets(directory) == NAMES
    assert _mode(directory) == 0o700
    assert [_mode(directory / f"{name}.json") for name in NAMES] == [0o600, 0o600, 0o600]
    keyring = read_keyring(directory)
    assert keyring.masker("ip").unmask(keyring.masker("ip").mask("192.0.2.1")) == "192.0.2.1"


def test_each_keyset_has_a_key_of_its_own(tmp_path: Path) -> None:
    create_keysets(tmp_path)
    checks = [
        check
        for checks in read_keyring(tmp_path).check_values.values()
        for check in checks.values()
    ]
    assert len(set(checks)) == 3


def test_existing_keysets_are_not_changed(keysets_directory: Path) -> None:
    before = {name: (keysets_directory / f"{name}.json").read_text("utf-8") for name in NAMES}
    (keysets_directory / "ip.json").unlink()
    assert create_keysets(keysets_directory) == ("ip",)
    after = {name: (keysets_directory / f"{name}.json").read_text("utf-8") for name in NAMES}
    assert after["ip"] != before["ip"]
    assert (after["device_id"], after["quarantine"]) == (before["device_id"], before["quarantine"])
    assert create_keysets(keysets_directory) == ()


def test_concurrent_creations_overwrite_no_keyset(tmp_path: Path) -> None:
    def make(_number: int) -> tuple[str, ...]:
        try:
            return create_keysets(tmp_path)
        except FileExistsError:
            return ()

    with ThreadPoolExecutor(4) as pool:
        made = [name for names in pool.map(make, range(4)) for name in names]
    assert len(made) == len(set(made))
    assert (tmp_path / "ip.json").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_a_keyset_readable_by_other_users_is_refused(keysets_directory: Path, mode: int) -> None:
    path = keysets_directory / "device_id.json"
    path.chmod(mode)
    with pytest.raises(KeysetError, match=rf"device_id\.json has mode {mode:04o}.*0600"):
        read_keyring(keysets_directory)


def test_a_stricter_mode_is_accepted(keysets_directory: Path) -> None:
    (keysets_directory / "ip.json").chmod(0o400)
    read_keyring(keysets_directory)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_keyset_is_reported_and_not_created(keysets_directory: Path, name: str) -> None:
    path = keysets_directory / f"{name}.json"
    path.unlink()
    with pytest.raises(KeysetError, match=rf"no keyset at .*{name}\.json.*MASKING_KEYSETS"):
        read_keyring(keysets_directory)
    assert not path.exists()


@pytest.mark.parametrize("junk", ["", "CANARY", '{"primaryKeyId": "CANARY"}', "[]", "null", "\0"])
def test_an_invalid_keyset_is_refused_without_a_quote(keysets_directory: Path, junk: str) -> None:
    (keysets_directory / "ip.json").write_text(junk, encoding="utf-8")
    with pytest.raises(KeysetError, match="keyset of ip is not a Tink keyset") as caught:
        read_keyring(keysets_directory)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_binary_file_is_refused_without_a_quote(keysets_directory: Path) -> None:
    (keysets_directory / "ip.json").write_bytes(b"\xff\xfeCANARY")
    with pytest.raises(KeysetError, match="cannot be read: UnicodeDecodeError") as caught:
        read_keyring(keysets_directory)
    assert "CANARY" not in str(caught.value)


def test_a_directory_in_place_of_a_keyset_is_refused(keysets_directory: Path) -> None:
    path = keysets_directory / "ip.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(KeysetError, match="cannot be read: IsADirectoryError"):
        read_keyring(keysets_directory)


def test_a_keyset_of_another_field_kind_is_refused(keysets_directory: Path) -> None:
    sealing = (keysets_directory / "quarantine.json").read_text("utf-8")
    (keysets_directory / "ip.json").write_text(sealing, encoding="utf-8")
    with pytest.raises(KeysetError, match="of another kind"):
        read_keyring(keysets_directory)


def test_a_keyring_does_not_show_keys(keysets_directory: Path) -> None:
    keyset = json.loads((keysets_directory / "ip.json").read_text("utf-8"))
    keyring = read_keyring(keysets_directory)
    assert keyset["key"][0]["keyData"]["value"] not in repr(keyring)
    assert all(
        repr(check) not in repr(keyring) and check.hex() not in repr(keyring)
        for checks in keyring.check_values.values()
        for check in checks.values()
    )


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
def test_a_directory_writable_by_other_users_is_refused(keysets_directory: Path, mode: int) -> None:
    keysets = keysets_at(str(keysets_directory))
    text = keysets.read("ip")
    keysets_directory.chmod(mode)
    for attempt in (
        lambda: read_keyring(keysets_directory),
        lambda: keysets.replace("ip", text),
        lambda: keysets.create("another", text),
    ):
        with pytest.raises(KeysetError, match=f"has mode {mode:04o}.*chmod go-w"):
            attempt()
    assert sorted(each.stem for each in keysets_directory.iterdir()) == sorted(NAMES)


def test_a_world_writable_parent_directory_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "open" / "above" / "keysets"
    create_keysets(directory)
    (tmp_path / "open").chmod(0o775)
    read_keyring(directory)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(KeysetError, match="has mode 0777"):
        read_keyring(directory)


def test_the_directories_of_a_link_and_of_its_target_are_checked(tmp_path: Path) -> None:
    create_keysets(tmp_path / "real")
    links = tmp_path / "links"
    links.mkdir(mode=0o700)
    for name in NAMES:
        (links / f"{name}.json").symlink_to(tmp_path / "real" / f"{name}.json")
    read_keyring(links)
    for directory in (links, tmp_path / "real"):
        directory.chmod(0o777)
        with pytest.raises(KeysetError, match=f"{directory.name} has mode 0777"):
            read_keyring(links)
        directory.chmod(0o700)


def test_a_sticky_directory_is_accepted_if_the_user_owns_its_files(keysets_directory: Path) -> None:
    keysets_directory.chmod(0o1777)
    read_keyring(keysets_directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_keyset_of_another_user_in_a_sticky_directory_is_refused(keysets_directory: Path) -> None:
    os.chown(keysets_directory / "ip.json", 65_534, 65_534)
    read_keyring(keysets_directory)
    keysets_directory.chmod(0o1777)
    with pytest.raises(KeysetError, match="belongs to another user"):
        read_keyring(keysets_directory)
    os.chown(keysets_directory, 65_534, 65_534)
    read_keyring(keysets_directory)


def test_a_directory_of_another_user_is_refused_but_for_root(
    keysets_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4_711)
    owner = keysets_directory.stat().st_uid
    if owner == 0:
        read_keyring(keysets_directory)
        os.chown(keysets_directory, 65_534, 65_534)
    with pytest.raises(KeysetError, match="belongs to another user"):
        read_keyring(keysets_directory)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
