"""Requests checked and turned into the domain's words, and back."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from colonies.auth.v1 import auth_service_pb2 as pb
from servicekit import cursors
from servicekit.bounds import Bounds, checked
from servicekit.changes import Change, Event
from servicekit.clock import NS_PER_MS, Clock
from servicekit.signature import Join, check_join
from services.auth.domain.model import Colony, Membership, Page, Resolved, Role

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64

ROLES = {
    None: pb.MEMBER_ROLE_UNSPECIFIED,
    Role.COLONY_OWNER: pb.MEMBER_ROLE_COLONY_OWNER,
    Role.USER: pb.MEMBER_ROLE_USER,
    Role.EXECUTOR: pb.MEMBER_ROLE_EXECUTOR,
    Role.SERVER_OWNER: pb.MEMBER_ROLE_SERVER_OWNER,
    Role.SERVICE: pb.MEMBER_ROLE_SERVICE,
}


class Named(Protocol):
    """A request for one colony by `name`."""

    @property
    def name(self) -> str:
        """A Name."""
        ...


class InColony(Protocol):
    """A request within a colony."""

    @property
    def colony_name(self) -> str:
        """A Name."""
        ...


class NamedInColony(InColony, Named, Protocol):
    """A request for something by `name` in a colony."""


class Paged(Protocol):
    """A request for a page of a list."""

    @property
    def page_size(self) -> int:
        """0 for the default."""
        ...

    @property
    def cursor(self) -> str:
        """Empty for the first page."""
        ...


class PagedInColony(InColony, Paged, Protocol):
    """A request for a page of a list in a colony."""


class OfIdentity(Protocol):
    """A service's request about an identity in a colony."""

    @property
    def colony(self) -> str:
        """A Name."""
        ...

    @property
    def identity(self) -> str:
        """64 hex digits."""
        ...


def check_proof(bounds: Bounds, field: str, proof: pb.JoinProof) -> None:
    """Whether a proof has the form of one."""
    for part, value, size in (
        ("public_key", proof.public_key, PUBLIC_KEY_BYTES),
        ("signature", proof.signature, SIGNATURE_BYTES),
    ):
        if len(value) != size:
            bounds.refuse(f"{field}.{part}", f"must be {size} bytes; it has {len(value)}")


def _joining(join: Join, field: str, proof: pb.JoinProof, clock: Clock) -> str:
    return check_join(
        join,
        field=field,
        public_key=proof.public_key,
        signature=proof.signature,
        time_ms=proof.time_ms,
        now_ms=clock.now_ns() // NS_PER_MS,
    )


def new_colony(request: pb.AddColonyRequest, *, cluster: str, clock: Clock) -> tuple[str, str]:
    """The new colony's name and its owner's identity, proven."""
    with checked() as bounds:
        bounds.name("name", request.name)
        check_proof(bounds, "owner", request.owner)
    join = Join(cluster, request.name, Role.COLONY_OWNER, request.name)
    return request.name, _joining(join, "owner", request.owner, clock)


def new_user(request: pb.AddUserRequest, *, cluster: str, clock: Clock) -> tuple[str, str, str]:
    """Colony, the new user's name and its identity, proven."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
        check_proof(bounds, "user", request.user)
    join = Join(cluster, request.colony_name, Role.USER, request.name)
    return request.colony_name, request.name, _joining(join, "user", request.user, clock)


def name_of(request: Named) -> str:
    """The colony that is named."""
    with checked() as bounds:
        bounds.name("name", request.name)
    return request.name


def colony_of(request: InColony) -> str:
    """The colony of the request."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
    return request.colony_name


def named_in_colony(request: NamedInColony) -> tuple[str, str]:
    """Colony and name."""
    with checked() as bounds:
        bounds.name("colony_name", request.colony_name)
        bounds.name("name", request.name)
    return request.colony_name, request.name


def key_somewhere(request: OfIdentity) -> tuple[str, str]:
    """Colony, empty for none, and a key's identity."""
    with checked() as bounds:
        bounds.name("colony", request.colony, optional=True)
        bounds.identity("identity", request.identity)
    return request.colony, request.identity


def identity_in_colony(request: OfIdentity) -> tuple[str, str]:
    """Colony and identity."""
    with checked() as bounds:
        bounds.name("colony", request.colony)
        bounds.identity("identity", request.identity)
    return request.colony, request.identity


def executor(request: pb.PutExecutorRequest) -> tuple[str, str, str]:
    """Colony, identity and name of an executor."""
    with checked() as bounds:
        bounds.name("colony", request.colony)
        bounds.identity("identity", request.identity)
        bounds.name("name", request.name)
    return request.colony, request.identity, request.name


def page(request: Paged) -> tuple[str, int]:
    """The name that the page begins behind ("" for the first), and how many are wanted."""
    with checked() as bounds:
        limit = bounds.page("page_size", request.page_size)
    after = str(cursors.decode("cursor", request.cursor, str)[0]) if request.cursor else ""
    return after, limit


def page_in_colony(request: PagedInColony) -> tuple[str, str, int]:
    """Colony, the name that the page begins behind, and how many are wanted."""
    return colony_of(request), *page(request)


def timestamp(moment: datetime) -> Timestamp:
    """A moment as it goes out."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def colony_message(colony: Colony) -> pb.Colony:
    """A colony as it goes out."""
    return pb.Colony(name=colony.name, owner=colony.owner, created_time=timestamp(colony.created_at))


def user_message(user: Membership) -> pb.User:
    """A user as it goes out."""
    return pb.User(name=user.name, identity=user.identity, created_time=timestamp(user.created_at))


def resolved_message(resolved: Resolved) -> pb.ResolveMemberResponse:
    """What an identity is, as it goes out."""
    return pb.ResolveMemberResponse(
        role=ROLES[resolved.role],
        name=resolved.name,
        colony_exists=resolved.colony_exists,
        identity=resolved.identity,
        valid_until=None if resolved.valid_until is None else timestamp(resolved.valid_until),
    )


def next_cursor(page: Page[Colony] | Page[Membership]) -> str:
    """The cursor behind the page's last item; empty on the last page."""
    items: Sequence[Colony | Membership] = page.items
    return cursors.encode((items[-1].name,)) if page.more else ""


def change_message(event: Event | None) -> pb.WatchMembersResponse:
    """A change, `synced`, or a sign of life."""
    if event is None:
        return pb.WatchMembersResponse()
    if not isinstance(event, Change):
        return pb.WatchMembersResponse(synced=True)
    return pb.WatchMembersResponse(colony=event.colony, identity=event.identity, colony_removed=event.colony_removed)
