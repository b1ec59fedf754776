"""Finding: the result of one check, with what to do."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check."""

    check: str
    """Name of what was checked."""
    status: Status
    found: str
    """State of it in one sentence; of a check that was skipped the reason. Never a secret."""
    advice: str = ""
    """What to do; empty where there is nothing."""

    def to_json(self) -> dict[str, str]:
        """Return it as programs read it."""
        return {"check": self.check, "status": self.status, "found": self.found, "advice": self.advice}


def join(check: str, findings: "list[Finding]") -> Finding:
    """Make one finding of several of a check: the worst first, and only those that need something done if any does."""
    order: tuple[Status, ...] = ("fail", "warn", "ok", "skipped")
    worst = min((finding.status for finding in findings), key=order.index)
    told = [finding for finding in findings if finding.status == worst or finding.status in {"fail", "warn"}]
    told.sort(key=lambda finding: order.index(finding.status))
    advice = "; ".join(dict.fromkeys(finding.advice for finding in told if finding.advice))
    return Finding(check, worst, "; ".join(finding.found for finding in told), advice)
