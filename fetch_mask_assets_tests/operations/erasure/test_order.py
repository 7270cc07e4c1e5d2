"""The reason and the ticket of an erasure are kept, so they must not have a subject."""

from __future__ import annotations

import pytest

from fetch_mask_assets.operations.erasure.order import EraseRefusedError, erasure_order
from fetch_mask_assets.operations.erasure.subjects import parse_subjects

DEVICE = "canary-device-4711"
DEVICES = parse_subjects("device_id", [DEVICE, "12"])


def test_an_order_has_an_id_of_its_own() -> None:
    first, second = (erasure_order(DEVICES, "requested", "T-12") for _ in range(2))

    assert first.erasure_id != second.erasure_id
    assert (first.subjects, first.reason, first.ticket) == (DEVICES, "requested", "T-12")


@pytest.mark.parametrize(
    ("reason", "ticket"),
    [
        (" ", "T-1"),
        ("requested", "\t"),
        (f"for {DEVICE}", "T-1"),
        ("requested", f"T-{DEVICE}."),
        ("requested from 192.0.2.1", "T-1"),
    ],
)
def test_a_blank_or_revealing_text_is_refused(reason: str, ticket: str) -> None:
    with pytest.raises(EraseRefusedError, match=r"Nothing was erased\.$") as caught:
        erasure_order(DEVICES, reason, ticket)

    assert "canary" not in str(caught.value)
