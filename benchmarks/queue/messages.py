"""Sample login events and their SQS messages.

The numbers of the events decide their values: of four consecutive events two share a device, of ten
two share an IP address, and no value repeats further on.
"""

from __future__ import annotations

import hashlib
import json
from uuid import uuid4

_IPV4_ADDRESSES = 2**32
_DEVICE_IDS = 10**9
_MULTIPLIER = 2_654_435_761
"""Odd and not a multiple of five: multiplication permutes the addresses and the device ids."""

_HANDLE_PADDING = "x" * 300
"""Receipt handles of SQS have more than 300 characters."""


def body(number: int) -> str:
    """The JSON of a login event."""
    return json.dumps(
        {
            "user_id": hashlib.md5(str(number // 4).encode()).hexdigest(),
            "app_version": f"2.{number % 7}.{number % 3}",
            "device_type": "android" if number % 2 else "ios",
            "ip": _ipv4_address(number - number % 10 // 9),
            "locale": None if number % 3 == 0 else "en_US",
            "device_id": _device_id(number - number % 4 // 3),
        }
    )


def message_json(number: int, sent_milliseconds: int) -> tuple[str, bytes]:
    """The receipt handle of a new message, and the message as SQS answers it.

    Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Message.html
    """
    text, message_id = body(number), str(uuid4())
    handle = f"AQEB{message_id}{_HANDLE_PADDING}"
    message = {
        "MessageId": message_id,
        "ReceiptHandle": handle,
        "MD5OfBody": hashlib.md5(text.encode()).hexdigest(),
        "Body": text,
        "Attributes": {
            "SentTimestamp": str(sent_milliseconds),
            "ApproximateReceiveCount": "1",
        },
    }
    return handle, json.dumps(message).encode()


def _ipv4_address(number: int) -> str:
    packed = (number * _MULTIPLIER % _IPV4_ADDRESSES).to_bytes(4, "big")
    return ".".join(map(str, packed))


def _device_id(number: int) -> str:
    digits = f"{number * _MULTIPLIER % _DEVICE_IDS:09d}"
    return f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"
