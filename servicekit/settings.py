"""Settings that every process has, and those of every service. They come from the environment: COLONIES_<NAME>."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from servicekit.bounds import IDENTITY


class ProcessSettings(BaseSettings):
    """What any process that listens needs to know to start."""

    model_config = SettingsConfigDict(env_prefix="COLONIES_", extra="ignore")

    # host:port to serve on.
    listen: str
    # host:port to serve Prometheus metrics on; empty for none.
    metrics_listen: str = ""
    # Speak plaintext on an address that is not loopback: as a listener, and to other services.
    allow_plaintext: bool = False
    # This process's certificate (PEM, with what leads to the CA) and its key (mode 0600): all its listeners speak TLS.
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    # Whom to trust (PEM): channels to other services speak TLS, and show the own certificate if there is one.
    tls_ca_file: Path | None = None
    # Mutual TLS: listeners take only peers with a certificate that the CA file leads to.
    tls_require_client_cert: bool = False
    # Seconds that calls in hand get to finish after SIGTERM.
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    # "debug", "info", "warning" or "error".
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            absent, given = ("KEY", "CERT") if self.tls_key_file is None else ("CERT", "KEY")
            msg = f"COLONIES_TLS_{absent}_FILE is not set, and COLONIES_TLS_{given}_FILE is of no use without it"
            raise ValueError(msg)
        for name, value in (("CERT", self.tls_cert_file), ("CA", self.tls_ca_file)):
            if self.tls_require_client_cert and value is None:
                msg = f"COLONIES_TLS_{name}_FILE is not set, and COLONIES_TLS_REQUIRE_CLIENT_CERT needs it"
                raise ValueError(msg)
        return self


class ServiceSettings(ProcessSettings):
    """What a service needs to know to start."""

    # Cluster id: the audience of every signature.
    cluster: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")
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
    # Connections to Postgres that one process holds at most.
    postgres_connections: int = Field(default=10, ge=2, le=500)
    # Calls a second that one identity may make, in all services together, and how many at once; rate 0 = any number. The
    # services themselves may make any number.
    identity_rate: float = Field(default=1_000.0, ge=0, le=100_000)
    identity_burst: int = Field(default=4_000, ge=1, le=10_000_000)
    # The same for all that its members, and services and the server owner, ask of one colony.
    colony_rate: float = Field(default=5_000.0, ge=0, le=100_000)
    colony_burst: int = Field(default=20_000, ge=1, le=10_000_000)
    # Streams and long polls that one identity may have open in one replica; 0 = any number.
    streams_per_identity: int = Field(default=1_000, ge=0, le=1_000_000)

    @field_validator("postgres_url", "redis_url")
    @classmethod
    def _check_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        """What takes an ill-formed URL apart later would tell of the piece that it stumbled over: a password, perhaps."""
        schemes = {"postgres_url": ("postgresql", "postgres"), "redis_url": ("redis", "rediss", "unix")}[str(info.field_name)]
        try:
            parts = urlsplit(value.get_secret_value())
            good = parts.scheme in schemes and (parts.port is None or parts.port > 0) and "@" not in parts.path
        except ValueError:
            good = False
        if not good:
            # Without what was raised: it has the piece in it.
            form = f"{schemes[0]}://user:password@host:port/name"
            msg = f"not a URL of the form {form}; in a password / @ : % are written as %2F %40 %3A %25"
            raise ValueError(msg) from None
        return value

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
