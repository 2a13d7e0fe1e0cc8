"""Settings of the registry: those that every service has. It needs `auth_address`."""

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the registry needs to know to start."""
