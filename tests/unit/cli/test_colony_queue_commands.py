"""`colonies colony pause|resume|controls|set-controls|statistics` against a server of canned answers."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.scheduler.v1 import controls_pb2 as controls

from .answers import SCHEDULER
from .conftest import FakeServer, Shell


def _answers_controls(server: FakeServer) -> controls.Controls:
    """UpdateControls and GetControls as the scheduler has them; what they hold."""
    held = controls.Controls()

    def update(request: controls.UpdateControlsRequest) -> controls.UpdateControlsResponse:
        for field, value in request.ListFields():
            if field.name == "colony_name":
                continue
            if field.message_type is None:
                setattr(held, field.name, value)
            elif value.ToMilliseconds():
                getattr(held, field.name).CopyFrom(value)
            else:
                held.ClearField(field.name)  # type: ignore[arg-type]
        return controls.UpdateControlsResponse(controls=held)

    server.on(SCHEDULER + "UpdateControls", controls.UpdateControlsRequest, update)
    server.on(SCHEDULER + "GetControls", controls.GetControlsRequest, lambda _: controls.GetControlsResponse(controls=held))
    return held


def test_pause_and_resume(shell: Shell, server: FakeServer) -> None:
    held = _answers_controls(server)
    assert "paused" in shell("colony", "pause").stdout
    assert held.paused
    assert server.requests[-1] == controls.UpdateControlsRequest(colony_name="dev", paused=True)
    assert shell.json("colony", "resume", "other")["paused"] is False
    assert server.requests[-1] == controls.UpdateControlsRequest(colony_name="other", paused=False)


def test_controls_are_set_as_given_and_shown(shell: Shell, server: FakeServer) -> None:
    _answers_controls(server)
    shown = shell("colony", "controls").stdout
    assert "any number" in shown
    assert shown.count("for ever") == 3
    found = shell.json("colony", "set-controls", "--max-waiting", "5", "--keep-successful", "12h", "--keep-failed", "1.5s")
    assert found == {
        "paused": False,
        "max_waiting": "5",
        "keep_successful": "43200s",
        "keep_failed": "1.500s",
        "keep_cancelled": None,
    }
    assert server.requests[-1] == controls.UpdateControlsRequest(
        colony_name="dev",
        max_waiting=5,
        keep_successful=Duration(seconds=43_200),
        keep_failed=Duration(seconds=1, nanos=500_000_000),
    )
    assert "12 h" in shell("colony", "controls").stdout
    assert shell.json("colony", "set-controls", "--keep-successful", "forever")["keep_successful"] is None
    assert server.requests[-1].HasField("keep_successful")
    assert not server.requests[-1].HasField("keep_failed")


def test_a_time_that_is_none_is_refused_before_any_call(shell: Shell, server: FakeServer) -> None:
    result = shell("colony", "set-controls", "--keep-failed", "soon")
    assert result.exit_code == 2
    assert "--keep-failed: 'soon' is not a duration" in result.stderr
    assert server.requests == []


def test_statistics(shell: Shell, server: FakeServer) -> None:
    one = controls.TypeStatistics(
        executor_type="gpu",
        waiting=4,
        successful=2**53 + 1,
        last_hour=controls.Rates(submitted=77),
        wait_ms=controls.Quantiles(count=1, p50=1448, p90=90_000, p99=181_019),
    )
    answer = controls.GetStatisticsResponse(time=Timestamp(seconds=1_679_906_715), types=[one])
    server.on(SCHEDULER + "GetStatistics", controls.GetStatisticsRequest, lambda _: answer)
    shown = shell("colony", "statistics").stdout
    for text in ("2023-03-27 08:45:15", "gpu", str(2**53 + 1), "77", "1.4 s", "1 min 30 s"):
        assert text in shown, shown
    document = shell.json("colony", "statistics")
    assert document["types"][0]["successful"] == str(2**53 + 1)
    assert document["types"][0]["wait_ms"]["p50"] == 1448.0
    answer.ClearField("types")
    assert "no processes" in shell("colony", "statistics").stdout
