"""The private parts of Dagster that the product relies on; a release may change them."""

from __future__ import annotations

import ast
from dataclasses import fields, is_dataclass
from pathlib import Path

from dagster import EventLogEntry
from dagster._core.storage.event_log.base import EventLogStorage

import fetch_mask_assets
from fetch_mask_assets.defs import dagster_internals
from fetch_mask_assets.defs.dagster_internals import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

PRODUCT = Path(fetch_mask_assets.__file__).parent


def test_only_one_module_imports_private_modules_of_dagster() -> None:
    importing = {
        path.relative_to(PRODUCT).as_posix()
        for path in PRODUCT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(name.startswith("dagster._") for name in _imports(node))
    }

    assert importing == {"defs/dagster_internals.py"}


def test_a_check_is_planned_before_it_succeeds_or_fails() -> None:
    names = {status.name for status in AssetCheckExecutionRecordStatus}

    assert names == {"PLANNED", "SUCCEEDED", "FAILED"}


def test_a_record_of_a_check_has_its_run_status_time_and_event() -> None:
    assert set(dagster_internals.__all__) == {
        "AssetCheckExecutionRecord",
        "AssetCheckExecutionRecordStatus",
    }
    needed = {"id", "run_id", "status", "event", "create_timestamp"}

    assert needed <= _fields(AssetCheckExecutionRecord)
    assert {"timestamp", "dagster_event"} <= _fields(EventLogEntry)


def test_the_history_of_a_check_is_read_from_the_event_log_storage() -> None:
    assert callable(EventLogStorage.get_asset_check_execution_history)


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _fields(kind: type) -> set[str]:
    if is_dataclass(kind):
        return {each.name for each in fields(kind)}
    return set(kind._fields)  # type: ignore[attr-defined]  # a named tuple
