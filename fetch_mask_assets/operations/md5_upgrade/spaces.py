"""Spaces of candidate values: all IPv4 addresses, and the device ids of a pattern."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from ipaddress import IPv4Network, collapse_addresses
from typing import TypeAlias

from fetch_mask_assets.errors import FetchMaskError
from fetch_mask_assets.masking.canonical import IP_ADDRESS
from fetch_mask_assets.masking.fields import MaskedField
from fetch_mask_assets.operations.md5_upgrade.md5 import MAX_TEXT_BYTES
from fetch_mask_assets.operations.md5_upgrade.spans import Span

MAX_SPACE = 10**12
MIN_SPACE = 1_000
"""A smaller pattern would name its values on a command line, which other users can read."""

MAX_PREFIX_LENGTH = 24
"""Bits of a network prefix; a longer one would name addresses on the command line."""

Parts: TypeAlias = tuple[tuple[bytes, ...], ...]
"""The choices for each part of a text, from left to right."""


class SpaceError(FetchMaskError):
    """A pattern or a network cannot be tried. The message carries no value."""


@dataclass(frozen=True, slots=True)
class Space:
    """Numbered texts: each is one choice from every part, the last part running fastest."""

    name: str
    parts: Parts = dataclass_field(repr=False)

    @property
    def size(self) -> int:
        """The number of texts."""
        return math.prod(len(part) for part in self.parts)

    def text(self, number: int) -> str:
        """Return the text of a number."""
        return choose(self.parts, number).decode("ascii")


@dataclass(frozen=True, slots=True)
class Search:
    """A space, and the spans of it to try."""

    space: Space
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """The number of texts."""
        return sum(map(len, self.spans))


_OCTET = tuple(b"%d" % number for number in range(256))
_DOT = (b".",)
IPV4 = Space("ipv4", (_OCTET, _DOT, _OCTET, _DOT, _OCTET, _DOT, _OCTET))
"""Every IPv4 address in dotted text; its number is the address."""

DEVICE_ID_PATTERN = "NNN-NN-NNNN"

_WILDCARDS: Mapping[str, str] = {
    "N": "0123456789",
    "x": "0123456789abcdef",
    "X": "0123456789ABCDEF",
}


def choose(parts: Parts, number: int) -> bytes:
    """Return the text of a number, given the choices for each part."""
    chosen = []
    for part in reversed(parts):
        number, at = divmod(number, len(part))
        chosen.append(part[at])
    return b"".join(reversed(chosen))


def pattern_space(pattern: str) -> Space:
    r"""Return the texts of a pattern.

    `N` is a digit, `x` or `X` a hex digit in lower or upper case; `\` makes the next N, x or X
    literal.

    Raises:
        SpaceError: the pattern has too few, too many or too long texts.
    """
    space = Space(pattern, tuple(_parts(pattern)))
    if not pattern.isascii() or len(space.parts) > MAX_TEXT_BYTES:
        raise SpaceError(f"a pattern must be ASCII, with texts of up to {MAX_TEXT_BYTES} bytes.")
    if not MIN_SPACE <= space.size <= MAX_SPACE:
        raise SpaceError(
            f"a pattern must have {MIN_SPACE:,} to {MAX_SPACE:,} values. Put fewer values into a"
            " file for --values; more take too long to try."
        )
    return space


def network_spans(networks: Iterable[str]) -> list[Span]:
    """Return the addresses of IPv4 networks in CIDR notation, as merged, sorted spans of `IPV4`.

    Raises:
        SpaceError: not an IPv4 network, or so narrow that it names addresses.
    """
    return [_span(network) for network in collapse_addresses(map(_network, networks))]


def plan_searches(
    field: MaskedField, *, networks: Iterable[str], patterns: Iterable[str], only_given: bool
) -> tuple[Search, ...]:
    """Return the searches of a field: addresses, or the texts of patterns.

    Args:
        field: the field of the digests.
        networks: IPv4 networks in CIDR notation.
        patterns: patterns of ids, see `pattern_space`.
        only_given: do not search the whole default space if no network or no pattern is given.

    Raises:
        SpaceError: a network or a pattern cannot be tried.
    """
    if field.form is IP_ADDRESS:
        spans = network_spans(networks) or ([] if only_given else [Span(0, IPV4.size)])
        return (Search(IPV4, tuple(spans)),) if spans else ()
    given = tuple(patterns) or (() if only_given else (DEVICE_ID_PATTERN,))
    return tuple(Search(space, (Span(0, space.size),)) for space in map(pattern_space, given))


def _parts(pattern: str) -> Iterator[tuple[bytes, ...]]:
    letters = iter(pattern)
    for letter in letters:
        choices = next(letters, "\\") if letter == "\\" else _WILDCARDS.get(letter, letter)
        yield tuple(choice.encode() for choice in choices)


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError:
        raise SpaceError(
            "a network must be IPv4 in CIDR notation, such as 10.0.0.0/8, with no bit set after"
            " its prefix."
        ) from None
    if network.prefixlen > MAX_PREFIX_LENGTH:
        raise SpaceError(
            f"a network is narrower than /{MAX_PREFIX_LENGTH} and would name addresses on the"
            " command line. Put the addresses into a file for --values."
        )
    return network


def _span(network: IPv4Network) -> Span:
    return Span(int(network.network_address), int(network.broadcast_address) + 1)
