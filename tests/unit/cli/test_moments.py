"""Times and spans as people read them."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cli import moments
from colonies.scheduler.v1.process_pb2 import Process


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.2504, "250 ms"),
        (1.26, "1.3 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (60.0, "1 min"),
        (65.0, "1 min 5 s"),
        (3600.0, "1 h"),
        (3725.0, "1 h 2 min"),
        (86400.0, "1 d"),
        (93600.0, "1 d 2 h"),
        (-2.0, "-2.0 s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert moments.span(seconds) == text


def test_no_limit_is_nothing() -> None:
    assert moments.span_ms(0) == ""
    assert moments.span_ms(1500) == "1.5 s"


def test_run_time_of_what_has_not_begun_runs_and_ended() -> None:
    process = Process()
    assert moments.run_time(process) == ""
    process.start_time.GetCurrentTime()
    assert moments.run_time(process).endswith((" ms", " s"))
    process.end_time.CopyFrom(Timestamp(seconds=process.start_time.seconds + 90, nanos=process.start_time.nanos))
    assert moments.run_time(process) == "1 min 30 s"


def test_times_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    with monkeypatch.context() as zone:
        zone.setenv("TZ", "Europe/Stockholm")
        time.tzset()
        moment = Timestamp()
        moment.FromJsonString("2023-03-27T08:45:15Z")
        assert moments.local(moment) == "2023-03-27 10:45:15"
    time.tzset()
