"""Settings of the cron service, from the environment: COLONIES_<NAME>."""

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the cron service needs to know to start, besides what every service does."""

    # Batches of fires that this process has under way at the same time.
    concurrent_fires: int = Field(default=2, ge=1, le=64)
    # Seconds that the scheduler gets to answer. A second longer, another replica takes over what was under way.
    submit_seconds: float = Field(default=4.0, ge=0.1, le=60)
    # Generators that this process submits batches of at the same time, in fours.
    concurrent_dispatches: int = Field(default=2, ge=1, le=64)
    # What may wait in one generator: arguments, MiB of them, and different keys.
    generator_max_waiting: int = Field(default=1_000_000, ge=1_000, le=100_000_000)
    generator_max_waiting_mib: int = Field(default=256, ge=4, le=1024 * 1024)
    generator_max_keys: int = Field(default=100_000, ge=1_000, le=1_000_000)
    # Hours that the records of fires, and of batches that were submitted, are kept.
    fire_retention_hours: int = Field(default=30 * 24, ge=1, le=10 * 365 * 24)

    @property
    def lease_s(self) -> float:
        """How long a claim is good, in seconds."""
        return self.submit_seconds + 1
