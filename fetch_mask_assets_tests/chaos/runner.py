"""Runs scenarios: brings a fault about, ends it, drains, checks.

Belongs here: the order of things, the same for every scenario. Not: faults, and what must hold.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from fetch_mask_assets.local_stack.stack import Stack
from fetch_mask_assets_tests.chaos.invariants import violations
from fetch_mask_assets_tests.chaos.scenarios import Scenario
from fetch_mask_assets_tests.chaos.world import make_world


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario came to."""

    scenario: Scenario
    seed: int
    seconds: float
    found: dict[str, list[str]] = field(default_factory=dict)
    """What does not hold: by invariant, and what the scenario itself saw under `scenario`."""
    untried: str = ""
    """Why it could not be tried on this machine; empty if it was."""

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.found


def run_scenario(scenario: Scenario, stack: Stack, directory: Path, seed: int) -> Result:
    """One scenario in a world of its own, under an empty directory."""
    started = monotonic()
    with make_world(stack, directory) as world:
        world.send()
        scenario.bring(world, random.Random(f"{seed}/{scenario.name}"))  # noqa: S311 (faults, not secrets)
        world.end_faults()
        world.drain()
        found = violations(world.evidence(), scenario.checks)
        broken = {"scenario": world.broken} if world.broken else {}
    return Result(scenario, seed, monotonic() - started, {**found, **broken})
