"""The views that analysts query, as data, and the comparison of a view with the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CHECK = "agrees_with_user_logins"

Figures = Mapping[str, int]
"""Counts by name; `rows` is the number of rows of the view."""


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A column of a view; `source` is its column of user_logins, None for a count of rows."""

    type: str
    description: str
    source: str | None


@dataclass(frozen=True, slots=True)
class AnalysisView:
    """A view of the schema login_ingest, with its columns as the database has them.

    `rule` describes the check, which counts over the table in another way than the view.
    """

    name: str
    description: str
    rule: str
    columns: Mapping[str, ViewColumn]


_IP = ViewColumn("text", "The newest token of the IP.", "masked_ip")
_DEVICE = ViewColumn("text", "The newest token of the device id.", "masked_device_id")

_COUNTED = {
    "logins": ViewColumn("bigint", "Number of logins.", None),
    "users": ViewColumn("bigint", "Number of users. A null user is not counted.", "user_id"),
    "first_day": ViewColumn("date", "UTC day of the first login.", "create_date"),
    "last_day": ViewColumn("date", "UTC day of the last login.", "create_date"),
}


ANALYSIS_VIEWS = (
    AnalysisView(
        "repeated_ips",
        "Values of the IP that occur in more than one login. Correct during a rotation.",
        "The repeated IPs, their logins and largest groups equal those of user_logins.",
        {"masked_ip": _IP, **_COUNTED},
    ),
    AnalysisView(
        "repeated_devices",
        "Values of the device id that occur in more than one login. Correct during a rotation.",
        "The repeated devices, their logins and largest groups equal those of user_logins.",
        {"masked_device_id": _DEVICE, **_COUNTED},
    ),
    AnalysisView(
        "users_sharing_devices",
        "Pairs of users of the same device, each pair once. Devices of more than 50 users are left"
        " out: see repeated_devices.",
        "The pairs equal those of the devices in user_logins: n users make n * (n - 1) / 2 pairs.",
        {
            "user_id": ViewColumn("varchar(128)", "User of the pair that sorts first.", "user_id"),
            "other_user_id": ViewColumn("varchar(128)", "Other user of the pair.", "user_id"),
            "devices": ViewColumn(
                "bigint", "Number of devices that both have used.", "masked_device_id"
            ),
            "first_day": ViewColumn(
                "date",
                "First day by which both had used one of these devices.",
                "create_date",
            ),
            "last_day": ViewColumn(
                "date",
                "Last day on which one of them used one of these devices.",
                "create_date",
            ),
        },
    ),
    AnalysisView(
        "readable_logins",
        "Logins with the newest tokens, and with the version as text.",
        "The view has every row of user_logins, and every version reads back as its number.",
        {
            "user_id": ViewColumn("varchar(128)", "The user, as the app sent it.", "user_id"),
            "device_type": ViewColumn(
                "varchar(32)", "The kind of device, as the app sent it.", "device_type"
            ),
            "masked_ip": _IP,
            "masked_device_id": _DEVICE,
            "locale": ViewColumn("varchar(32)", "The locale, or null.", "locale"),
            "app_version": ViewColumn(
                "integer",
                "major * 1,000,000 + minor * 1,000 + patch; null if the version has no such"
                " number. Sort and compare by it.",
                "app_version",
            ),
            "version": ViewColumn(
                "text",
                "app_version as major.minor.patch. As text, 10.0.0 sorts before 2.0.0: sort and"
                " compare by app_version.",
                "app_version",
            ),
            "create_date": ViewColumn(
                "date", "The UTC day on which SQS accepted the message.", "create_date"
            ),
        },
    ),
)


def differing(view: Figures, table: Figures) -> tuple[str, ...]:
    """The names of the figures that differ, or that are on one side only."""
    return tuple(sorted(name for name in {*view, *table} if view.get(name) != table.get(name)))
