"""Why a run of this process failed, as a sentence."""

from __future__ import annotations

from dagster import DagsterExecutionInterruptedError, ExecuteInProcessResult


def why_failed(result: ExecuteInProcessResult) -> str:
    """Names the run and what each of its steps failed of.

    Where no step failed, the run itself did: then by the class of Dagster's own error, whose
    message may quote what it failed on.
    """
    failures = [event for event in result.all_events if event.is_step_failure]
    errors = [event.step_failure_data.error for event in failures]
    causes = [error.cause or error for error in errors if error]
    if any(error.cls_name == DagsterExecutionInterruptedError.__name__ for error in causes):
        return f"Run {result.run_id} was interrupted."
    said = [cause.message.strip() for cause in causes] or _outside_of_steps(result)
    return " ".join([f"Run {result.run_id} failed.", *said])


def _outside_of_steps(result: ExecuteInProcessResult) -> list[str]:
    failures = [event for event in result.all_events if event.is_run_failure]
    errors = [event.job_failure_data.error for event in failures]
    names = [(error.cause or error).cls_name for error in errors if error]
    return [f"Dagster itself failed ({name}): --verbose shows where." for name in names]
