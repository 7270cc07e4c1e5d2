"""The sentence about a run that failed."""

from __future__ import annotations

from collections.abc import Callable

from dagster import (
    DagsterExecutionInterruptedError,
    DagsterInstance,
    InitResourceContext,
    job,
    op,
    resource,
)

from fetch_mask_assets.cli.instance import describe_failure

_CANARY = "203.0.113.77"


def _raise(error: BaseException) -> Callable[[InitResourceContext], None]:
    def made(_context: InitResourceContext) -> None:
        raise error

    return made


def _said(resource_error: Exception | None = None, op_error: BaseException | None = None) -> str:
    @op(required_resource_keys={"queue"})
    def take() -> None:
        if op_error:
            raise op_error

    made = _raise(resource_error) if resource_error else lambda _context: None

    @job(resource_defs={"queue": resource(made)})
    def taking() -> None:
        take()

    with DagsterInstance.ephemeral() as instance:
        result = taking.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    return describe_failure(result).replace(result.run_id, "42")


def test_what_a_step_failed_of_is_said() -> None:
    assert _said(op_error=ValueError("the queue is empty")) == (
        "Run 42 failed. ValueError: the queue is empty"
    )


def test_what_dagster_failed_of_outside_of_steps_is_said_by_its_class_alone() -> None:
    said = _said(resource_error=ValueError(_CANARY))
    assert said == "Run 42 failed. Dagster itself failed (ValueError): --verbose shows where."


def test_an_interrupted_run_is_said_to_be() -> None:
    assert _said(op_error=DagsterExecutionInterruptedError()) == "Run 42 was interrupted."
