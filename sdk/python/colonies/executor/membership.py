"""Joining a colony: register, wait for the owner's approval, announce the functions."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from colonies.client import AsyncClient
from colonies.client.calls import Backoff
from colonies.errors import FailedPreconditionError, PermissionDeniedError, ResourceExhaustedError
from colonies.executor.state import States
from colonies.registry.v1 import registry_service_pb2 as registry

APPROVAL_POLL_SECONDS = 2.0
NOT_APPROVED = "EXECUTOR_NOT_APPROVED"

log = logging.getLogger("colonies.executor")


@dataclass(frozen=True, slots=True)
class Membership:
    """What an executor says of itself when it joins."""

    client: AsyncClient
    name: str
    executor_types: Sequence[str]
    location: str
    capabilities: registry.Capabilities
    functions: Sequence[registry.Function]
    states: States

    async def join(self) -> None:
        """Returns when the executor is approved and its functions are announced.

        Raises:
            FailedPreconditionError: the colony's owner has rejected this executor.
            RpcError: the server refused the registration or the announcement.
        """
        self.states.enter("joining")
        backoff = Backoff()
        while True:
            await self._approval()
            try:
                await self.client.announce_functions(self.functions)
            except (PermissionDeniedError, FailedPreconditionError) as error:
                if isinstance(error, FailedPreconditionError) and error.reason != NOT_APPROVED:
                    raise
                # Approved a moment ago, and not every replica knows it yet; or no longer, and registering tells.
                await asyncio.sleep(backoff.next_seconds())
            else:
                break
        self.states.enter("ready")
        log.info(
            "executor %s serves %s in colony %s with %d functions",
            self.name,
            ", ".join(self.executor_types),
            self.client.colony,
            len(self.functions),
        )

    async def _approval(self) -> None:
        told = False
        while True:
            wait = APPROVAL_POLL_SECONDS
            try:
                registered = await self._register()
            except ResourceExhaustedError as error:
                log.warning("cannot register yet: %s", error)
                wait = max(wait, error.retry_delay or 0.0)
            else:
                if registered.state == registry.EXECUTOR_STATE_APPROVED:
                    return
                if not told:
                    told = True
                    self.states.enter("waiting_for_approval")
                    log.warning(
                        "waiting for approval in colony %s: colonies executor approve %s   (identity %s)",
                        self.client.colony,
                        self.name,
                        self.client.key.identity,
                    )
            await asyncio.sleep(wait)

    async def _register(self) -> registry.Executor:
        return await self.client.register_executor(
            self.name, self.executor_types, location=self.location, capabilities=self.capabilities
        )
