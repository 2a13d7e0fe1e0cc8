"""How an executor comes in and goes out.

Auth's record of membership decides who may call, so every step tells auth first and then changes the entry here. Whatever is
interrupted between the two is finished by repeating the step: each one ends in the same place however often it is made.

    nothing ──register──► PENDING ──approve──► APPROVED
                             ▲                    │
                             └─register otherwise─┘
    reject takes any of them to REJECTED, approve takes REJECTED to APPROVED, remove takes any of them to nothing
"""

from dataclasses import replace

from servicekit.clock import Clock, datetime_of
from servicekit.failures import AlreadyExists, FailedPrecondition, NotFound
from services.registry.domain.model import MAX_PENDING, Executor, ExecutorState, Registration
from services.registry.domain.ports import Authority, Edit, ExecutorStore


def present(executor: Executor | None) -> Executor:
    """The executor.

    Raises:
        NotFound: there is none.
    """
    if executor is None:
        msg = "no such executor is registered in this colony"
        raise NotFound(msg, reason="EXECUTOR_NOT_FOUND")
    return executor


class Enrolment:
    """Registration by the executor itself, approval and rejection by the colony's owner, removal by either."""

    def __init__(self, store: ExecutorStore, authority: Authority, clock: Clock) -> None:
        self._store = store
        self._authority = authority
        self._clock = clock

    async def register(self, colony: str, key: str, registration: Registration, call: bytes) -> Executor:
        """Notes what the holder of a key says of itself, in a signed call. For a colony that does not exist the answer is the
        same as for a new entry; and for a key that is nobody's any more, so that who has it learns no more than a stranger.

        Raises:
            FailedPrecondition: the owner has rejected this identity.
        """
        identity = await self._authority.identity_in(colony, key)
        if identity is None:
            return _pending(colony, key, registration)
        pending = _pending(colony, identity, registration)

        async def work(edit: Edit) -> Executor:
            current = edit.executor
            if current is None:
                return await self._wait(edit, pending, call)
            if current.state is ExecutorState.REJECTED:
                msg = "the colony's owner has rejected this executor"
                raise FailedPrecondition(msg, reason="EXECUTOR_REJECTED")
            if not registration.claims_as(current):
                await self._authority.drop(colony, identity, [call])
                return await self._wait(edit, pending, call)
            updated = replace(current, capabilities=registration.capabilities)
            # One from before registrations were kept has none yet.
            if updated != current or not await edit.has_registration():
                await edit.save(updated, call)
            return pending if current.state is ExecutorState.PENDING else updated

        return await self._store.edit(colony, identity, work)

    async def _wait(self, edit: Edit, pending: Executor, call: bytes) -> Executor:
        """Enters the executor as one that waits for the owner. However many wait there is room for it: to be told that there is
        none would tell strangers that there is such a colony, and a crowd of them would keep everybody else out.
        """
        already = edit.executor is not None and edit.executor.state is ExecutorState.PENDING
        if not already:
            await edit.hold_pending(MAX_PENDING)
        await edit.save(replace(pending, registered_at=datetime_of(self._clock.now_ns())), call)
        return pending

    async def approve(self, colony: str, identity: str, call: bytes) -> Executor:
        """Lets an executor in, as the owner asks for in a signed call.

        Raises:
            NotFound: it is not registered.
            AlreadyExists: another approved executor has its name, or it is something else in the colony.
            FailedPrecondition: the colony does not have its location.
        """

        async def work(edit: Edit) -> Executor:
            executor = present(edit.executor)
            if executor.location_name and not await edit.hold_location(executor.location_name):
                msg = f"the executor names the location {executor.location_name!r}, which this colony does not have"
                raise FailedPrecondition(msg, reason="LOCATION_UNKNOWN")
            if await edit.hold_name(executor.name):
                msg = f"another approved executor has the name {executor.name!r}"
                raise AlreadyExists(msg, reason="NAME_TAKEN")
            registration = await edit.registration()
            calls = [call, registration] if registration else [call]
            await self._authority.admit(colony, identity, executor.name, calls)
            return await _in_state(edit, executor, ExecutorState.APPROVED)

        return await self._store.edit(colony, identity, work)

    async def reject(self, colony: str, identity: str, call: bytes) -> Executor:
        """Keeps an executor out, or throws it out, as the owner asks for in a signed call.

        Raises:
            NotFound: it is not registered.
        """

        async def work(edit: Edit) -> Executor:
            executor = present(edit.executor)
            await self._authority.drop(colony, identity, [call])
            return await _in_state(edit, executor, ExecutorState.REJECTED)

        return await self._store.edit(colony, identity, work)

    async def remove(self, colony: str, identity: str, call: bytes) -> None:
        """Removes an executor with its functions, as it or the owner asks for in a signed call.

        Raises:
            NotFound: it is not registered.
        """

        async def work(edit: Edit) -> None:
            present(edit.executor)
            await self._authority.drop(colony, identity, [call])
            await edit.remove()

        await self._store.edit(colony, identity, work)


def _pending(colony: str, identity: str, registration: Registration) -> Executor:
    """A new entry as its executor sees it: made from what it said alone, so that it tells nothing of the colony."""
    return Executor(
        colony=colony,
        identity=identity,
        name=registration.name,
        executor_types=registration.executor_types,
        location_name=registration.location_name,
        capabilities=registration.capabilities,
        state=ExecutorState.PENDING,
        registered_at=None,
    )


async def _in_state(edit: Edit, executor: Executor, state: ExecutorState) -> Executor:
    changed = replace(executor, state=state)
    if changed != executor:
        await edit.save(changed)
    return changed
