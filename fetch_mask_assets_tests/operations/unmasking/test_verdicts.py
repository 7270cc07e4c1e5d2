"""Verdicts of the database become errors that name the rule."""

from __future__ import annotations

import pytest

from fetch_mask_assets.operations.unmasking.verdicts import CONSENTS, Verdict, refusal


@pytest.mark.parametrize("verdict", sorted(CONSENTS))
def test_a_consent_is_no_error(verdict: Verdict) -> None:
    assert refusal(verdict) is None


@pytest.mark.parametrize("verdict", sorted(frozenset(Verdict) - CONSENTS))
def test_a_refusal_is_a_sentence_that_states_that_it_is_recorded(verdict: Verdict) -> None:
    text = str(refusal(verdict))

    assert text.startswith("refused, and the refusal is recorded: ")
    assert text.endswith(".")


def test_each_refusal_has_a_text_of_its_own() -> None:
    texts = {str(refusal(verdict)) for verdict in frozenset(Verdict) - CONSENTS}

    assert len(texts) == len(Verdict) - len(CONSENTS)
