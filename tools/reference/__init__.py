"""The interface described, out of the protos' own comments: `openapi.json` for programs, `reference.html` for people."""

from pathlib import Path

from tools.reference import openapi, page
from tools.reference.policy import callers
from tools.reference.source import read

FOLDER = Path("services/gateway/pages")


def files(root: Path) -> dict[Path, str]:
    """What is committed, by its path below the root of the repository."""
    source = read(root / "protos", callers(root / "servicekit" / "policy.toml"))
    return {
        FOLDER / "openapi.json": openapi.text(source),
        FOLDER / "reference.html": page.text(source),
    }
