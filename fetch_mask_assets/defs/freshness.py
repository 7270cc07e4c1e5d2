"""How fresh the table has to be, as Dagster's own policy."""

from collections.abc import Sequence
from datetime import timedelta

from dagster import AssetsDefinition, AssetSpec, FreshnessPolicy, apply_freshness_policy

from fetch_mask_assets.defs.assets import USER_LOGINS


def with_freshness(assets: Sequence[AssetsDefinition], seconds: int) -> list[AssetsDefinition]:
    """The assets, the table with its policy: a load, or a look at an empty queue, so often.

    The sensor on queue depth asks for a run after half of that time, so that an empty queue does
    not make the table stale.
    """
    policy = FreshnessPolicy.time_window(
        fail_window=timedelta(seconds=seconds), warn_window=timedelta(seconds=seconds * 3 // 4)
    )

    def apply(spec: AssetSpec) -> AssetSpec:
        return apply_freshness_policy(spec, policy) if spec.key == USER_LOGINS else spec

    return [each.map_asset_specs(apply) for each in assets]
