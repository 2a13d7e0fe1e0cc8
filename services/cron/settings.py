"""Settings of the cron service, from the environment: COLONIES_<NAME>."""

from pydantic import Field, model_validator

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the cron service needs to know to start, besides what every service does."""

    # Crons that this process fires at the same time. Each holds a connection to Postgres while its workflow is submitted.
    concurrent_fires: int = Field(default=4, ge=1, le=400)
    # Seconds that the scheduler gets to answer. The cron's row is locked that long at most; Postgres ends transactions that
    # stay idle for 30 s.
    submit_seconds: float = Field(default=10.0, ge=0.1, le=25)

    @model_validator(mode="after")
    def _leave_connections(self) -> "Settings":
        if self.concurrent_fires >= self.postgres_connections:
            msg = "concurrent_fires must be less than postgres_connections: calls need connections too"
            raise ValueError(msg)
        return self
