"""Dagster's Postgres storage over a pool of connections; `dagster.yaml` names the class.

Dagster's own storage opens a connection for each statement, about two hundred in a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import (
    create_pg_engine,
    get_token_provider_from_config,
    pg_url_from_config,
)
from sqlalchemy import Engine


class PooledPostgresStorage(DagsterPostgresStorage):
    """Dagster's own storage, configured as it is; the instances of a process share one pool.

    A connection that the server has closed is replaced before a statement uses it. The attributes
    that hold the engines are private: `test_pooled_storage` covers them.
    """

    def __init__(self, postgres_url: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Dagster's own arguments)
        """Takes the arguments of Dagster's own storage."""
        super().__init__(postgres_url, *args, **kwargs)
        engine = _pooled_engine(postgres_url, kwargs.get("token_provider"))
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine  # noqa: SLF001 (Dagster has no setting for its engines)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:  # noqa: ANN401 (a private class)
        """The storage of a configuration in `dagster.yaml`."""
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
            token_provider=_token_provider(json.dumps(config_value, sort_keys=True)),
        )


# Providers are not equal to each other: a new one for each instance would be a pool for each, for
# as long as the process lives.
@cache
def _token_provider(config: str) -> Any:  # noqa: ANN401 (a private class)
    return get_token_provider_from_config(json.loads(config))


@cache
def _pooled_engine(postgres_url: str, token_provider: Any) -> Engine:  # noqa: ANN401 (a private class)
    return create_pg_engine(
        postgres_url,
        token_provider,
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        pool_size=1,
        max_overflow=-1,  # a thread waits for no other; what overflows is closed after use
    )
