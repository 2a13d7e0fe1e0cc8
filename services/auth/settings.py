"""Settings of auth: those that every service has."""

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What auth needs to know to start."""
