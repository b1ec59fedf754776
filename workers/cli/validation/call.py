"""`mandate validate --call`: what becomes of one call that a person wrote down."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from mandate.activities.documents import Document, read_document
from mandate.activities.files import FileError, parse_spec
from mandate.activities.text_files import UnreadableText, read_text
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workers.catalog.examples import CallFile, Judged, judge
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.output import Output, print_table
from mandate.workflows.rules.surrogates import repair_json

_WORDS = {"allow": "runs", "ask": "asks people", "deny": "refused"}


def judge_call(path: Path, catalogs: Sequence[Catalog]) -> tuple[Loaded, Judged]:
    """Judge the call in a file.

    Raises:
        CliError: the file cannot be read, the agent or the tool is not known, or the arguments do not fit.
    """
    try:
        wanted = parse_spec(_document(path), CallFile)
    except FileError as error:
        raise CliError("; ".join(map(str, error.faults))) from None
    loaded = _agent(path, wanted, catalogs)
    pinned = loaded.pinned
    try:
        judged = judge(pinned.policy, wanted.call, wanted.run, agent=pinned, version=loaded.digest[:12])
    except ValueError as error:
        raise CliError(f"{path}: {error}") from None
    return loaded, judged


def print_call(out: Output, loaded: Loaded, judged: Judged) -> None:
    """Print the verdict, then every rule in the order in which it was read."""
    verdict = judged.verdict
    style = {"allow": "green", "ask": "yellow", "deny": "red"}[verdict.kind]
    out.print(Text.assemble((_WORDS[verdict.kind], f"bold {style}"), f": {verdict.reason}"))
    out.print(f"  agent  {loaded.pinned.name} version {loaded.digest[:12]}")
    if not judged.readings:
        out.print("  there are no rules")
        return
    rows = [(one.rule, one.verdict, "yes" if one.matched else "no", one.why) for one in judged.readings]
    print_table(out, rows, ("rule", "verdict", "matches", "why"), indent=2)


def call_json(loaded: Loaded, judged: Judged) -> dict[str, object]:
    """Return the verdict and the rules, for `-o json`."""
    verdict = judged.verdict
    return {
        "agent": loaded.pinned.name,
        "version": loaded.digest[:12],
        "tool": judged.tool.name,
        "verdict": verdict.kind,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "asking": list(verdict.asking),
        "rules": [reading.model_dump(mode="json") for reading in judged.readings],
    }


def _document(path: Path) -> Document:
    if path.suffix != ".json":
        return read_document(path)
    try:
        value = json.loads(read_text(path))
        is_text = repair_json(value) == value
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}") from None
    except UnreadableText as error:
        raise CliError(f"{path}:{error.line}:{error.column}: {error.problem}") from None
    except json.JSONDecodeError as error:
        raise CliError(f"{path}:{error.lineno}:{error.colno}: is not JSON: {error.msg}") from None
    except RecursionError:
        raise CliError(f"{path}: is nested too deep") from None
    except ValueError as error:
        raise CliError(f"{path}: is not JSON: {error}") from None
    if not is_text:
        raise CliError(f"{path}: holds half of a surrogate pair, which is no text")
    return Document(str(path), value, (), {})


def _agent(path: Path, wanted: CallFile, catalogs: Sequence[Catalog]) -> Loaded:
    known = {name: loaded for catalog in catalogs for name, loaded in catalog.agents.items()}
    if wanted.agent is None and len(known) == 1:
        return next(iter(known.values()))
    names = ", ".join(sorted(known)) or "none"
    if wanted.agent is None:
        raise CliError(f"{path}: agent: is missing; there are {names}")
    if wanted.agent not in known:
        raise CliError(f"{path}: agent: {wanted.agent!r} is no agent that is known here; there are {names}")
    return known[wanted.agent]
