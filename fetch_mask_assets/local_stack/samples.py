"""Sample login events like those of a real app, and a few that break the contract."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from typing import TypeVar
from uuid import UUID

DEFAULT_COUNT = 600

_T = TypeVar("_T")

_USERS = 150
_EVERY_BROKEN = 100
_FIRST_BROKEN = 37

# Versions and locales in the shares that they have among real logins; 0.96 is no decimal number.
_VERSIONS = ("2.3.0", "2.3.0", "2.3.0", "3.11.2", "2.10.1", "1.0", "0.96", "2.3.0-beta")
_LOCALES = ("en_US", "en_US", "en_US", "de_DE", "RU", "pt_BR", None, None)
_DEVICE_TYPES = ("android", "iOS")

# The networks that RFC 5737 and RFC 3849 reserve for examples.
_IPV4_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
# One address in two spellings, and an IPv4 address in its own and its IPv6 form.
_SPELLINGS = ("2001:db8::7", "2001:0DB8:0:0:0:0:0:7", "192.0.2.44", "::ffff:192.0.2.44")


@dataclass(frozen=True, slots=True)
class _User:
    user_id: str
    device_type: str
    app_version: str
    locale: str | None
    has_locale: bool
    devices: tuple[str, ...]


def sample_bodies(seed: int) -> Iterator[str]:
    """An endless stream of message bodies; equal seeds give equal bodies."""
    chance = random.Random(seed)  # noqa: S311 (samples, not secrets)
    users = [_user(chance) for _ in range(_USERS)]
    addresses = _addresses(chance)
    for number in count():
        login = _login(chance, _frequent(chance, users), _frequent(chance, addresses))
        is_broken = number % _EVERY_BROKEN == _FIRST_BROKEN
        yield _broken(login, number // _EVERY_BROKEN) if is_broken else json.dumps(login)


def samples(number: int, seed: int) -> list[str]:
    """The first message bodies of a seed, each one line."""
    return list(islice(sample_bodies(seed), number))


def _user(chance: random.Random) -> _User:
    return _User(
        user_id=_uuid(chance),
        device_type=chance.choice(_DEVICE_TYPES),
        app_version=chance.choice(_VERSIONS),
        locale=chance.choice(_LOCALES),
        has_locale=chance.random() > 0.1,  # noqa: PLR2004 (one in ten apps leaves it out)
        devices=tuple(_device(chance) for _ in range(chance.choice((1, 1, 2, 3)))),
    )


def _login(chance: random.Random, user: _User, ip: str) -> dict[str, str | None]:
    login: dict[str, str | None] = {
        "user_id": user.user_id,
        "app_version": user.app_version,
        "device_type": user.device_type,
        "ip": ip,
        "device_id": chance.choice(user.devices),
    }
    return {**login, "locale": user.locale} if user.has_locale else login


def _broken(login: dict[str, str | None], which: int) -> str:
    kinds = (
        json.dumps({"event": "purchase", "user_id": login["user_id"], "amount": 12.5}),
        "this is not JSON",
        json.dumps({**login, "ip": "999.1.1.1"}),
        json.dumps({name: value for name, value in login.items() if name != "device_id"}),
    )
    return kinds[which % len(kinds)]


def _addresses(chance: random.Random) -> list[str]:
    ipv4 = [f"{chance.choice(_IPV4_NETWORKS)}.{chance.randint(1, 254)}" for _ in range(200)]
    ipv6 = [f"2001:db8:{chance.randint(1, 0xFFFF):x}::{n:x}" for n in range(1, 60)]
    addresses = ipv4 + ipv6
    chance.shuffle(addresses)
    return [*_SPELLINGS, *addresses]


def _frequent(chance: random.Random, choices: Sequence[_T]) -> _T:
    # Zipf's law, as with real IPs and users: the n-th most frequent occurs 1/n times as often.
    weights = accumulate(1 / rank for rank in range(1, len(choices) + 1))
    return chance.choices(choices, cum_weights=list(weights))[0]


def _device(chance: random.Random) -> str:
    if chance.random() < 0.2:  # noqa: PLR2004 (one device in five)
        return _uuid(chance)
    digits = f"{chance.randrange(10**9):09}"
    return f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"


def _uuid(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))
