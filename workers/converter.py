"""Data converter for values in Temporal: JSON without the fields that have their default."""

from collections.abc import Sequence
from typing import Any

import pydantic_core
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from mandate.workflows.contracts.failures import FailureType, Unreadable
from mandate.workflows.contracts.marks import METADATA_KEY, Marked
from mandate.workflows.contracts.run import Progress, RunResult
from mandate.workflows.rules import plain_text

WHOLE = (RunResult, Progress)
"""Read by clients that have no code of ours, so every key is there."""


class SlimJsonConverter(PydanticJSONPlainPayloadConverter):
    """Pydantic JSON; defaults are left out, which saves a tenth of a run's history.

    What would steer or mislead who reads it, as programs show queries and histories, is written as JSON's escapes: the
    values are the same.
    """

    def to_payload(self, value: Any) -> Payload | None:
        if isinstance(value, BaseModel):
            content = value.__pydantic_serializer__.to_json(value, exclude_defaults=not isinstance(value, WHOLE))
        else:
            content = pydantic_core.to_json(value)
        if not content.isascii() or b"\x7f" in content:
            content = plain_text.escape_json(content.decode()).encode()
        return Payload(metadata={"encoding": b"json/plain"}, data=content)


# Made once: the SDK makes a converter for each workflow task.
_SLIM = SlimJsonConverter()
_CONVERTERS = tuple(
    _SLIM if isinstance(converter, JSONPlainPayloadConverter) else converter
    for converter in DefaultPayloadConverter.default_encoding_payload_converters
)


class SlimPayloadConverter(CompositePayloadConverter):
    """The SDK's converters with `SlimJsonConverter` for JSON.

    Where no type is wanted, as for start requests, what cannot be read becomes an `Unreadable`: raising would fail the
    workflow task for ever, and nobody would be told. What has a mark stays as it came, since its mark is of its bytes.
    """

    def __init__(self) -> None:
        super().__init__(*_CONVERTERS)

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        is_typed = any(hint is not Any for hint in type_hints or ())
        if not is_typed and any(METADATA_KEY in payload.metadata for payload in payloads):
            return [self._marked(payload) for payload in payloads]
        try:
            return super().from_payloads(payloads, type_hints)
        except Exception as error:
            if is_typed:
                raise
            return [Unreadable(reason=f"{type(error).__name__}: {error}"[:200])] * len(payloads)

    def _marked(self, payload: Payload) -> Any:
        mark = payload.metadata.get(METADATA_KEY)
        return Marked(payload.data, mark) if mark is not None else self.from_payloads([payload])[0]


class SentenceFailureConverter(DefaultFailureConverter):
    """Failures that Mandate raises on purpose are one sentence; only unforeseen ones bring their stack along.

    Whatever raised them, their texts are as people may see them: Temporal's programs print them as they are.
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        try:
            super().to_failure(exception, payload_converter, failure)
        except UnicodeEncodeError:
            # Half of a surrogate pair, which no failure can hold: whoever waits must be told all the same.
            failure.Clear()
            super().to_failure(_readable(exception), payload_converter, failure)
        part = failure
        while True:
            if part.application_failure_info.type in _OURS:
                part.stack_trace = ""
            part.message = plain_text.make_plain_lines(part.message)
            part.stack_trace = plain_text.make_plain_lines(part.stack_trace)
            if not part.HasField("cause"):
                return
            part = part.cause

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        """Leave out details of a foreign worker's failure that cannot be read; its type and message stay."""
        try:
            return super().from_failure(failure, payload_converter)
        except Exception:  # noqa: BLE001 - a payload in another encoding raises whatever its converter does
            plain = Failure()
            plain.CopyFrom(failure)
            part = plain
            while True:
                for info, field in _FOREIGN_DETAILS:
                    if part.HasField(info):
                        getattr(part, info).ClearField(field)
                if not part.HasField("cause"):
                    return super().from_failure(plain, payload_converter)
                part = part.cause


def _readable(exception: BaseException) -> ApplicationError:
    """Return `exception` alone, without its causes."""
    known = exception if isinstance(exception, ApplicationError) else None
    return ApplicationError(
        plain_text.make_plain_lines(str(exception)),
        *(known.details if known is not None else ()),
        type=known.type if known is not None else type(exception).__name__,
        non_retryable=known is not None and known.non_retryable,
        next_retry_delay=known.next_retry_delay if known is not None else None,
        category=known.category if known is not None else ApplicationErrorCategory.UNSPECIFIED,
    )


_FOREIGN_DETAILS: tuple[tuple[Any, str], ...] = (
    ("application_failure_info", "details"),
    ("timeout_failure_info", "last_heartbeat_details"),
    ("canceled_failure_info", "details"),
)

_OURS = frozenset(str(kind) for kind in FailureType)


def data_converter(codec: PayloadCodec | None = None) -> DataConverter:
    """Return the converter of clients and workers; `codec` compresses or encrypts payloads and stored blobs."""
    return DataConverter(
        payload_converter_class=SlimPayloadConverter,
        failure_converter_class=SentenceFailureConverter,
        payload_codec=codec,
    )
