"""All that the services keep, to be compared before and after an attack."""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

SCHEMAS = ("auth", "registry", "scheduler", "cron")
# What services write by themselves, whoever calls: counts made up from the ledger, and when an executor was last heard.
OF_THEIR_OWN = ("statistics_progress", "statistics_count", "statistics_minute", "statistics_class")
CHANGING_COLUMNS = ("last_heard_at",)

Row: TypeAlias = dict[str, Any]
Contents: TypeAlias = dict[str, list[str]]


def contents(database_url: str, *, wanted: Callable[[Row], bool] = lambda _: True) -> Contents:
    """Every row of every table, as text that can be compared and shown."""
    with psycopg.connect(database_url, row_factory=tuple_row) as connection:
        return {
            f"{schema}.{table}": sorted(
                json.dumps(row, sort_keys=True) for row in _rows(connection, schema, table) if wanted(row)
            )
            for schema, table in _tables(connection)
        }


def _tables(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    statement = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_schema = ANY(%s) AND table_type = 'BASE TABLE' AND table_name <> ALL(%s)
    ORDER BY 1, 2
    """
    return connection.execute(statement, [list(SCHEMAS), list(OF_THEIR_OWN)]).fetchall()


def _rows(connection: psycopg.Connection[Any], schema: str, table: str) -> Iterable[Row]:
    statement = sql.SQL("SELECT to_jsonb(t) - %s::text[] FROM {} AS t").format(sql.Identifier(schema, table))
    return (row for (row,) in connection.execute(statement, [list(CHANGING_COLUMNS)]))
