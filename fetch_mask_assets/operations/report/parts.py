"""The parts of the privacy report, in the order of the page."""

from __future__ import annotations

from operator import itemgetter

from fetch_mask_assets.operations.report.part import Judgement, Part, Severity

_BROKEN, _UNREADABLE, _NOTICE = Severity

_NOT_EVALUATED = (
    "{asset}: {name} was planned and not evaluated {not_evaluated:time|times}: the runs failed or"
    " were stopped before it."
)

CHECKS = Part(
    name="checks",
    title="Checks",
    promise="No check failed, and the last run of each check was evaluated.",
    about="Each batch is checked before it is written, and counted by the database afterwards. A"
    " warning stops nothing. Not evaluated: the check was planned and never ran, because its run"
    " failed or was stopped; it is not counted as passed. Known since: the oldest entry of"
    " Dagster's history of the check. The check on this report is left out.",
    figure="{outcomes[passed]:,} passed, {outcomes[failed]:,} failed",
    judgements=(
        Judgement(
            _BROKEN,
            itemgetter("failed"),
            "{asset}: {name} failed {failed:time|times}.",
            "checks",
        ),
        Judgement(
            _BROKEN,
            lambda check: check["not_evaluated"] and check["last_outcome"] == "not_evaluated",
            _NOT_EVALUATED,
            "checks",
        ),
        Judgement(
            _UNREADABLE,
            itemgetter("is_cut"),
            "{asset}: {name}: the period holds more than was counted; shorten it.",
            "checks",
        ),
        Judgement(
            _NOTICE,
            itemgetter("warned"),
            "{asset}: {name} warned {warned:time|times}.",
            "checks",
        ),
        Judgement(
            _NOTICE,
            lambda check: check["not_evaluated"] and check["last_outcome"] != "not_evaluated",
            _NOT_EVALUATED,
            "checks",
        ),
        Judgement(
            _NOTICE,
            lambda check: check["last_outcome"] is None,
            "{asset}: {name} was never planned in the period.",
            "checks",
        ),
    ),
)

_SUMS = """
       count(*) AS batches, coalesce(sum(received), 0)::bigint AS received,
       coalesce(sum(loaded), 0)::bigint AS loaded,
       coalesce(sum(quarantined), 0)::bigint AS quarantined,
       coalesce(sum(already_known), 0)::bigint AS already_known,
       coalesce(sum(ledger_messages), 0)::bigint AS ledger_messages,
       count(*) FILTER (WHERE NOT is_balanced) AS unbalanced
FROM login_ingest.batch_balance
"""

_BATCHES = """
SELECT batch_id, run_id, committed_at, received, loaded, quarantined, already_known,
       ledger_messages, is_balanced
FROM login_ingest.batch_balance
"""

_IN_PERIOD = "WHERE committed_at >= %(since)s AND committed_at < %(until)s "

_DAY = "(committed_at AT TIME ZONE 'UTC')::date AS day, "

_FEW = """
AND (SELECT count(*) FROM login_ingest.batch
     WHERE committed_at >= %(since)s AND committed_at < %(until)s) <= %(max_batches)s
"""

BALANCE = Part(
    name="balance",
    title="Balance",
    promise="Every received message is loaded, quarantined or already known, and no loaded row is"
    " missing.",
    about="received = loaded + quarantined + already known (delivered before). The ledger counts"
    " each message that was loaded or quarantined, also of days that it has dropped since, and its"
    " count must agree. Recorded rows ="
    " loaded + replayed from the quarantine - erased with their user.",
    figure="{period_totals[received]:,} received, {user_logins[missing_rows]:row|rows} missing",
    judgements=(
        Judgement(
            _BROKEN,
            lambda facts: facts["totals"]["unbalanced"],
            "{totals[unbalanced]:batch does|batches do} not balance.",
        ),
        Judgement(
            _BROKEN,
            lambda facts: facts["ledger"]["messages"] != facts["ledger"]["recorded_messages"],
            "the ledger counts {ledger[messages]:message id|message ids}, the batches record"
            " {ledger[recorded_messages]:,}.",
        ),
        Judgement(
            _BROKEN,
            lambda facts: facts["user_logins"]["missing_rows"],
            "user_logins lacks {user_logins[missing_rows]:recorded row|recorded rows}, deleted"
            " outside this product.",
        ),
        Judgement(
            _BROKEN,
            lambda facts: facts["user_logins"]["non_token_rows"],
            "{user_logins[non_token_rows]:row of user_logins has|rows of user_logins have} another"
            " value than a token in a masked column: mask or remove the value.",
        ),
        Judgement(
            _NOTICE,
            lambda facts: facts["user_logins"]["unrecorded_rows"],
            "{user_logins[unrecorded_rows]:row of user_logins was|rows of user_logins were} not"
            " written by this product.",
        ),
    ),
    records={
        "totals": "SELECT " + _SUMS,
        "period_totals": "SELECT " + _SUMS + _IN_PERIOD,
        "ledger": """
SELECT (SELECT count(*) FROM login_ingest.ledger)
           + (SELECT coalesce(sum(messages), 0)::bigint
              FROM login_ingest.dropped_ledger) AS messages,
       coalesce(sum(loaded + quarantined), 0)::bigint AS recorded_messages
FROM login_ingest.batch
""",
        "user_logins": """
SELECT rows, loaded, replayed, erased, recorded_rows,
       greatest(0, recorded_rows - rows) AS missing_rows,
       greatest(0, rows - recorded_rows) AS unrecorded_rows,
       login_ingest.non_token_rows() AS non_token_rows
FROM (SELECT login_rows AS rows, loaded, replayed, erased,
             loaded + replayed - erased AS recorded_rows
      FROM login_ingest.login_counts(),
           (SELECT coalesce(sum(loaded), 0)::bigint AS loaded FROM login_ingest.batch) AS batches,
           (SELECT coalesce(sum(replayed), 0)::bigint AS replayed
            FROM login_ingest.replay) AS replays,
           (SELECT coalesce(sum(logins), 0)::bigint AS erased
            FROM login_ingest.erasure WHERE kind = 'user') AS erasures) AS counted
""",
    },
    tables={
        # Rows whose token was erased, by masked field.
        "null_token_rows": """
SELECT field, null_rows AS rows FROM login_ingest.null_token_counts() ORDER BY field
""",
        "days": "SELECT " + _DAY + _SUMS + _IN_PERIOD + "GROUP BY day ORDER BY day",
        # Each batch of the period if they are few.
        "batches": _BATCHES + _IN_PERIOD + _FEW + "ORDER BY committed_at, batch_id",
        "unbalanced_batches": _BATCHES
        + "WHERE NOT is_balanced ORDER BY batch_id DESC LIMIT %(max_rows)s",
    },
)

KEYS = Part(
    name="keys",
    title="Keys",
    promise="Every token and every sealed message is under a registered key.",
    about="Keys by id, with the rows (for quarantine: sealed messages) under each. Key material is"
    " in no database and not in this report. Links lead from old tokens to new ones after a"
    " rotation, so that equal values stay equal.",
    figure="{registry[in_use]:key|keys} in use",
    judgements=(
        Judgement(
            _BROKEN,
            lambda key: key["status"] == "not registered",
            "{rows:row is|rows are} under key {key_id} of {keyset}, which is not registered.",
            "keys",
        ),
        Judgement(
            _NOTICE,
            lambda key: key["status"] == "retired" and key["rows"],
            "{rows:row is|rows are} under key {key_id} of {keyset}, which is retired.",
            "keys",
        ),
        Judgement(
            _NOTICE,
            itemgetter("digests"),
            "{digests:link from an MD5 digest|links from MD5 digests} of {field} can be reversed by"
            " any reader: drop all such links with `fetch-mask upgrade-md5 --drop-links`.",
            "links",
        ),
    ),
    records={
        "registry": """
SELECT count(*) AS registered, count(*) FILTER (WHERE retired_at IS NULL) AS in_use
FROM login_ingest.masking_key
"""
    },
    tables={
        # The registry's keys, and the keys that only rows show.
        "keys": """
SELECT wanted.keyset, key.key_id,
       CASE WHEN key.first_used_at IS NULL THEN 'not registered'
            WHEN key.retired_at IS NULL THEN 'in use' ELSE 'retired' END AS status,
       key.first_used_at, key.retired_at, coalesce(key.row_count, 0) AS rows
FROM unnest(%(keysets)s::text[]) WITH ORDINALITY AS wanted (keyset, place)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT key_id, first_used_at, retired_at
        FROM login_ingest.masking_key WHERE masking_key.keyset = wanted.keyset
    ) AS registered FULL JOIN login_ingest.rows_by_key(wanted.keyset) AS used USING (key_id)
) AS key
ORDER BY wanted.place, key.first_used_at NULLS LAST, key.key_id
""",
        "links": """
SELECT field, tokens, digests FROM login_ingest.link_counts() ORDER BY field
""",
    },
)

QUARANTINE = Part(
    name="quarantine",
    title="Quarantine",
    promise="Every quarantined message is waiting, replayed, discarded, expired or erased.",
    about="Messages that broke the contract. Their bodies are sealed under a key of their own; only"
    " the reason is in the clear.",
    figure="{account[waiting]:message|messages} waiting",
    judgements=(
        Judgement(
            _BROKEN,
            lambda facts: not facts["account"]["is_balanced"],
            "the account of the quarantine does not add up.",
        ),
    ),
    records={
        "account": """
SELECT quarantined, replayed, discarded, expired, erased, waiting, is_balanced
FROM login_ingest.quarantine_balance
"""
    },
    tables={
        "reasons": """
SELECT field, reason, count(*) AS messages,
       count(*) FILTER (WHERE quarantined_at >= %(since)s AND quarantined_at < %(until)s)
           AS messages_in_period
FROM login_ingest.quarantine GROUP BY field, reason ORDER BY messages DESC, reason, field
"""
    },
)

_CERTIFICATES = """
FROM login_ingest.erasure
WHERE started_at >= %(since)s AND started_at < %(until)s OR NOT verified
ORDER BY started_at DESC LIMIT %(max_rows)s
"""

ERASURES = Part(
    name="erasures",
    title="Erasures",
    promise="After each erasure, a search found nothing left.",
    about="Erasures on request: numbers, and nothing that identifies the erased values. The"
    " certificates are the newest of the period, and those that are not verified.",
    figure="{totals[erasures]:erasure|erasures}, {totals[unverified]:,} not verified",
    judgements=(
        Judgement(
            _BROKEN,
            lambda facts: facts["totals"]["unverified"],
            "{totals[unverified]:erasure is|erasures are} unfinished, or left something that could"
            " not be erased: repeat the request.",
        ),
    ),
    records={
        "totals": """
SELECT count(*) AS erasures, count(*) FILTER (WHERE NOT verified) AS unverified
FROM login_ingest.erasure
"""
    },
    tables={
        "certificates": f"""
SELECT erasure_id, started_at, actor, kind, subjects, ticket, logins, links, messages, verified
{_CERTIFICATES}
""",
        "searches_after_erasure": f"""
SELECT erasure_id, md5_matches, unmask_requests, remaining_rows, remaining_messages,
       unsearched_rows, unreadable_rows, unreadable_messages
{_CERTIFICATES}
""",
    },
)

RETENTION = Part(
    name="retention",
    title="Retention",
    promise="No quarantined message is kept longer than its retention.",
    about="Quarantined messages expire by age. Rows of user_logins do not: this product never"
    " deletes them by age. Check results stay when Dagster deletes a run.",
    figure="{ages[overdue]:message|messages} overdue",
    judgements=(
        Judgement(
            _BROKEN,
            lambda facts: facts["ages"]["overdue"],
            "{ages[overdue]:quarantined message is|quarantined messages are} more than a day older"
            " than the retention of {ages[quarantine_days]:day|days}: check that the schedule"
            " expire_quarantine_nightly is on.",
        ),
    ),
    records={
        # A day of slack: the schedule runs once a night.
        "ages": """
SELECT %(quarantine_days)s::int AS quarantine_days, %(run_days)s::int AS run_days,
       (SELECT min(quarantined_at) FROM login_ingest.quarantine) AS oldest_quarantined_at,
       (SELECT count(*) FROM login_ingest.quarantine
        WHERE quarantined_at < now() - make_interval(days => %(quarantine_days)s::int + 1))
           AS overdue,
       (SELECT max(deleted_at) FROM login_ingest.quarantine_deletion WHERE action = 'expire')
           AS last_expired_at,
       (SELECT oldest_day FROM login_ingest.login_counts()) AS oldest_login_day
"""
    },
)

REQUESTS = Part(
    name="requests",
    title="Unmasking",
    promise="One person requests originals, another approves; each step is recorded before"
    " anything is shown.",
    about="An approval lasts for a limited time. Reasons are in the audit and not here; a ticket is"
    " shown if it is a plain reference. The requests are the newest of the period.",
    figure="{totals[in_period]:request|requests} in the period",
    records={
        "totals": """
SELECT count(*) AS requests,
       count(*) FILTER (WHERE requested_at >= %(since)s AND requested_at < %(until)s) AS in_period
FROM login_ingest.unmask_request
"""
    },
    tables={
        # The number of tokens, and never the tokens.
        "requests": """
SELECT request_id, requested_at, requester, ticket, cardinality(tokens) AS tokens,
       CASE WHEN withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN cardinality(tokens) = 0 THEN 'erased' WHEN expires_at IS NULL THEN 'waiting'
            WHEN expires_at > now() THEN 'approved' ELSE 'expired' END AS state,
       approver, expires_at
FROM login_ingest.unmask_request
WHERE requested_at >= %(since)s AND requested_at < %(until)s
ORDER BY request_id DESC LIMIT %(max_rows)s
"""
    },
)

AUDIT = Part(
    name="audit",
    title="Audit",
    promise="No row of the audit was edited, inserted or deleted.",
    about="Each row of the audit holds a hash over itself and the row before it. Every hash was"
    " computed anew, outside the database. Rows that were cut off at the end are found only by a"
    " hash that was noted earlier. Reveals are counted by request, over the whole audit.",
    figure="{chain[verified_rows]:,} of {chain[rows]:row|rows} verified",
    judgements=(
        Judgement(
            _BROKEN,
            lambda facts: facts["chain"]["broken_at"],
            "the audit is broken at row {chain[broken_at]}: {chain[broken_because]}.",
        ),
        Judgement(
            _BROKEN,
            lambda facts: facts["chain"]["has_expected"] is False,
            "the hash that was noted earlier is not in the audit: rows were cut off at its end, or"
            " the chain was computed anew.",
        ),
        Judgement(
            _NOTICE,
            lambda facts: facts["period_totals"]["refused"],
            "{period_totals[refused]:step was|steps were} refused in the period.",
        ),
    ),
)

PARTS = (CHECKS, BALANCE, KEYS, QUARANTINE, ERASURES, RETENTION, REQUESTS, AUDIT)
