"""The atheris fuzzer, for a long run by hand: `make fuzz MINUTES=10`.

Every argument is one of libFuzzer's; the corpus that it grows and what it finds stay in the
directory that is named first. Source: https://github.com/google/atheris
"""

from __future__ import annotations

import sys

import atheris

_INSTRUMENTED = (
    "fetch_mask_assets.masking",
    "fetch_mask_assets.keys",
    "fetch_mask_assets.pipeline.contract",
    "json",
    "ipaddress",
)

with atheris.instrument_imports(include=list(_INSTRUMENTED)):
    from fetch_mask_assets_tests.fuzz.entry import CORPUS, run_one

if __name__ == "__main__":
    atheris.Setup([*sys.argv, str(CORPUS)], run_one)
    atheris.Fuzz()
