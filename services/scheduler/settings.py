"""Settings of the scheduler: those of every service, and these."""

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """COLONIES_<NAME> in the environment."""

    # How long an attempt lives without a heartbeat, milliseconds.
    lease_ms: int = Field(default=30_000, ge=1_000, le=3_600_000)
    # Keep the signed calls behind submits, closes, outputs, cancels and retries, and chain ledger lines by hash. What is
    # submitted while this is off can never be audited.
    receipts: bool = True
