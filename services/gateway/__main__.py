"""The gateway's process."""

import asyncio
import signal

from servicekit.entry import start
from services.gateway.serving import Gateway
from services.gateway.settings import Settings


async def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT."""
    gateway = Gateway(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, gateway.told.set)
    await gateway.serve()


if __name__ == "__main__":
    start("gateway", Settings, run)
