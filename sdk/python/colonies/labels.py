"""What labels must be like, as it is written in Python: {"arch": "arm64", "zone": ["a", "b"], "gpu": True}."""

from collections.abc import Iterable, Mapping

from colonies.registry.v1 import registry_service_pb2 as registry
from colonies.scheduler.v1 import spec_pb2 as spec

# The label has this value; one of these; or is there, whatever its value.
Wanted = Mapping[str, str | Iterable[str] | bool]


def required(wanted: Wanted, what: str) -> list[spec.LabelRequirement]:
    """Requirements on the labels of executors.

    Raises:
        ValueError: one is of no kind that there is; names `what` and the key.
    """
    made = []
    for key, values in wanted.items():
        operator, texts = _meant(values, f"{what}[{key!r}]")
        kind = spec.LabelOperator.Value(f"LABEL_OPERATOR_{operator}")
        made.append(spec.LabelRequirement(key=key, operator=kind, values=texts))
    return made


def accepted(wanted: Wanted, what: str) -> list[registry.LabelRequirement]:
    """Requirements of an executor on the labels of its work; errors as for `required`."""
    made = []
    for key, values in wanted.items():
        operator, texts = _meant(values, f"{what}[{key!r}]")
        kind = registry.LabelOperator.Value(f"LABEL_OPERATOR_{operator}")
        made.append(registry.LabelRequirement(key=key, operator=kind, values=texts))
    return made


def plain_labels(labels: Mapping[str, str], what: str) -> dict[str, str]:
    """Labels, checked to be texts.

    Raises:
        ValueError: a key or a value is none; names `what` and the key.
    """
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            msg = f"{what}[{key!r}] is {value!r}: keys and values of labels are texts"
            raise ValueError(msg)  # noqa: TRY004 - one kind of error for all that is wrong here
    return dict(labels)


def _meant(values: str | Iterable[str] | bool, where: str) -> tuple[str, list[str]]:
    if values is True:
        return "EXISTS", []
    if isinstance(values, str):
        return "EQUALS", [values]
    texts = list(values) if isinstance(values, list | tuple | set | frozenset) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        msg = f"{where} is {values!r}: it takes a text, a list of texts, or True for any value"
        raise ValueError(msg)
    if len(texts) == 1:
        return "EQUALS", texts
    return "IN", sorted(texts) if isinstance(values, set | frozenset) else texts
