"""Text for the terminal."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from fetch_mask_assets.cli.wording import printable, utc_time


def test_a_body_cannot_command_a_terminal() -> None:
    assert printable("\x1b[31mred\x07\u202e\r\n") == r"\x1b[31mred\x07\u202e\r\n"
    assert printable("\udc80é\U0001f600") == r"\udc80é" + "\U0001f600"


def test_a_time_is_shown_in_utc() -> None:
    noon = datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2)))

    assert utc_time(noon) == "2024-02-29 10:00:00 UTC"
