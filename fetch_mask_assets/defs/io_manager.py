"""Frames pass from asset to asset in memory, inside one run, and are written nowhere."""

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
    """A part of the chain was selected; a batch lives only inside the run that received it."""

    def __init__(self) -> None:
        """Says in one sentence what to select instead."""
        super().__init__(
            "A batch lives only inside the run that received it: select raw_login_batch,"
            " masked_logins and user_logins together (the job ingest_logins does), run in one"
            " process."
        )


class BatchMemory(IOManager):
    """Holds the frames of one run."""

    def __init__(self) -> None:
        """Starts empty, with each run."""
        self._frames: dict[AssetKey, object] = {}

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Keeps a frame for the rest of the run."""
        self._frames[context.asset_key] = obj

    def load_input(self, context: InputContext) -> object:
        """Gives a frame of this run.

        Raises:
            PartialSelectionError: this run did not make it.
        """
        if context.asset_key not in self._frames:
            raise PartialSelectionError
        return self._frames[context.asset_key]


@io_manager(description="Frames in memory, inside one run; nothing is written.")
def batch_memory(_context: InitResourceContext) -> BatchMemory:
    """An empty memory for one run."""
    return BatchMemory()
