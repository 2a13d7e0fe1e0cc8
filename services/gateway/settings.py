"""Settings of the gateway, from the environment: COLONIES_<NAME>."""

from pydantic import Field

from servicekit.settings import ProcessSettings

KIB = 1024
MIB = 1024 * KIB


class Settings(ProcessSettings):
    """What the gateway needs to know to start."""

    # host:port of the front door, behind which the services are.
    front_door_address: str
    # The cluster's id, for pages that sign: it is no secret. Without it their users must give it.
    cluster: str = Field(default="", max_length=128, pattern=r"^[A-Za-z0-9._-]*$")
    # A request's body: its bytes at most, and the seconds in which it must have come.
    max_body_bytes: int = Field(default=4 * MIB + 64 * KIB, ge=KIB, le=64 * MIB)
    body_seconds: float = Field(default=30.0, gt=0, le=3600)
    # Requests whose bodies are still to come; the oldest are given up for new ones.
    max_arriving: int = Field(default=4_000, ge=1, le=100_000)
    # Bytes of bodies, and of large answers, that are held at one time.
    max_held_bytes: int = Field(default=256 * MIB, ge=MIB, le=64 * 1024 * MIB)
    # Requests that are no streams, and streams, that one replica has in hand at one time.
    max_requests: int = Field(default=2_000, ge=1, le=100_000)
    max_streams: int = Field(default=5_000, ge=0, le=100_000)
    # A request's deadline where it names none. A stream has none.
    call_seconds: float = Field(default=120.0, gt=0, le=3600)
    # A stream that is quiet for so long gets an empty line, so that nobody on the way takes it for dead.
    quiet_seconds: float = Field(default=15.0, gt=0, le=600)
    # A reader that takes less than 256 KiB in so long is cut off.
    write_seconds: float = Field(default=30.0, gt=0, le=600)
