"""The largest registration that is legal goes in, and hardly more does: registrations are kept as they came."""

from collections.abc import Iterator

import pytest

from colonies.registry.v1 import registry_service_pb2 as pb
from servicekit.envelope import RequestType
from servicekit.failures import InvalidArgument
from services.registry.rpc import checks, convert

METHOD = "/colonies.registry.v1.RegistryService/RegisterExecutor"
BYTES = "999999999999999.999Ti"
NAME = 128


def texts(count: int, size: int) -> Iterator[str]:
    """Distinct texts of a size, which are Names too."""
    return (f"{number:04d}".ljust(size, "x") for number in range(count))


def largest() -> pb.RegisterExecutorRequest:
    """A registration with as much of everything as there may be."""
    gpus = [
        pb.GpuOffer(name=name, memory=BYTES, count=checks.MAX_COUNT)
        for name in texts(checks.MAX_GPU_KINDS, checks.MAX_MODEL_BYTES)
    ]
    _, most = checks.VALUE_COUNTS[pb.LABEL_OPERATOR_IN]
    accepts = [
        pb.LabelRequirement(key=key, operator=pb.LABEL_OPERATOR_IN, values=texts(most, checks.MAX_LABEL_VALUE_BYTES))
        for key in texts(checks.MAX_ACCEPTS, NAME)
    ]
    capabilities = pb.Capabilities(
        cpu="999999999999m", memory=BYTES, storage=BYTES, gpus=gpus, nodes=checks.MAX_COUNT, processes=checks.MAX_COUNT,
        labels={text: text for text in texts(checks.MAX_LABELS, checks.MAX_NAME_BYTES)}, accepts=accepts,
    )  # fmt: skip
    (name,) = texts(1, NAME)
    return pb.RegisterExecutorRequest(
        colony=name,
        name=name,
        executor_types=texts(checks.MAX_TYPES, NAME),
        location_name=name,
        capabilities=capabilities,
    )


def test_the_largest_legal_registration_fits_and_hardly_more_does() -> None:
    request = largest()
    convert.registration(request)
    body = request.SerializeToString()
    kind = RequestType(METHOD)
    kind.envelope(body)
    assert kind.parse(body) == request
    assert kind.at_most - len(body) < 4 * 1024
    request.capabilities.labels["more"] = ""
    with pytest.raises(InvalidArgument):
        convert.registration(request)
