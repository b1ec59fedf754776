"""A client of somebody who may not do everything in a namespace."""

from typing import Any, NoReturn

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

LISTING, ADDING = "list_search_attributes", "add_search_attributes"


class Guarded:
    """A real operator service that refuses some calls."""

    def __init__(self, service: Any, status: RPCStatusCode, refused: tuple[str, ...]) -> None:
        self._service, self._status, self._refused = service, status, refused

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name in self._refused else getattr(self._service, name)

    async def _refuse(self, *_: object) -> NoReturn:
        raise RPCError("not for you", self._status, b"")


class GuardedClient(Client):
    """A real client; only what it asks of the operator service is refused in part."""

    def __init__(self, client: Client, *refused: str, status: RPCStatusCode = RPCStatusCode.PERMISSION_DENIED) -> None:
        super().__init__(**client.config())
        self._guarded = Guarded(client.operator_service, status, refused)

    @property
    def operator_service(self) -> Any:
        return self._guarded
