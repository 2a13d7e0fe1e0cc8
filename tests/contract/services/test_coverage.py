"""No expectation can be forgotten: what a service calls of others, and what it decides by, is in its files."""

import pytest

from tests.contract.services.calls import SERVICES, bare_calls, called, constants_of, reasons_decided_on, sources
from tests.contract.services.expectations import JSON_TWIN, all_expectations, method_of, path_of
from tests.contract.services.playing import SHARED
from tests.harness.servers import ALL_SERVICES

CONSUMERS = (SHARED, *ALL_SERVICES)
# It calls by the paths that it is given, and knows no method.
FORWARDER = "gateway"


def calls_of(consumer: str) -> set[str]:
    """What its sources call."""
    return {path for module in sources(consumer) for path in called(module.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_what_a_service_calls_is_what_it_has_expectations_of(consumer: str) -> None:
    expected = {path_of(step) for each in all_expectations() if each.consumer == consumer for step in each.own_steps()}
    assert calls_of(consumer) == expected


def reasons_of(consumer: str) -> set[str]:
    """What its sources decide by."""
    paths = sources(consumer)
    constants = constants_of(paths)
    return {reason for path in paths for reason in reasons_decided_on(path.read_text(encoding="utf-8"), constants)}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_the_reasons_that_a_service_decides_by_are_expected(consumer: str) -> None:
    expected = {
        step["error"].get("reason")
        for each in all_expectations()
        if each.consumer == consumer
        for step in each.own_steps()
        if "error" in step
    }
    assert reasons_of(consumer) <= expected


def test_cron_decides_by_reasons() -> None:
    """So that the test above can fail."""
    assert {"ON_BEHALF_REVOKED", "WORKFLOW_ID_TAKEN", "OUTPUTS_TOO_LARGE"} <= reasons_of("cron")


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_nobody_goes_past_the_stubs(consumer: str) -> None:
    assert [name for module in sources(consumer) for name in bare_calls(module.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("provider", ALL_SERVICES)
def test_the_gateway_expects_of_every_service_answers_and_refusals_in_json(provider: str) -> None:
    (found,) = [each for each in all_expectations() if (each.consumer, each.provider) == (FORWARDER, provider)]
    steps = [step for expectation in found.all for step in expectation.steps]
    assert all(path_of(step).endswith(JSON_TWIN) for step in steps)
    assert any("response" in step for step in steps)
    assert any("raw" in step for step in steps)
    assert {"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"} <= {
        step["error"]["code"] for step in steps if "error" in step
    }
    # Every service of this provider, and a stream where there are any for those who come through the gateway.
    services = {method_of(path_of(step)).containing_service.full_name for step in steps}
    assert services == {service.full_name for service in SERVICES.values() if service.full_name.split(".")[1] == provider}
    assert any("watch" in step for step in steps) == (provider == "scheduler")


def test_a_call_is_found_wherever_it_stands() -> None:
    source = """
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
class A:
    def __init__(self, channel): self.stub = AuthServiceStub(channel)
    async def b(self): await self.stub.GetColony(1)
"""
    assert set(called(source)) == {"/colonies.auth.v1.AuthService/GetColony"}
    assert list(bare_calls("channel.unary_unary('/x')")) == ["unary_unary"]


def test_files_are_where_their_consumer_is_and_every_step_is_of_their_provider() -> None:
    for each in all_expectations():
        for expectation in each.all:
            assert expectation.name
            assert expectation.steps
            for step in expectation.steps:
                if "given" not in step:
                    assert method_of(path_of(step)).containing_service.full_name.split(".")[1] == each.provider, (
                        expectation.name
                    )
