"""The stages that are measured, and who takes part in each.

The first contender of a stage is the product, the second its baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.databases import DatabaseKind
from benchmarks.queue.client import QueueKind

JOB, COMMAND, EMPTY_COMMAND, EMPTY_JOB = "job", "command", "empty-command", "empty-job"
RECEIVE, RECEIVE_FAR, RECEIVE_TLS = "receive", "receive-15ms", "receive-tls"
MASK, COMMIT, MEMORY = "mask", "commit", "memory"

_USER_LOGINS = "user_logins"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work of a stage: a module for `benchmarks.worker`, or a command.

    `table` is the one whose rows are counted after each round; empty if no row is written. `share`
    is the number of its messages as a multiple of the stage's.
    """

    name: str
    module: str = ""
    command: tuple[str, ...] = ()
    database: DatabaseKind = DatabaseKind.EMPTY
    table: str = ""
    is_rival_package: bool = False
    share: float = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """A piece of work, and the contenders that do it.

    `rounds` is how often each contender does it, as a multiple of the asked number; 0 for once,
    without a round to warm up. `is_empty` is whether the queue stays empty.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    queue: QueueKind | None = None
    rounds: float = 1
    is_empty: bool = False


_JOB = Contender(
    "fetch-mask, one run of the job",
    module="benchmarks.contenders.ingest_job",
    database=DatabaseKind.MIGRATED,
    table=_USER_LOGINS,
)
_HAND_LOOP = Contender(
    "hand loop: boto3, HMAC, COPY",
    module="benchmarks.rivals.hand_loop",
    database=DatabaseKind.TABLE,
    table=_USER_LOGINS,
)
_IMPORT = Contender("python -c 'import dagster'", command=("python", "-c", "import dagster"))
_RECEIVERS = (
    Contender("fetch-mask", module="benchmarks.contenders.receive_and_delete"),
    Contender("boto3, four threads", module="benchmarks.contenders.receive_and_delete_boto3"),
)
_INGEST = Contender(
    "fetch-mask ingest",
    command=("fetch-mask", "ingest"),
    database=DatabaseKind.MIGRATED,
    table=_USER_LOGINS,
)

STAGES = (
    Stage(
        JOB,
        "The whole job in a warm process",
        (
            _JOB,
            _HAND_LOOP,
            Contender(
                "dlt",
                module="benchmarks.rivals.dlt_pipeline",
                table="logins.user_logins",
                is_rival_package=True,
            ),
            Contender(
                "pandas to_sql",
                module="benchmarks.rivals.pandas_frame",
                database=DatabaseKind.TABLE,
                table=_USER_LOGINS,
                is_rival_package=True,
            ),
            Contender(
                "MD5, row by row",
                module="benchmarks.rivals.row_by_row",
                database=DatabaseKind.TABLE,
                table=_USER_LOGINS,
            ),
        ),
        QueueKind(),
    ),
    Stage(
        COMMAND,
        "The whole command, from start to end",
        (
            _INGEST,
            Contender(
                "hand loop",
                command=("python", "-m", "benchmarks.rivals.hand_loop"),
                database=DatabaseKind.TABLE,
                table=_USER_LOGINS,
            ),
        ),
        QueueKind(),
    ),
    Stage(
        EMPTY_COMMAND,
        "The command on an empty queue",
        (_INGEST, _IMPORT),
        QueueKind(),
        is_empty=True,
    ),
    Stage(
        EMPTY_JOB,
        "An empty batch in a warm process",
        (_JOB, _HAND_LOOP),
        QueueKind(),
        is_empty=True,
    ),
    Stage(RECEIVE, "Receive and delete, 0 ms a request", _RECEIVERS, QueueKind()),
    Stage(RECEIVE_FAR, "Receive and delete, 15 ms a request", _RECEIVERS, QueueKind(latency_ms=15)),
    Stage(RECEIVE_TLS, "Receive and delete, 0 ms a request, TLS", _RECEIVERS, QueueKind(tls=True)),
    Stage(
        MASK,
        "Decode, validate, mask, apply the rules",
        (
            Contender("fetch-mask", module="benchmarks.contenders.mask_and_check"),
            Contender(
                "value by value, each rule once", module="benchmarks.contenders.mask_by_value"
            ),
        ),
    ),
    Stage(
        COMMIT,
        "Commit",
        (
            Contender(
                "fetch-mask: ledger, rows, batch record",
                module="benchmarks.contenders.commit",
                database=DatabaseKind.MIGRATED,
                table=_USER_LOGINS,
            ),
            Contender(
                "bare COPY, three indexes",
                module="benchmarks.contenders.bare_copy",
                database=DatabaseKind.TABLE,
                table=_USER_LOGINS,
            ),
            Contender(
                "fetch-mask, with a link for each token",
                module="benchmarks.contenders.commit_with_links",
                database=DatabaseKind.MIGRATED,
                table=_USER_LOGINS,
            ),
        ),
        rounds=2,
    ),
    Stage(
        MEMORY,
        "Memory of a batch of ten times the size, and of a tenth",
        (
            Contender(
                "one run of the job, large batch",
                module="benchmarks.contenders.ingest_job",
                database=DatabaseKind.MIGRATED,
                table=_USER_LOGINS,
                share=10,
            ),
            Contender(
                "one run of the job, small batch",
                module="benchmarks.contenders.ingest_job",
                database=DatabaseKind.MIGRATED,
                table=_USER_LOGINS,
                share=0.1,
            ),
        ),
        QueueKind(),
        rounds=0,
    ),
)
