"""Which running processes belong to workflows, as far as this replica remembers: a hint that saves a statement."""

from collections import OrderedDict
from collections.abc import Iterable
from uuid import UUID

MAX_REMEMBERED = 100_000


class Kin:
    """The newest processes of workflows that were assigned here."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, None] = OrderedDict()

    def add(self, process_id: UUID) -> None:
        """Remembers one, and forgets the oldest where there are too many."""
        self._known[process_id] = None
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def any_of(self, process_ids: Iterable[UUID]) -> bool:
        """Whether any of these is remembered."""
        return any(process_id in self._known for process_id in process_ids)

    def discard(self, process_id: UUID) -> None:
        """Forgets one."""
        self._known.pop(process_id, None)
