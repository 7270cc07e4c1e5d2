"""Runs a command and measures it: `python -m benchmarks.command PROGRAM OPTION ...`.

The answer is a line of JSON on standard output; the command's own output there is discarded. It is
a small process of its own, because the kernel counts the memory of the process that starts a
command as a peak of the command.
Source: https://man7.org/linux/man-pages/man2/getrusage.2.html
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

_KILOBYTE = 1_024


def main() -> int:
    """Run the command of the arguments; its exit code."""
    started = time.perf_counter()
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL) as process:  # noqa: S603 (as asked)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    measured = {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - started,
        "peak_bytes": usage.ru_maxrss * _KILOBYTE,
    }
    sys.stdout.write(json.dumps(measured) + "\n")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
