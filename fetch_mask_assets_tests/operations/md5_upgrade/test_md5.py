"""MD5 of many texts at once equals `hashlib`."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fetch_mask_assets.operations.md5_upgrade.md5 import md5_of_lanes

# RFC 1321, A.5: those that fit one block.
RFC_1321 = {
    "": "d41d8cd98f00b204e9800998ecf8427e",
    "a": "0cc175b9c0f1b6a831c399e269772661",
    "abc": "900150983cd24fb0d6963f7d28e17f72",
    "message digest": "f96b697d7cb7938d525a2f31aaf161d0",
    "abcdefghijklmnopqrstuvwxyz": "c3fcd3d76192e4007dfb496cca67e13b",
}


_SHORT = st.binary(max_size=55)


def _lanes_md5(texts: list[bytes]) -> list[bytes]:
    blocks = b"".join(
        (text + b"\x80").ljust(56, b"\0") + (8 * len(text)).to_bytes(8, "little") for text in texts
    )
    words = np.frombuffer(blocks, "<u4").reshape(-1, 16).T.copy()
    digests = np.stack(md5_of_lanes(dict(enumerate(words)), len(texts)), axis=1).astype("<u4")
    return [row.tobytes() for row in digests]


def test_the_digests_published_in_rfc_1321_are_computed() -> None:
    assert [digest.hex() for digest in _lanes_md5([text.encode() for text in RFC_1321])] == list(
        RFC_1321.values()
    )


@given(st.lists(_SHORT, min_size=1, max_size=20))
def test_digests_of_many_texts_equal_those_of_hashlib(texts: list[bytes]) -> None:
    expected = [hashlib.md5(text, usedforsecurity=False).digest() for text in texts]
    assert _lanes_md5(texts) == expected
