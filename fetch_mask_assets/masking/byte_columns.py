"""Columns of bytes as NumPy matrices, one row for each value, and back."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

ByteMatrix = NDArray[np.uint8]


def to_matrix(column: pl.Series, length: int) -> ByteMatrix:
    """A binary column without nulls, of values of one length in bytes."""
    kind = pl.Array(pl.UInt8, length)
    return column.bin.reinterpret(dtype=kind, endianness="little").to_numpy()


def to_bytes(matrix: ByteMatrix) -> pl.Series:
    """The rows of a matrix as a binary column."""
    return (
        pl.Series(matrix, dtype=pl.Array(pl.UInt8, matrix.shape[1])).arr.to_list().cast(pl.Binary)
    )
