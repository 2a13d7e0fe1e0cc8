"""Settings that every service has. They come from the environment: COLONIES_<NAME>."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from servicekit.bounds import IDENTITY


class ServiceSettings(BaseSettings):
    """What a service needs to know to start."""

    model_config = SettingsConfigDict(env_prefix="COLONIES_", extra="ignore")

    # Cluster id: the audience of every signature.
    cluster: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")
    # host:port to serve gRPC on.
    listen: str
    # host:port to serve Prometheus metrics on; empty for none.
    metrics_listen: str = ""
    # postgresql:// URL; the password stays out of logs.
    postgres_url: SecretStr
    # redis:// URL.
    redis_url: SecretStr
    # Identity of the server owner: any key that it has had. As with the services, auth's word counts on which one is good now.
    server_owner: str
    # File with this service's own private key (mode 0600).
    service_key_file: Path
    # "auth=<identity>,registry=<identity>,...": who the services are; any key that they have had.
    service_identities: Annotated[dict[str, str], NoDecode]
    # host:port of each service; the front door serves them all.
    auth_address: str = ""
    registry_address: str = ""
    scheduler_address: str = ""
    # Serve plaintext on an address that is not loopback.
    allow_plaintext: bool = False
    # Connections to Postgres that one process holds at most.
    postgres_connections: int = Field(default=10, ge=2, le=500)
    # Seconds that calls in hand get to finish after SIGTERM.
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    # "debug", "info", "warning" or "error".
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @field_validator("service_identities", mode="before")
    @classmethod
    def _parse_identities(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        return {name.strip(): identity.strip() for name, _, identity in pairs}

    @field_validator("service_identities")
    @classmethod
    def _check_identities(cls, value: dict[str, str]) -> dict[str, str]:
        for name, identity in value.items():
            if IDENTITY.match(identity) is None:
                msg = f"the identity of {name!r} is not 64 lower-case hex digits"
                raise ValueError(msg)
        return value

    @field_validator("server_owner")
    @classmethod
    def _check_owner(cls, value: str) -> str:
        if IDENTITY.match(value) is None:
            msg = "not an identity of 64 lower-case hex digits"
            raise ValueError(msg)
        return value
