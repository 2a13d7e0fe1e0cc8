"""What every call goes through, in this order, before its servicer sees it:

    observed (request id, log line, metrics)
      errors become status codes (servicekit.status)
        size (servicekit.envelope)
          signature and time (servicekit.signature)
            colony and account read from the very bytes that were signed (servicekit.envelope)
              role worked out (servicekit.directory), policy asked (servicekit.policy)
                nonce claimed (servicekit.nonces), rates of the caller and its colony (servicekit.limits), in one step
                  open streams and long polls counted (servicekit.limits)
                    request parsed whole
                      servicer

A call in JSON goes through the same (servicekit.json_calls): its path, with the suffix, is what was signed, and what the log
and the metrics name; the policy and all limits but that of the size are those of the method without it.

Who may not call claims nothing, so that strangers use up neither a colony's rate nor Redis.

A stream is opened by one signed request; it is cut when its caller's membership changes so that the policy would not let it
in any more, when the key that opened it ceases to be good, and when the process drains.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message

from colonies.json_calls import base_of, is_json
from servicekit import metrics, tasks
from servicekit.bounds import IDENTITY, NAME, NAME_RULE, shown
from servicekit.caller import MEMBER_ROLES, NO_COLONY, Caller, Member, Role, set_current
from servicekit.clock import NS_PER_MS, Clock
from servicekit.directory import Directory
from servicekit.drain import Drain
from servicekit.envelope import Envelope, RequestType
from servicekit.failures import (
    Failure,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
    Violation,
    stranger_denied,
)
from servicekit.json_calls import JsonRequestType, envelope_aside, json_of
from servicekit.limits import LONG_POLLS, Limits, Streams
from servicekit.members import KNOWN_AS
from servicekit.nonces import Nonces
from servicekit.observation import Context, Meters, Observation
from servicekit.policy import Policy, Rule
from servicekit.signature import Signed, check_call, check_fresh

log = structlog.get_logger()

# A stream's caller is looked up again this often even when no change was pushed: with auth away, streams fail closed too.
RECHECK_S = 30.0
# And a stream whose key is being retired this often, so that it is cut within a second of the key's end.
RECHECK_RETIRING_S = 0.5
# A call that is safe to repeat waits no longer than this for its nonce to be claimed.
REPLAY_SAFE_WAIT_S = 1.0


class Gate:
    """Decides whether a signed request may go on, and as whom."""

    def __init__(
        self,
        *,
        audience: str,
        clock: Clock,
        nonces: Nonces,
        members: Directory[Member],
        principals: frozenset[str],
        policy: Policy,
        limits: Limits,
    ) -> None:
        """`principals` are the identities that the settings name: whose keys are looked for outside of colonies first."""
        self._audience = audience
        self._clock = clock
        self._nonces = nonces
        self._members = members
        self._principals = principals
        self._policy = policy
        self._limits = limits
        self.streams = Streams(limits.streams)

    def is_public(self, service: str) -> bool:
        """Whether a service (full name) is open to unsigned calls."""
        return service in self._policy.public_services

    def authenticate(self, method: str, headers: Mapping[str, str], body: bytes) -> Signed:
        """Who signed this call. Whether it was made before is still to be asked (`claim`).

        Raises:
            Unauthenticated: nobody, or too long ago.
        """
        now_ms = self._clock.now_ns() // NS_PER_MS
        return check_call(headers, method=method, audience=self._audience, body=body, now_ms=now_ms)

    async def admit(self, method: str, signed: Signed, envelope: Envelope) -> Caller:
        """The caller, if the policy lets it make this request.

        Raises:
            PermissionDenied: it does not.
            Unavailable: its role cannot be known.
        """
        rule = self._policy.rules.get(method)
        if rule is None:
            msg = "this method is not in the policy"
            raise PermissionDenied(msg, reason="NOT_IN_POLICY")
        colony = envelope.colony or NO_COLONY
        if Role.ANYONE in rule.roles:
            member = Member(signed.key, Role.ANYONE, "")
        else:
            member = await self._granted(rule, envelope.colony, signed.key)
        account = member
        if member.role is Role.SERVICE and envelope.can_represent:
            account = await self._represented(rule, colony, envelope.on_behalf_of)
        elif envelope.on_behalf_of:
            msg = "only services act on behalf of others"
            raise PermissionDenied(msg, reason="ON_BEHALF_NOT_ALLOWED")
        # On behalf of a member, a service reaches what is that member's, as by relation.
        owns_all = account is member and rule.grants_role(member.role, member.name if member.role is Role.SERVICE else "")
        until_ns = member.valid_until_ns
        return Caller(member.identity, colony, member.role, member.name, account, owns_all, signed, key_until_ns=until_ns)

    async def claim(self, caller: Caller) -> None:
        """Makes sure that this call is made once, and counts it for its caller and their colony.

        Raises:
            Unauthenticated: it was made before, or that cannot be told of a call signed like this.
            ResourceExhausted: they make too many.
            Unavailable: whether it was made before cannot be known, and it matters.
        """
        call = caller.call
        claim = self._nonces.claim(call, self._limits.buckets(caller))
        if base_of(call.method) not in self._policy.replay_safe:
            await claim
        else:
            try:
                async with asyncio.timeout(REPLAY_SAFE_WAIT_S):
                    await claim
            except (Unavailable, TimeoutError):
                # The policy says why it is enough, for some methods, to refuse what is known to be a replay.
                metrics.UNCLAIMED.labels(call.method).inc()
        # Again: by the time that its role was known and the nonce claimed, an earlier claim may have been forgotten.
        check_fresh(call.time_ms, self._clock.now_ns() // NS_PER_MS)

    async def _granted(self, rule: Rule, colony: str | None, key: str) -> Member:
        """Whose key this is, if the rule lets it in; looked for where it most likely is. A server owner that is a member of the
        colony too comes as the member.
        """
        likely = key in self._principals or self._members.kept(NO_COLONY, key) is not None
        named = colony if colony and NAME.match(colony) is not None else None
        if likely and (principal := await self._principal(rule, key)):
            if named is None or principal.role is not Role.SERVER_OWNER:
                return principal
            member = await self._members.get(named, key)
            return principal if member is None or not rule.grants_role(member.role, "") else member
        if named is not None:
            member = await self._members.get(named, key)
            if member is not None:
                if rule.grants_role(member.role, "") or rule.initiators:
                    return member
                msg = f"not for the role {member.role}"
                raise PermissionDenied(msg, reason="ROLE_NOT_ALLOWED")
        if not likely and (principal := await self._principal(rule, key)):
            return principal
        if colony is None:
            msg = "this identity may not call this method"
            raise PermissionDenied(msg, reason="ROLE_NOT_ALLOWED")
        # Where it may be empty, whoever is no principal is a stranger.
        if NAME.match(colony) is None and (colony or Role.SERVER_OWNER not in rule.roles):
            raise InvalidArgument([Violation("colony_name", f"{NAME_RULE}; got {shown(colony)}")])
        raise stranger_denied()

    async def _principal(self, rule: Rule, key: str) -> Member | None:
        """The service, or the server owner, whose key this is, if its role lets it in."""
        if not rule.knows_principals:
            return None
        principal = await self._members.get(NO_COLONY, key)
        return principal if principal is not None and rule.grants_role(principal.role, principal.name) else None

    async def _represented(self, rule: Rule, colony: str, identity: str) -> Member:
        """The member on whose behalf a service calls: what it may not do itself, nobody does for it."""
        if NAME.match(colony) is None or IDENTITY.match(identity) is None:
            msg = f"must be the identity of a member of the request's colony; got {shown(identity)}"
            raise InvalidArgument([Violation("on_behalf_of", msg)])
        member = await self._members.get(colony, KNOWN_AS + identity)
        if member is None or not (rule.initiators or rule.grants_role(member.role, "")):
            msg = "the member on whose behalf this call is made may not make it (any more)"
            raise PermissionDenied(msg, reason="ON_BEHALF_REVOKED")
        return member

    @contextmanager
    def watching(self, caller: Caller) -> Iterator[asyncio.Event]:
        """An event that is set when the place of the key that the caller signed with may have changed."""
        colony = caller.colony if caller.role in MEMBER_ROLES else NO_COLONY
        with self._members.watching(colony, caller.call.key) as event:
            yield event

    def is_over(self, caller: Caller) -> bool:
        """Whether the key that the caller signed with has ceased to be good."""
        return caller.key_until_ns is not None and self._clock.now_ns() >= caller.key_until_ns


class _Details(grpc.HandlerCallDetails):
    """A call, as its handler is looked up."""

    def __init__(self, method: str, metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = metadata


class _Twins(grpc.GenericRpcHandler):
    """The methods of other handlers, by the paths of their twins in JSON."""

    def __init__(self, handlers: grpc.GenericRpcHandler) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        if not is_json(path):
            return None
        return self._handlers.service(_Details(base_of(path), handler_call_details.invocation_metadata))


class Handlers:
    """Stands for the server where generated code adds a servicer to it.

    That code offers each method twice: to be looked up when a call comes, and to be waited for by name. For the second the
    server waits for all methods at once, anew at each call, which for a service of thirty methods costs more than the look-up.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds methods that are looked up, and of each its twin in JSON."""
        self._server.add_generic_rpc_handlers((*handlers, *map(_Twins, handlers)))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds nothing."""


class CallPipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server in the chain above."""

    def __init__(self, gate: Gate, drain: Drain) -> None:
        self._gate = gate
        self._drain = drain
        # Asked once: the line of a call that went well is worth no look at the log's settings.
        self._verbose: bool = log.is_enabled_for(logging.DEBUG)
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        path: str = details.method
        known = self._wrapped.get(path)
        if known is not None:
            return known
        handler = await continuation(details)
        if handler is None or self._gate.is_public(path.split("/")[1]):
            return handler
        # Raw bytes in: what is hashed is what came over the wire.
        wrapped: grpc.RpcMethodHandler[Any, Any]
        serializer = None if is_json(path) else handler.response_serializer
        if handler.response_streaming:
            wrapped = grpc.unary_stream_rpc_method_handler(self._stream(path, handler), response_serializer=serializer)
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(self._unary(path, handler), response_serializer=serializer)
        self._wrapped[path] = wrapped
        return wrapped

    async def _admitted(
        self, path: str, request_type: RequestType, body: bytes, headers: Mapping[str, str]
    ) -> tuple[Envelope, Caller]:
        # First: to hash what nobody may send would be work for anybody. It tells a stranger what the contract says, too.
        request_type.check_size(body)
        signed = self._gate.authenticate(path, headers, body)
        aside = len(body) >= request_type.aside_from
        envelope = await envelope_aside(request_type, body) if aside else request_type.envelope(body)
        caller = await self._gate.admit(request_type.method, signed, envelope)
        await self._gate.claim(caller)
        set_current(caller)
        return envelope, caller

    def _unary(self, path: str, handler: Any) -> Callable[..., Any]:
        request_type, respond = _form_of(path)
        meters = Meters(path, verbose=self._verbose)
        long = request_type.method in LONG_POLLS

        async def call(body: bytes, context: Context) -> Any:
            with Observation(meters, context) as observation:
                try:
                    _, caller = await self._admitted(path, request_type, body, observation.headers)
                    with self._gate.streams.one_of(caller) if long else nullcontext():
                        response = await handler.unary_unary(await _parsed(request_type, body), context)
                    return response if respond is None else await respond(response)
                except Failure as failure:
                    await observation.end(context, failure)
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001 - the last line of defence: logged, and told without its text
                    await observation.crash(context, error)

        return call

    def _stream(self, path: str, handler: Any) -> Callable[..., Any]:
        request_type, respond = _form_of(path)
        meters = Meters(path, verbose=self._verbose)

        async def call(body: bytes, context: Context) -> AsyncIterator[Any]:
            with Observation(meters, context) as observation:
                try:
                    envelope, caller = await self._admitted(path, request_type, body, observation.headers)
                    with self._gate.streams.one_of(caller):
                        responses = handler.unary_stream(await _parsed(request_type, body), context)
                        async for response in self._guarded(request_type.method, envelope, caller, responses):
                            yield response if respond is None else await respond(response)
                except Failure as failure:
                    await observation.end(context, failure)
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001 - as above
                    await observation.crash(context, error)

        return call

    async def _guarded(
        self, method: str, envelope: Envelope, caller: Caller, responses: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """The stream's responses, while its caller may have them and the process does not drain."""
        following: asyncio.Future[Any] | None = None
        with self._gate.watching(caller) as changed:
            cut = asyncio.ensure_future(changed.wait())
            draining = asyncio.ensure_future(self._drain.started.wait())
            try:
                # Once more, now that changes are heard of: one may have come since the caller was looked up.
                caller = await self._gate.admit(method, caller.call, envelope)
                while True:
                    following = following or asyncio.ensure_future(anext(responses, None))
                    timeout = RECHECK_S if caller.key_until_ns is None else RECHECK_RETIRING_S
                    await asyncio.wait((following, cut, draining), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                    if draining.done():
                        msg = "this replica is shutting down; open the stream again"
                        raise Unavailable(msg, reason="DRAINING", retry_delay_s=0.1)
                    if cut.done() or not following.done() or self._gate.is_over(caller):
                        changed.clear()
                        if cut.done():
                            cut = asyncio.ensure_future(changed.wait())
                        caller = await self._gate.admit(method, caller.call, envelope)
                        continue
                    response = following.result()
                    following = None
                    if response is None:
                        return
                    yield response
            finally:
                await tasks.end(cut, draining, following)
                await responses.aclose()  # type: ignore[attr-defined]  # servicers' streams are generators


def _form_of(path: str) -> tuple[RequestType, Callable[[Message], Awaitable[bytes]] | None]:
    """How the requests that come by a path are read, and how responses are written, if not by the server itself."""
    return (JsonRequestType(path), json_of) if is_json(path) else (RequestType(path), None)


async def _parsed(request_type: RequestType, body: bytes) -> Message:
    return (
        request_type.parse(body) if len(body) < request_type.aside_from else await asyncio.to_thread(request_type.parse, body)
    )
