"""Methods about a colony's queue as a whole: pausing it, limits, retention, statistics."""

from google.protobuf.duration_pb2 import Duration

from colonies.client.calls import Calls
from colonies.scheduler.v1 import controls_pb2 as controls


class ControlCalls(Calls):
    """What can be done with the colony's queue."""

    async def get_controls(self) -> controls.Controls:
        """What the colony's owner has set."""
        request = controls.GetControlsRequest(colony_name=self.colony)
        return (await self.call(self.scheduler.GetControls, request)).controls

    async def update_controls(
        self,
        *,
        paused: bool | None = None,
        max_waiting: int | None = None,
        keep_successful: float | None = None,
        keep_failed: float | None = None,
        keep_cancelled: float | None = None,
    ) -> controls.Controls:
        """Sets what is given and leaves the rest as it is; for the colony's owner.

        Args:
            paused: nothing is assigned.
            max_waiting: how many processes may wait, for parents or in the queue; 0 = no limit.
            keep_successful: how long what ended so is kept, in seconds, from a minute on; 0 = for ever.
            keep_failed: as `keep_successful`.
            keep_cancelled: as `keep_successful`.

        Returns:
            What is set now.
        """
        request = controls.UpdateControlsRequest(
            colony_name=self.colony,
            paused=paused,
            max_waiting=max_waiting,
            keep_successful=_duration(keep_successful),
            keep_failed=_duration(keep_failed),
            keep_cancelled=_duration(keep_cancelled),
        )
        return (await self.call(self.scheduler.UpdateControls, request)).controls

    async def pause(self) -> controls.Controls:
        """Assigns nothing from here on; for the colony's owner. Submits, running attempts and deadlines go on."""
        return await self.update_controls(paused=True)

    async def resume(self) -> controls.Controls:
        """Ends a pause; for the colony's owner."""
        return await self.update_controls(paused=False)

    async def get_statistics(self) -> controls.GetStatisticsResponse:
        """Counts, rates, wait and run times by executor type, at most some seconds old."""
        return await self.call(self.scheduler.GetStatistics, controls.GetStatisticsRequest(colony_name=self.colony))


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    milliseconds = round(seconds * 1000)
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
