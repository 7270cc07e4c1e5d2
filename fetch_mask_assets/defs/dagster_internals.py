"""The private names of Dagster that this product uses, and no others.

Dagster may move them in any release; `test_dagster_internals` names what is relied on.
"""

from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

__all__ = ["AssetCheckExecutionRecord", "AssetCheckExecutionRecordStatus"]
