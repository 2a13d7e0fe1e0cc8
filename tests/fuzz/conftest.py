"""One stage for all methods: what one of them leaves behind is what the next one meets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.stage import Stage
from tests.harness.servers import Databases, running_valkey

_tables: list[str] = []


@pytest.fixture(scope="module")
def stage(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Service processes, in a colony."""
    directory: Path = tmp_path_factory.mktemp("fuzz")
    with databases.fresh() as database_url, running_valkey() as valkey, Stage(database_url, valkey.url(), directory) as made:
        yield made
        _tables.extend(made.table())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """After the long target: which method gave which answers, how often."""
    if "fuzz" in config.option.markexpr.split() and "not" not in config.option.markexpr:
        terminalreporter.write_line("")
        for line in _tables:
            terminalreporter.write_line(line)
