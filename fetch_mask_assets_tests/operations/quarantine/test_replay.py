"""A replay masks what is now a login, keeps the rest, and refuses a broken rule."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fetch_mask_assets.errors import RulesBrokenError
from fetch_mask_assets.operations.quarantine.replay import SealedMessage, mask_quarantined
from fetch_mask_assets.pipeline.batch import checked_batch
from fetch_mask_assets_tests.support.factories import IP, body, keyring

SENT_AT = datetime(2024, 2, 29, 12, tzinfo=UTC)
KEYS = keyring()


def _sealed(message_id: str, text: str) -> SealedMessage:
    return SealedMessage(message_id, SENT_AT, 1, KEYS.sealer.seal(text, message_id))


def test_logins_are_masked_and_other_messages_have_their_current_reason() -> None:
    unreadable = SealedMessage("c", SENT_AT, 1, b"x")

    batch = mask_quarantined([_sealed("a", body()), _sealed("b", "junk"), unreadable], KEYS)

    assert batch.logins["message_id"].to_list() == ["a"]
    assert batch.rejected["message_id"].to_list() == ["b"]
    assert (batch.links, batch.unreadable) == ((), 1)
    assert '"reason":"not_json"' in batch.rejected_json()
    assert '"create_date":"2024-02-29"' in batch.logins_json()
    assert IP not in batch.logins_json()


def test_messages_that_break_a_rule_are_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checked_batch, "broken_rules", lambda _batch: {"tokens_can_be_unmasked": 2})

    with pytest.raises(
        RulesBrokenError, match=r"tokens_can_be_unmasked \(2\).*None of these messages"
    ):
        mask_quarantined([_sealed("a", body())], KEYS)


def test_the_repr_has_no_body() -> None:
    assert "canary" not in repr(SealedMessage("c", SENT_AT, 1, b"canary"))
