"""Whom the reader of an audit file trusts, and with what: who may do one thing vouches for nothing else."""

from dataclasses import dataclass, field

_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Trust:
    """Identities, of keys.

    Args:
        sealers: the scheduler's, which seal files.
        owners: the colony owner's: the one it entered with, or a later one.
        server_owners: the server owner's, who adds colonies and removes them.
        crons: the cron service's, which may submit and cancel on behalf of members.
    """

    sealers: frozenset[str]
    owners: frozenset[str] = field(default=_NOBODY)
    server_owners: frozenset[str] = field(default=_NOBODY)
    crons: frozenset[str] = field(default=_NOBODY)

    def __post_init__(self) -> None:
        """Who seals files has no other say in them, whatever was given."""
        for name in ("owners", "server_owners", "crons"):
            object.__setattr__(self, name, getattr(self, name) - self.sealers)
