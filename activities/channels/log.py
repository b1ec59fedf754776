"""Notices as lines of the worker's log."""

import structlog

from mandate.activities.channels.base import Parcel
from mandate.workflows.contracts.request import Notice
from mandate.workflows.rules import commands

log = structlog.stdlib.get_logger(__name__)


class LogSender:
    """One line `people_asked` a notice, without its title: what is asked is read with the command that it names."""

    at_once = 1
    waits_for_others = False

    def bundle(self, notices: tuple[Notice, ...]) -> tuple[tuple[Notice, ...], ...]:
        return tuple((notice,) for notice in notices)

    async def send(self, parcel: Parcel) -> None:
        for notice in parcel.notices:
            request = notice.request
            ways = commands.list_ways(parcel.run.workflow_id, request, namespace=parcel.namespace)
            log.info(
                "people_asked",
                workflow_id=parcel.run.workflow_id,
                agent=parcel.run.agent,
                request=request.id,
                kind=request.kind,
                occasion=notice.occasion,
                tool=request.tool,
                waits_for=list(request.waits_for),
                expires_at=request.expires_at.isoformat(),
                answer={way.choice: way.mandate for way in ways},
            )

    async def close(self) -> None:
        pass
