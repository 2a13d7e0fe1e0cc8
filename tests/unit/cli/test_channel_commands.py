"""`colonies channel` against a server of canned answers."""

import json

import pytest

from colonies.scheduler.v1 import channel_pb2 as pb
from colonies.scheduler.v1 import spec_pb2

from .answers import PROCESS_ID, SCHEDULER
from .conftest import FakeServer, Shell


def messages() -> list[pb.ChannelMessage]:
    """A short conversation."""
    found = [
        pb.ChannelMessage(cursor="1", number=1, side=pb.CHANNEL_SIDE_SUBMITTER, sender_name="alice", kind=pb.MESSAGE_KIND_DATA),
        pb.ChannelMessage(cursor="2", number=2, side=pb.CHANNEL_SIDE_EXECUTOR, sender_name="e1", attempt=1),
        pb.ChannelMessage(cursor="3", number=3, side=pb.CHANNEL_SIDE_SUBMITTER, sender_name="alice", kind=pb.MESSAGE_KIND_END),
    ]
    found[0].value.data = b'{"n": 1}'
    found[1].kind, found[1].value.data = pb.MESSAGE_KIND_ERROR, b'"bad\\u001b[31m"'
    for message in found:
        message.time.FromJsonString("2023-03-27T08:45:15Z")
    return found


def answers_channel(server: FakeServer) -> list[pb.AppendMessagesRequest]:
    """All three RPCs; what was appended."""
    appended: list[pb.AppendMessagesRequest] = []

    def append(request: pb.AppendMessagesRequest) -> pb.AppendMessagesResponse:
        appended.append(request)
        return pb.AppendMessagesResponse()

    server.on(SCHEDULER + "AppendMessages", pb.AppendMessagesRequest, append)
    server.on(SCHEDULER + "ListMessages", pb.ListMessagesRequest, lambda _: pb.ListMessagesResponse(messages=messages()))
    server.on(
        SCHEDULER + "FollowChannel",
        pb.FollowChannelRequest,
        lambda _: [pb.FollowChannelResponse(), pb.FollowChannelResponse(messages=messages())],
    )
    return appended


def test_send_counts_and_sends(shell: Shell, server: FakeServer) -> None:
    appended = answers_channel(server)
    result = shell("channel", "send", PROCESS_ID, "chat", "two", "[1.10]", "--end")
    assert (result.exit_code, result.stdout) == (0, "")
    values, last = appended
    assert (values.process_id, values.channel, values.attempt, values.first_number) == (PROCESS_ID, "chat", 0, 3)
    assert [message.value.data for message in values.messages] == [b'"two"', b"[1.10]"]
    assert (last.first_number, [message.kind for message in last.messages]) == (5, [pb.MESSAGE_KIND_END])
    assert shell.json("channel", "send", PROCESS_ID, "chat", "--fail", "oh") == {"sent": 1}
    (message,) = appended[-1].messages
    assert message == pb.NewMessage(kind=pb.MESSAGE_KIND_ERROR, value=spec_pb2.Value(data=b'"oh"'))


@pytest.mark.parametrize(("args", "text"), [([], "nothing to send"), (["x", "--end", "--fail", "y"], "ends in one way")])
def test_send_that_makes_no_sense(shell: Shell, server: FakeServer, args: list[str], text: str) -> None:
    result = shell("channel", "send", PROCESS_ID, "chat", *args)
    assert result.exit_code == 2
    assert text in result.stderr
    assert server.requests == []


@pytest.mark.parametrize("command", ["list", "follow"])
def test_messages_of_both_sides(shell: Shell, server: FakeServer, command: str) -> None:
    answers_channel(server)
    result = shell("channel", command, PROCESS_ID, "chat")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        '2023-03-27 08:45:15  alice  {"n": 1}',
        '2023-03-27 08:45:15  e1 (attempt 1)  -- error: "bad\\u001b[31m"',
        "2023-03-27 08:45:15  alice  -- end",
    ]
    assert (server.requests[0].process_id, server.requests[0].channel) == (PROCESS_ID, "chat")


def test_messages_as_json(shell: Shell, server: FakeServer) -> None:
    answers_channel(server)
    whole = shell.json("channel", "list", PROCESS_ID, "chat")
    lines = shell("--json", "channel", "follow", PROCESS_ID, "chat").stdout.splitlines()
    assert [json.loads(line) for line in lines] == whole
    assert [(one["kind"], one["value"]) for one in whole[:2]] == [
        ("MESSAGE_KIND_DATA", {"n": 1}),
        ("MESSAGE_KIND_ERROR", "bad\x1b[31m"),
    ]
