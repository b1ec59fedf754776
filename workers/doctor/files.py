"""Checks of what is in files and variables: agents, people and keys."""

from collections.abc import Sequence

from mandate.activities.documents import Fault
from mandate.activities.files import FileError
from mandate.activities.stores.inspection import StoreState
from mandate.workers import providers
from mandate.workers.catalog import budgets
from mandate.workers.catalog import people as people_files
from mandate.workers.catalog.agents import Scan, find_unknown_providers, scan_agents
from mandate.workers.catalog.endpoints import Endpoints, try_endpoints
from mandate.workers.doctor.findings import Finding, join
from mandate.workers.secrets import Secrets, names
from mandate.workers.settings import Settings


def check_files(settings: Settings, store: StoreState | None, *, is_named: bool, program: str) -> tuple[Finding, ...]:
    """Check agents, people and keys; `is_named` tells that somebody has said where the agents are."""
    endpoints, wrong = try_endpoints(settings)
    scan = scan_agents(settings.agents, endpoints.find_unknown) if settings.agents.exists() else None
    return (
        _check_agents(settings, scan, [*wrong, *budgets.faults_for(settings)], is_named=is_named, program=program),
        _check_people(settings, has_agents=scan is not None),
        _check_keys(settings, scan, endpoints, store),
    )


def _check_agents(
    settings: Settings, scan: Scan | None, others: Sequence[Fault], *, is_named: bool, program: str
) -> Finding:
    place = str(settings.agents)
    if others:
        return Finding("agents", "fail", _tell(others), f"mend it; `{program} validate` tells all faults")
    if scan is None and not is_named:
        advice = f"where workers run: `{program} init` makes a project, or set MANDATE_AGENTS"
        return Finding("agents", "skipped", f"there is no folder {place!r}", advice)
    if scan is None:
        return Finding("agents", "fail", f"{place!r} does not exist", "name another folder with MANDATE_AGENTS")
    if scan.faults:
        return Finding("agents", "fail", _tell(scan.faults), f"mend it; `{program} validate` tells all faults")
    if not scan.files:
        advice = f"write an agent file (*.yaml) there, or see what `{program} init` makes"
        return Finding("agents", "fail" if is_named else "warn", f"{place!r} has no agent files", advice)
    found = ", ".join(sorted(file.spec.name for file in scan.files)[:8]) + (" ..." if len(scan.files) > 8 else "")
    advice = f"`{program} validate` looks at their tools and rules too"
    return Finding("agents", "ok", f"{len(scan.files)} without faults in {place!r}: {found}", advice)


def _check_people(settings: Settings, *, has_agents: bool) -> Finding:
    try:
        found = people_files.read_people(settings)
    except FileError as error:
        return Finding("people", "fail", _tell(error.faults), "mend the file: no worker starts with it")
    if found is None:
        advice = f"write {settings.default_people}, or name another file with MANDATE_PEOPLE"
        return Finding(
            "people", "warn" if has_agents else "skipped", "there is no file of people, so nobody is known", advice
        )
    return Finding("people", "ok", f"{people_files.people_path(settings)} without faults")


def _check_keys(settings: Settings, scan: Scan | None, endpoints: Endpoints, store: StoreState | None) -> Finding:
    """Check keys of providers, secrets that agents name, public keys for signatures, and keys of the installation."""
    faults = list(people_files.key_faults(settings))
    found: list[Finding] = []
    if settings.secrets is not None and not settings.secrets.is_dir():
        why = f"MANDATE_SECRETS: {str(settings.secrets)!r} is no folder that is there"
        found.append(Finding("", "fail", why, "mount it; no worker starts without it"))
    if faults:
        found.append(Finding("", "fail", _tell(faults), "put a JSON Web Key Set there, and name who makes tokens"))
    found += [Finding("", "fail", why, "set it where workers run") for why in _find_lacks(settings, scan, endpoints)]
    if settings.jwks is not None and not faults:
        found.append(Finding("", "ok", f"public keys for signatures in {settings.jwks}"))
    if store is not None and store.identity is not None:
        found.append(_judge_installation(store))
    if scan is not None and scan.files and not any(finding.status == "fail" for finding in found):
        found.append(Finding("", "ok", "all models and secrets that agents name have what they need"))
    if not found:
        return Finding("keys", "skipped", "there are no agents here that need some, and no store that has some")
    return join("keys", found)


def _judge_installation(store: StoreState) -> Finding:
    if store.keys:
        count = "1 key" if store.keys == 1 else f"{store.keys} keys"
        return Finding("", "ok", f"{count} of the installation in the store")
    return Finding("", "ok", "the next worker makes the key of the installation in the store")


def _find_lacks(settings: Settings, scan: Scan | None, endpoints: Endpoints) -> list[str]:
    """Return what models and files of agents need and this process does not have, each once."""
    if scan is None:
        return []

    def find_lack(model: str) -> str | None:
        return providers.lacking(settings, model.partition(":")[0], endpoints.by_name)

    lacks = [
        fault.message
        for file in scan.files
        for fault in find_unknown_providers(file.document, file.document.value, find_lack)
    ]
    secrets = Secrets(settings.environment, settings.secrets)
    for file in scan.files:
        try:
            named = names(file.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # Faults of the file, which are told there.
            continue
        lacks += [secrets.explain(name) for name in secrets.missing(f"${{secret:{name}}}" for name in named)]
    return list(dict.fromkeys(lacks))


def _tell(faults: Sequence[Fault]) -> str:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{' '.join(str(faults[0]).split())}{more}"
