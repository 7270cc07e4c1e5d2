"""Version numbers keep their order and can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch_mask_assets.masking.version_number import version_number
from fetch_mask_assets_tests.support.versions import version_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("2", 2_000_000),
        ("2.3", 2_003_000),
        ("2.3.0", 2_003_000),
        ("02.3.0", 2_003_000),
        ("6.02", 6_002_000),
        ("23.0", 23_000_000),
        ("0.9.0", 9_000),
        ("0.10", 10_000),
        ("0.96", 96_000),
        ("1.2.3", 1_002_003),
        ("2.999.999", 2_999_999),
        ("2.000.001", 2_000_001),
        ("2147.483.647", 2_147_483_647),
    ],
)
def test_a_version_has_a_number(text: str, expected: int) -> None:
    actual = version_number(text)

    assert expected == actual


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "2.3.0-beta",
        "2.3.0+7",
        "v2",
        "2.3.0.1",
        "2..0",
        ".2",
        "2.",
        "2.1000.0",
        "2.0.1000",
        "2147.483.648",
        "2148",
        "99999999999.0.0",
        "9" * 256,
        "-2.3.0",
        "+2",
        " 2.3.0",
        "2.3.0\n",
        "2. 3",
        "2,3",
        "2_0",
        "1e3",
        "0x2",
        "٢.٣.٠",  # noqa: RUF001 (digits that are not ASCII)
        "２.３",  # noqa: RUF001 (digits that are not ASCII)
        "2.3.²",
        "None",
        "null",
    ],
)
def test_a_text_that_has_no_such_number_gives_none(text: str) -> None:
    assert version_number(text) is None


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0.0.0"),
        (2_003_000, "2.3.0"),
        (23_000_000, "23.0.0"),
        (96_000, "0.96.0"),
        (2_147_483_647, "2147.483.647"),
    ],
)
def test_a_number_can_be_read_back(number: int, expected: str) -> None:
    actual = version_text(number)

    assert expected == actual


_PARTS = st.tuples(st.integers(0, 2146), st.integers(0, 999), st.integers(0, 999))


@settings(max_examples=100, deadline=None)
@given(one=_PARTS, other=_PARTS)
def test_numbers_keep_the_order_of_versions(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    first, second = (version_number(".".join(map(str, parts))) for parts in (one, other))

    assert first is not None
    assert second is not None
    assert (one < other) == (first < second)
    assert (one == other) == (first == second)


@settings(max_examples=100, deadline=None)
@given(number=st.integers(0, 2**31 - 1))
def test_every_number_that_an_int4_holds_is_that_of_its_text(number: int) -> None:
    assert version_number(version_text(number)) == number


@settings(max_examples=150, deadline=None)
@given(text=st.text() | st.text("0123456789.", max_size=14))
def test_no_text_gives_a_number_that_an_int4_cannot_hold(text: str) -> None:
    number = version_number(text)

    assert number is None or 0 <= number <= 2_147_483_647
