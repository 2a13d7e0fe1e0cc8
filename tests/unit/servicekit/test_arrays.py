"""Array parameters: what Postgres makes of each, and that it equals what was given."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from servicekit.arrays import BigInts, Bools, Bytes, Floats, Ints, SmallInts, Texts, Timestamps, Uuids

LONG = "x" * 100_000
CASES: list[tuple[type[Any], str, Sequence[Any]]] = [
    (BigInts, "bigint", [0, 1, -1, 2**63 - 1, -(2**63), 2**32, 255, 256]),
    (Ints, "integer", [0, 1, -1, 2**31 - 1, -(2**31), 65_536]),
    (SmallInts, "smallint", [0, 1, -1, 2**15 - 1, -(2**15), 256]),
    (Floats, "double precision", [0.0, -0.5, 1e308, 5e-324, float("inf"), float("-inf"), 3.0]),
    (Bools, "boolean", [True, False, True]),
    (Texts, "text", ["", "plain", "å∫ç 漢字 🐜", '{"quoted",\\}', "NULL", " ", "a\nb", "y" * 511, "z" * 512, LONG]),
    (Bytes, "bytea", [b"", b"\0", bytes(range(256)), b"\\x00", LONG.encode()]),
    (Uuids, "uuid", [UUID(int=0), UUID(int=2**128 - 1), *(uuid4() for _ in range(5))]),
    (
        Timestamps,
        "timestamptz",
        [
            datetime(2000, 1, 1, tzinfo=UTC),
            datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
        ],
    ),
]
each_type = pytest.mark.parametrize(("wrapper", "sql_type", "values"), CASES, ids=[case[1] for case in CASES])
TEXT_OF: dict[str, LiteralString] = {
    name: f"SELECT coalesce(array_agg(v::text ORDER BY n), '{{}}') FROM unnest(%s::{name}[]) WITH ORDINALITY AS t (v, n)"
    for name in ("bigint", "integer", "smallint", "double precision", "boolean", "text", "bytea", "uuid", "timestamptz")
}


@pytest.fixture(scope="module")
def connection(databases: Any) -> Any:
    """A connection to some database."""
    with databases.fresh(migrated=False) as url, psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as connected:
        yield connected


def there_and_back(connection: Any, value: Any, *, binary: bool) -> Any:
    """What Postgres gives back for a parameter."""
    return connection.execute("SELECT %s", (value,), binary=binary).fetchone()[0]


@each_type
@pytest.mark.parametrize("binary", [True, False])
def test_there_and_back(connection: Any, wrapper: Any, sql_type: str, values: Sequence[Any], binary: bool) -> None:
    assert there_and_back(connection, wrapper(values), binary=binary) == list(values)
    for value in values:
        assert there_and_back(connection, wrapper([value]), binary=binary) == [value]


@each_type
def test_it_is_what_a_plain_list_is(connection: Any, wrapper: Any, sql_type: str, values: Sequence[Any]) -> None:
    """Equal to Postgres, too: its own text of each element, and the type without a cast."""
    for given in (list(values), [None, *values, None, None], [None], [values[0]] * 1000):
        expected = connection.execute(TEXT_OF[sql_type], (given,)).fetchone()
        assert connection.execute(TEXT_OF[sql_type], (wrapper(given),)).fetchone() == expected
    (name,) = connection.execute("SELECT pg_typeof(%s)::text", (wrapper(values),)).fetchone()
    assert name == {"timestamptz": "timestamp with time zone"}.get(sql_type, sql_type) + "[]"


@each_type
def test_nulls_and_empty(connection: Any, wrapper: Any, sql_type: str, values: Sequence[Any]) -> None:
    assert there_and_back(connection, wrapper([]), binary=True) == []
    assert there_and_back(connection, wrapper(()), binary=True) == []
    assert there_and_back(connection, wrapper([None]), binary=True) == [None]
    mixed = [None, *values, None, *values]
    assert there_and_back(connection, wrapper(mixed), binary=True) == mixed
    assert there_and_back(connection, wrapper(tuple(mixed)), binary=True) == mixed


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (BigInts([1, 2**63]), "BigInts cannot hold"),
        (BigInts([-(2**63) - 1]), "BigInts cannot hold"),
        (Ints([2**31]), "Ints cannot hold"),
        (SmallInts([-(2**15) - 1]), "SmallInts cannot hold"),
        (SmallInts([None, 1.5]), "SmallInts cannot hold"),  # type: ignore[list-item]
        (Floats(["1"]), "Floats cannot hold"),  # type: ignore[list-item]
        (Texts(["\ud800"]), "Texts cannot hold"),
        (Texts([7]), "Texts cannot hold"),  # type: ignore[list-item]
        (Bytes(["text"]), "Bytes cannot hold"),  # type: ignore[list-item]
        (Uuids(["00000000-0000-0000-0000-000000000000"]), "Uuids cannot hold"),  # type: ignore[list-item]
        (Bools([2]), "Bools cannot hold"),  # type: ignore[list-item]
        (Timestamps([datetime(2026, 1, 1)]), "Timestamps cannot hold"),
        (Texts(["a", "b\0c"]), "0x00"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(connection: Any, value: Any, words: str) -> None:
    with pytest.raises(psycopg.DataError, match=words):
        there_and_back(connection, value, binary=True)
    assert there_and_back(connection, 1, binary=True) == 1, "and the connection goes on"
