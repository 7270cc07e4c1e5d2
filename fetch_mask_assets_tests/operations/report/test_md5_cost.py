"""The time to reverse an MD5 is measured with the search that reverses them."""

from __future__ import annotations

from fetch_mask_assets.operations.report.md5_cost import measure_md5
from fetch_mask_assets.operations.report.report import Space


def test_both_spaces_are_measured_and_extrapolated_to_their_size() -> None:
    measured = measure_md5(0)

    assert {each.name: each.values for each in measured.spaces} == {
        "ipv4": 2**32,
        "NNN-NN-NNNN": 10**9,
    }
    assert all(each.rate > 0 for each in measured.spaces)
    assert measured.cores >= 1


def test_the_time_for_all_is_their_number_over_the_rate() -> None:
    assert Space("ipv4", 2**32, 2.0**22).seconds == 1024
