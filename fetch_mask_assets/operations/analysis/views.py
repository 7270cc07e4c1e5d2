"""The views that analysts query, as data, and whether a view agrees with the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CHECK = "agrees_with_user_logins"

Figures = Mapping[str, int]
"""Counts by name; `rows` is how many rows the view has."""

_IP = ("text", "The newest token of the IP.")
_DEVICE = ("text", "The newest token of the device id.")
_DAY = "The UTC day on which SQS took the message."

_COUNTED = {
    "logins": ("bigint", "How many logins have it."),
    "users": ("bigint", "Across how many users. A null user is none."),
    "first_day": ("date", "The UTC day of the first of these logins."),
    "last_day": ("date", "The UTC day of the last of these logins."),
}


@dataclass(frozen=True, slots=True)
class AnalysisView:
    """A view of the schema login_ingest: its columns with type and meaning, as the database has it.

    `counted` says what the check counts over the table itself, in another way than the view does.
    """

    name: str
    description: str
    counted: str
    columns: Mapping[str, tuple[str, str]]


ANALYSIS_VIEWS = (
    AnalysisView(
        "repeated_ips",
        "IPs that occur in more than one login. Only tokens count. Right while keys are rotated.",
        "The repeated IPs, their logins and largest groups are those of user_logins itself.",
        {"masked_ip": _IP, **_COUNTED},
    ),
    AnalysisView(
        "repeated_devices",
        "Devices that occur in more than one login. Only tokens count. Right while keys are"
        " rotated.",
        "The repeated devices, their logins and largest groups are those of user_logins itself.",
        {"masked_device_id": _DEVICE, **_COUNTED},
    ),
    AnalysisView(
        "users_sharing_devices",
        "Pairs of users that have used the same device, each pair once. A device of more than 50"
        " users makes no pairs: see repeated_devices for it.",
        "The pairs are as many as the devices of user_logins make: n users, n * (n - 1) / 2 pairs.",
        {
            "user_id": ("varchar(128)", "One user of the pair, the first in the order of text."),
            "other_user_id": ("varchar(128)", "The other user of the pair."),
            "devices": ("bigint", "How many devices both have used."),
            "since": ("date", "The first day by which both had used one of these devices."),
            "last_day": ("date", "The last day on which one of them used one of these devices."),
        },
    ),
    AnalysisView(
        "readable_logins",
        "Every login, with tokens that hold while keys are rotated and the version as text.",
        "Every row of user_logins is there, and every version reads back as its number.",
        {
            "user_id": ("varchar(128)", "The user, as the app sent it."),
            "device_type": ("varchar(32)", "The kind of device, as the app sent it."),
            "masked_ip": _IP,
            "masked_device_id": _DEVICE,
            "locale": ("varchar(32)", "The locale, or null."),
            "app_version": (
                "integer",
                (
                    "major * 1,000,000 + minor * 1,000 + patch; null if the version has no such"
                    " number. Sort and compare by it."
                ),
            ),
            "version": (
                "text",
                (
                    "app_version as major.minor.patch, to read. As text 10.0.0 comes before 2.0.0:"
                    " sort and compare by app_version."
                ),
            ),
            "create_date": ("date", _DAY),
        },
    ),
)


def differing(view: Figures, table: Figures) -> tuple[str, ...]:
    """The names of the figures that are not the same, or that only one of both has."""
    return tuple(sorted(name for name in {*view, *table} if view.get(name) != table.get(name)))
