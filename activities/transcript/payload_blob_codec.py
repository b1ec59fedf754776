"""Temporal's payload codecs for the store: what is secret in a history is secret there too."""

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec


class PayloadBlobCodec:
    """A `BlobCodec` that makes each blob a payload for a codec of Temporal."""

    def __init__(self, codec: PayloadCodec) -> None:
        self._codec = codec

    async def encode(self, contents: Sequence[bytes]) -> list[bytes]:
        payloads = [Payload(metadata={"encoding": b"binary/plain"}, data=content) for content in contents]
        return [payload.SerializeToString() for payload in await self._codec.encode(payloads)]

    async def decode(self, stored: Sequence[bytes]) -> list[bytes]:
        return [payload.data for payload in await self._codec.decode([Payload.FromString(blob) for blob in stored])]
