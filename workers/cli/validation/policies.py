"""Shared policies in words and JSON for `mandate validate`: whether their examples come out as written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from mandate.activities.documents import Fault
from mandate.activities.files import FileError
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.examples import Result, run_examples
from mandate.workers.catalog.policies import PolicyFile, read_policy_file
from mandate.workers.cli.output import Output
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.rules import quantities


@dataclass(frozen=True, slots=True)
class Checked:
    """One valid policy file and its examples."""

    file: PolicyFile
    results: Sequence[Result]


def check_policies(
    paths: Iterable[Path], catalogs: Sequence[Catalog], *, complete: bool
) -> tuple[list[Checked], list[Fault]]:
    """Return the policies in `paths` and those that agents name, and all faults, differing examples included.

    `complete`: `catalogs` hold all agents, so that an example about another one is wrong.
    """
    faults: list[Fault] = []
    files: dict[Path, PolicyFile] = {}
    for path in paths:
        try:
            files[path.resolve()] = read_policy_file(path)
        except FileError as error:
            faults += error.faults
    for catalog in catalogs:
        files |= {file.path.resolve(): file for file in catalog.policies.values()}
    checked = []
    for file in sorted(files.values(), key=lambda file: str(file.path)):
        if wrong := _condition_faults(file):
            faults += wrong
            continue
        results = run_examples(file, _agents_of(file, catalogs), complete=complete)
        faults += [result.fault for result in results if result.fault is not None]
        checked.append(Checked(file, results))
    return checked, faults


def print_policies(out: Output, policies: Sequence[Checked]) -> None:
    """Print a line or two for each policy; what differs is told with the faults."""
    for checked in policies:
        spec = checked.file.spec
        out.print(Text.assemble((spec.name, "bold"), f"  {checked.file.path}"))
        differing = {result.index for result in checked.results if result.fault is not None}
        run = {result.index for result in checked.results}
        lines = [f"{_number(len(spec.rules), 'rule')}, {_number(len(spec.examples), 'example')}"]
        if run:
            lines[0] += f": {len(run - differing)} of {len(run)} as written"
        for index, example in enumerate(spec.examples):
            if index not in run:
                lines.append(f"example {example.name!r} is about agent {example.agent!r}, which is not checked here")
        for line in lines:
            out.print(Text(f"  {line}", style="yellow" if differing and line is lines[0] else ""))


def policy_json(checked: Checked) -> dict[str, object]:
    """Return one policy, for `-o json`."""
    return {
        "name": checked.file.spec.name,
        "path": str(checked.file.path),
        "rules": [rule.id for rule in checked.file.spec.rules],
        "examples": [_result_json(result) for result in checked.results],
    }


def _result_json(result: Result) -> dict[str, object]:
    got = result.verdict
    return {
        "name": result.example.name,
        "agent": result.example.agent,
        "wanted": {"verdict": result.example.verdict, "rule": result.example.rule},
        "got": {"verdict": got.kind, "rule": got.rule, "reason": got.reason} if got is not None else None,
        "as_written": result.fault is None,
    }


def _condition_faults(file: PolicyFile) -> list[Fault]:
    """Return the faults of the conditions whatever the tools are."""
    if all(rule.when is None for rule in file.spec.rules):
        return []
    from mandate.workers.catalog.conditions import Conditions  # noqa: PLC0415 - CEL only where conditions are

    conditions = Conditions(())
    return [fault for placed in file.rules for fault in conditions.faults(placed)]


def _agents_of(file: PolicyFile, catalogs: Iterable[Catalog]) -> Mapping[str, PinnedAgent]:
    return {
        name: loaded.pinned
        for catalog in catalogs
        for name, loaded in catalog.agents.items()
        if file.spec.name in loaded.policies
    }


def _number(count: int, what: str) -> str:
    return quantities.count_noun(count, what) if count else f"no {what}s"
