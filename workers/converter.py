"""How values travel through Temporal: JSON without the fields that have their default."""

from typing import Any

import pydantic_core
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
)

from workflows.contracts.run import Progress, RunResult

WHOLE = (RunResult, Progress)
"""Read by clients that have no code of ours, so every key is there."""


class SlimJsonConverter(PydanticJSONPlainPayloadConverter):
    """Pydantic JSON; defaults are left out, which saves a tenth of a run's history."""

    def to_payload(self, value: Any) -> Payload | None:
        if isinstance(value, BaseModel):
            content = value.__pydantic_serializer__.to_json(value, exclude_defaults=not isinstance(value, WHOLE))
        else:
            content = pydantic_core.to_json(value)
        return Payload(metadata={"encoding": b"json/plain"}, data=content)


class SlimPayloadConverter(CompositePayloadConverter):
    """The SDK's converters with `SlimJsonConverter` for JSON."""

    def __init__(self) -> None:
        json_converter = SlimJsonConverter()
        super().__init__(
            *(
                json_converter if isinstance(converter, JSONPlainPayloadConverter) else converter
                for converter in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


def data_converter(codec: PayloadCodec | None = None) -> DataConverter:
    """For clients and workers alike; `codec` compresses or encrypts payloads and stored blobs."""
    return DataConverter(payload_converter_class=SlimPayloadConverter, payload_codec=codec)
