"""The page of the reference that is made from a migrated database when the site is built."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import psycopg
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

_KINDS = {"r": "Table", "p": "Table", "v": "View"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page of the database to the site.

    Source: https://www.mkdocs.org/dev-guide/plugins/#on_files

    Raises:
        PluginError: there is no database to look at.
    """
    url = os.environ.get("LOGIN_DATABASE_URL")
    if not url:
        raise PluginError("LOGIN_DATABASE_URL is not set: build the site with `make docs`.")
    with psycopg.connect(url) as connection:
        page = "\n".join(_database(connection))
    files.append(File.generated(config, "reference/database.md", content=page))
    return files


def _database(connection: psycopg.Connection) -> Iterator[str]:
    yield "# Database\n\nMade from a database that `fetch-mask migrate` has just made: what its own"
    yield "comments say, and which of the product's roles may read what (of some tables only some"
    yield "columns). Writing goes through functions, or is the loader's right to insert.\n"
    columns = connection.execute(_COLUMNS).fetchall()
    for (kind, name, about, readers), lines in groupby(columns, key=itemgetter(0, 1, 2, 3)):
        yield f"## {_KINDS[kind]} `{name}`\n\n{about or ''}\n\nRead by: {readers or 'nobody'}.\n"
        yield "| column | type | |\n|---|---|---|"
        for *_, column, type_name, comment in lines:
            yield f"| `{column}` | {type_name} | {comment or ''} |"
        yield ""


_COLUMNS = """
SELECT relation.relkind, relation.relname, obj_description(relation.oid, 'pg_class'),
       (SELECT string_agg(replace(role, 'login_ingest_', ''), ', ')
        FROM unnest(ARRAY['login_ingest_loader', 'login_ingest_analyst', 'login_ingest_recovery',
                          'login_ingest_auditor']) AS role
        WHERE has_any_column_privilege(role, relation.oid, 'SELECT')),
       attribute.attname, format_type(attribute.atttypid, attribute.atttypmod),
       col_description(relation.oid, attribute.attnum)
FROM pg_class AS relation
JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
 AND attribute.attnum > 0 AND NOT attribute.attisdropped
WHERE relation.relkind IN ('r', 'p', 'v') AND NOT relation.relispartition
  AND (relation.relnamespace = 'login_ingest'::regnamespace
       OR relation.oid = to_regclass('user_logins'))
ORDER BY relation.relnamespace <> 'public'::regnamespace, relation.relkind = 'v', relation.relname,
         attribute.attnum
"""
