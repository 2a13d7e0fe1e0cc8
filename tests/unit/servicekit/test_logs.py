"""The log: a line that cannot be written is lost, and nothing else."""

from pathlib import Path

from prometheus_client import REGISTRY
from structlog import PrintLogger

from servicekit.logs import Patient


def lost() -> float:
    return REGISTRY.get_sample_value("colonies_log_lines_lost_total") or 0.0


def test_a_full_disk_costs_the_line_and_nothing_else() -> None:
    before = lost()
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closing it fails, too
    logger = PrintLogger(Patient(full))  # type: ignore[arg-type]  # all that it needs
    for _ in range(10_000):
        logger.msg("a line")
    assert lost() > before
    try:
        full.close()
    except OSError:
        assert full.closed


def test_a_line_that_can_be_written_is_written(tmp_path: Path) -> None:
    before = lost()
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        PrintLogger(Patient(stream)).msg("a line")  # type: ignore[arg-type]  # all that it needs
        assert (tmp_path / "log").read_text() == "a line\n"
    assert lost() == before
