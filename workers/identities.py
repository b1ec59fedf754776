"""The people and the keys by which a worker knows who asks and who decides."""

from dataclasses import dataclass

from mandate.activities.decision import PeopleActivities
from mandate.activities.people.directory import Directory
from mandate.activities.people.requesters import Requesters
from mandate.activities.people.signatures import Signatures
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.catalog.people import people_path
from mandate.workers.settings import Settings


@dataclass(frozen=True, slots=True)
class Identities:
    """The file of people and the keys by which a worker knows who asks and who decides."""

    directory: Directory
    signatures: Signatures | None
    """`None` for a worker that has no keys."""

    @classmethod
    def of(cls, settings: Settings) -> "Identities":
        path = people_path(settings)
        signatures = None
        if settings.jwks is not None and settings.token_issuer is not None:
            signatures = Signatures(settings.jwks, issuer=settings.token_issuer, audience=settings.token_audience)
        return cls(Directory(path or settings.default_people, needed=path is not None), signatures)

    def requesters(self, blobs: Blobs) -> Requesters:
        """Return what starts are checked by."""
        return Requesters(self.directory, self.signatures, blobs)

    def people_activities(self, agents: PinnedAgents, transcript: TranscriptLog) -> PeopleActivities:
        """Return the activities that check decisions."""
        return PeopleActivities(self.directory, self.signatures, agents, transcript)
