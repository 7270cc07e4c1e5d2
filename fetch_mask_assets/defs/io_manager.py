"""Values pass from asset to asset in memory, inside one run, and are never written."""

from dagster import (
    AssetKey,
    InitResourceContext,
    InputContext,
    IOManager,
    OutputContext,
    io_manager,
)

from fetch_mask_assets.errors import FetchMaskError

BATCH_MEMORY = "batch_memory"


class PartialSelectionError(FetchMaskError):
    """Only a part of the chain was selected."""

    def __init__(self) -> None:
        """States what to select instead."""
        super().__init__(
            "A batch lives only inside the run that received it: select raw_login_batch,"
            " masked_logins and user_logins together (the job ingest_logins does), run in one"
            " process."
        )


class BatchMemory(IOManager):
    """Keeps the values of one run."""

    def __init__(self) -> None:
        """Starts empty, with each run."""
        self._values: dict[AssetKey, object] = {}

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Keeps a value for the rest of the run."""
        self._values[context.asset_key] = obj

    def load_input(self, context: InputContext) -> object:
        """A value of this run.

        Raises:
            PartialSelectionError: this run did not make the value.
        """
        if context.asset_key not in self._values:
            raise PartialSelectionError
        return self._values[context.asset_key]


@io_manager(description="Values in memory, inside one run; nothing is written.")
def batch_memory(_context: InitResourceContext) -> BatchMemory:
    """An empty memory for one run."""
    return BatchMemory()
