"""What the texts of our own errors are made of: each part is on a reviewed list.

Dagster keeps these texts for good. A new part fails here until somebody has looked whether it can
ever be an IP, a device id, a body or a key, and has added it to the list.
Not covered: what a listed name is given elsewhere, and errors of click.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

import fetch_mask_assets

PRODUCT = Path(fetch_mask_assets.__file__).parent

# Counts, numbers of lines, ids and names of keys, fields, settings, paths, AWS's and Postgres's
# codes, kinds of errors, and sentences that are made of these.
REVIEWED: dict[str, set[str]] = {
    "cli/pipeline/dead_letters.py": {"remaining", "result.failure"},
    "cli/pipeline/ingest.py": {"failure", "result.failure"},
    "cli/pipeline/ingest_runs.py": {"type(error).__name__"},
    "cli/instance.py": {"_unset_settings(error)", "type(error).__name__"},
    "cli/operations/keys.py": {"found", "key_id"},
    "cli/local.py": {"', '.join(missing)"},
    "cli/operations/remask.py": {"failed", "describe_failure(result)"},
    "cli/pipeline/send.py": {"_failures(unreadable, refused)"},
    "cli/operations/reveal.py": {"path", "type(error).__name__"},
    "cli/operations/upgrade_md5.py": {"' '.join(failed)"},
    "defs/operations/alerts.py": {
        "' '.join(failures.values())",
        "before.pending_alerts",
        "alert_state.pending_alerts",
    },
    "defs/redaction.py": {
        "Path(place.filename).name",
        "place.lineno",
        "place.name",
        "stage",
        "type(error).__name__",
    },
    "defs/operations/report.py": {"settings.REPORTS_DIRECTORY"},
    "operations/md5_upgrade/spaces.py": {
        "MAX_SPACE",
        "MAX_TEXT_BYTES",
        "MAX_PREFIX_LENGTH",
        "MIN_SPACE",
    },
    "operations/erasure/certificate.py": {
        "certificate.remaining_messages",
        "certificate.remaining_rows",
        "certificate.unreadable_messages",
        "certificate.unreadable_rows",
        "certificate.unsearched_rows",
    },
    "operations/erasure/subjects.py": {"_name(kind)", "number"},
    "errors.py": {"tried"},
    "keys/keyset.py": {"key.get('keyId', 0)", "name", "self.name"},
    "keys/links.py": {"masker.field.name"},
    "keys/masker.py": {"key_id", "parsed.key_id", "self.field.name"},
    "keys/keyset_change.py": {"key_id", "name"},
    "operations/unmasking/find.py": {
        "MAX_TEXT_BYTES",
        "limit",
        "line",
        "masker.field.label",
        "masker.field.name",
    },
    "masking/token.py": {"field.name"},
    "operations/unmasking/requests.py": {"MAX_REASON_LENGTH", "_FIELD_NAMES", "name", "number"},
    "operations/unmasking/verdicts.py": {"_REFUSALS[verdict]"},
    "operations/alerts/destinations.py": {
        "_COMMAND_SECONDS",
        "done.returncode",
        "status",
        "type(error).__name__",
    },
    "aws.py": {"_remedy(code, remedies)", "code", "type(error).__name__", "verb"},
    "pipeline/queue/isolation.py": {"len(rows)"},
    "pipeline/warehouse/commit.py": {"MAX_REFUSED_ROWS", "copied", "counts", "sent"},
    "keys/postgres.py": {"_unusable(name, key_id, is_registered=is_registered)"},
    "operations/rotation/key_changes.py": {
        "key.key_id",
        "key.keyset",
        "ids",
        "key_id",
        "keysets.location(name)",
        "name",
        "rows",
    },
    "keys/file_safety.py": {"directory", "path", "stat.S_IMODE(mode)"},
    "keys/files.py": {"path", "type(error).__name__"},
    "keys/locations.py": {"SCHEME", "scheme"},
    "keys/storage.py": {"name", "self.location(name)"},
    "keys/kms.py": {"_MISMATCH", "name"},
    "operations/md5_upgrade/values_file.py": {
        "number",
        "path",
        "stat.S_IMODE(mode)",
        "type(error).__name__",
    },
    "postgres/errors.py": {"action", "sentence"},
    "operations/quarantine/postgres.py": {"keep_days", "min_days"},
    "operations/quarantine/replay.py": {"counts"},
    "pipeline/warehouse/readiness.py": {
        "' '.join(not_ok)",
        "'; '.join(conflicts)",
        "current or 'none'",
        "needed",
    },
    "pipeline/queue/sqs/attributes.py": {"NOT_SQS", "name"},
    "pipeline/queue/sqs/batch_requests.py": {"NOT_SQS", "operation"},
    "pipeline/queue/sqs/delivery.py": {"NOT_SQS", "operation"},
    "pipeline/queue/sqs/protocol.py": {"NOT_SQS", "operation"},
    "pipeline/queue/sqs/transport.py": {"code", "url"},
    "operations/report/files.py": {"path", "self.path", "type(error).__name__"},
    "keys/secrets_manager.py": {"self.location(name)"},
    "pipeline/queue/dry_run.py": {
        "_NOT_STARTED.format('no answer')",
        "_NOT_STARTED.format(type(error).__name__)",
    },
    "local_stack/dev.py": {"_FIRST_PORT"},
    "local_stack/environment.py": {"name", "path"},
    "local_stack/postgres.py": {
        "done.returncode",
        "output",
        "process.pid",
        "program",
        "state.postgres_port",
    },
    "local_stack/server_user.py": {"_NAME"},
    "local_stack/sqs.py": {"directory / 'server.log'", "process.pid", "state.sqs_port"},
    "local_stack/stack.py": {"_LOCK_SECONDS"},
    "local_stack/state.py": {"LOOPBACK", "_PORTS.start", "_PORTS.stop", "path"},
    "settings.py": {
        "ALERT_COMMAND",
        "ALERT_WEBHOOK",
        "IN_FLIGHT_LIMIT",
        "REQUIRED[name]",
        "bounds['meaning']",
        "bounds['name']",
        "highest",
        "lowest",
        "name",
    },
}


def test_an_own_error_says_only_what_was_reviewed() -> None:
    trees = {
        str(path.relative_to(PRODUCT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in PRODUCT.rglob("*.py")
    }
    kinds = own_errors(*trees.values())
    found = {place: parts(tree, kinds) for place, tree in trees.items()}
    assert {place: said for place, said in found.items() if said} == REVIEWED


@pytest.mark.parametrize(
    "code",
    [
        "raise OddError(f'{ip} is odd')",
        "raise OddError('odd: ' + ip)",
        "raise odd.OddError(ip) from None",
        "found = OddError(text=ip)",
        "raise OddError(f'one {1} ' f'{ip}')",
        "class OddError(KeysetError):\n def __init__(self, ip):\n  super().__init__(f'of {ip}')",
    ],
)
def test_a_value_in_an_own_error_is_found(code: str) -> None:
    errors = ast.parse("class KeysetError(FetchMaskError): pass\nclass OddError(KeysetError): pass")
    tree = ast.parse(code)
    assert "ip" in parts(tree, own_errors(errors, tree))


def test_a_text_without_parts_needs_no_review() -> None:
    assert parts(ast.parse("raise FetchMaskError('one ' 'two')"), {"FetchMaskError"}) == set()


def own_errors(*trees: ast.Module) -> set[str]:
    """The names of all classes below FetchMaskError."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    kinds: set[str] = set()
    more = {"FetchMaskError"}
    while more:
        kinds |= more
        more = {each.name for each in classes if kinds & set(map(_name, each.bases))} - kinds
    return kinds


def parts(tree: ast.Module, kinds: set[str]) -> set[str]:
    """The expressions in the texts of these errors; `error_class` is chosen by a caller."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in {*kinds, "error_class"}:
            found |= _said_by(node)
        if isinstance(node, ast.ClassDef) and node.name in kinds:
            inner = (each for each in ast.walk(node) if isinstance(each, ast.Call))
            found |= _all(_said_by(each) for each in inner if _is_text_of(each))
    return found


def _is_text_of(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "super().__init__"


def _said_by(call: ast.Call) -> set[str]:
    return _all(map(_said, [*call.args, *(keyword.value for keyword in call.keywords)]))


def _said(node: ast.expr) -> set[str]:
    match node:
        case ast.Constant():
            return set()
        case ast.JoinedStr(values=values):
            return _all(map(_said, values))
        case ast.FormattedValue(value=ast.Constant()):
            return set()
        case ast.FormattedValue(value=value):
            return {ast.unparse(value)}
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _said(left) | _said(right)
    return {ast.unparse(node)}


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _all(sets: Iterable[set[str]]) -> set[str]:
    return set().union(*sets)
