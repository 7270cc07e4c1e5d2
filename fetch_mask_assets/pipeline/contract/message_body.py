"""A message body as one JSON object, strictly (RFC 8259), in bounded time and memory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from fetch_mask_assets.pipeline.contract.rejection import Reason, RejectedError

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_INTEGER_DIGITS = 400


def parse_object(body: str) -> dict[str, Any]:
    """The JSON object that a body holds.

    Raises:
        RejectedError: the body is too long, not JSON, not an object, nested deeper than
            `MAX_DEPTH`, names a key twice, or holds a number out of range.
    """
    _refuse_long(body)
    value = _decode(body)
    if not isinstance(value, dict):
        raise RejectedError(Reason.NOT_AN_OBJECT)
    _refuse_deep(body, value)
    return value


def storable_text(body: str) -> str:
    r"""The body without lone surrogates, which no frame can hold; SQS refuses such text.

    Each is written as its JSON escape `\udxxx`, which in a JSON string means the same; elsewhere
    neither is JSON. Where an escape would mean something else, all are written as the control
    character U+001A and `udxxx`, which no JSON holds: such a body is refused as no JSON.
    """
    if body.isascii() or not _SURROGATE.search(body):
        return body
    mark = "\x1a" if _MISREAD.search(body) else "\\"
    return _SURROGATE.sub(lambda found: f"{mark}u{ord(found[0]):04x}", body)


_SURROGATE = re.compile("[\ud800-\udfff]")
# After an odd number of backslashes the escape's own would be escaped; next to its other half,
# itself or as an escape, it would become a character.
_MISREAD = re.compile(
    r"(?<!\\)(?:\\\\)*\\(?:[\ud800-\udfff]|u[dD][89abAB][0-9a-fA-F]{2}[\udc00-\udfff])"
    r"|[\ud800-\udbff](?:[\udc00-\udfff]|\\u[dD][c-fC-F])"
)


def _refuse_long(body: str) -> None:
    # A character is at most four bytes, so most bodies pass without being encoded.
    if len(body) * 4 <= MAX_BODY_BYTES:
        return
    if len(body.encode("utf-8", "surrogatepass")) > MAX_BODY_BYTES:
        raise RejectedError(Reason.BODY_TOO_LONG)


def _decode(body: str) -> object:
    try:
        return _DECODER.decode(body)
    except ValueError:
        raise RejectedError(Reason.NOT_JSON) from None
    except RecursionError:
        raise RejectedError(Reason.NESTED_TOO_DEEP) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RejectedError(Reason.DUPLICATE_KEY)
    return members


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise RejectedError(Reason.NUMBER_OUT_OF_RANGE)
    return number


def _short_integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS:
        raise RejectedError(Reason.NUMBER_OUT_OF_RANGE)
    return int(text)


def _no_constant(_name: str) -> NoReturn:
    # NaN and Infinity are Python's additions, not JSON.
    raise RejectedError(Reason.NOT_JSON)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_float=_finite_float,
    parse_int=_short_integer,
    parse_constant=_no_constant,
)


def _refuse_deep(body: str, value: object) -> None:
    # Fewer brackets than levels allowed: the walk would find nothing.
    if body.count("{") + body.count("[") <= MAX_DEPTH:
        return
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise RejectedError(Reason.NESTED_TOO_DEEP)


def _children(parent: object) -> list[object]:
    members = parent.values() if isinstance(parent, dict) else parent
    return [
        child
        for child in (members if isinstance(members, Iterable) else ())
        if isinstance(child, dict | list)
    ]
