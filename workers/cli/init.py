"""`mandate init`: a project of one's own, which runs as it is."""

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mandate.workers.cli import identity
from mandate.workers.cli.errors import DONE, CliError
from mandate.workers.cli.options import Invocation, offline_verb
from mandate.workers.settings import Settings, find_set

SOURCE = Path(__file__).parents[1] / "examples" / "project"
AGENT = "refunds"
ASKED = "Order 81 arrived broken."
PERSON = '"you@example.com"'
"""Stands in the shipped file of people for whoever makes a project, who then decides on what its agent asks."""

FILES: Mapping[str, str] = {
    "mandate.yaml": "settings of this project",
    f"agents/{AGENT}.yaml": "an agent: its tools, rules and limits",
    f"agents/{AGENT}.script.yaml": "a script that plays its model, so that no key is needed",
    "tools.py": "its tools, Python functions",
    "policies/money.yaml": "rules that agents share, with examples",
    "people.yaml": "who decides what a rule leaves to people",
}
"""Each file of a project, and what it is."""

OVERRIDES = ("MANDATE_AGENTS", "MANDATE_POLICIES", "MANDATE_PEOPLE", "MANDATE_FOLDER")


@offline_verb
def init(
    call: Invocation,
    folder: Annotated[Path, typer.Argument(help="Made if it is missing.", metavar="FOLDER")] = Path(),
) -> int:
    """Make a project in FOLDER, the working folder if left out: an agent that runs at once, without a key.

    It has mandate.yaml, an agent, its tools in Python, a policy, the file of people with your name in it, and a script
    that plays the model. Nothing is overwritten: if one of the files is there already, none is made.
    """
    person = identity.person(Settings.from_environment(), None)
    _make(folder, person.name, program=call.program)
    commands = [
        *([f"cd {shlex.quote(str(folder))}"] if folder.absolute() != Path.cwd() else []),
        f"{call.program} validate",
        f'{call.program} run {AGENT} "{ASKED}"',
    ]
    answers = [f"{call.program} inbox", f"{call.program} approve 1"]
    if call.out.as_json:
        made = {"folder": str(folder.absolute()), "files": list(FILES), "agent": AGENT, "person": person.name}
        call.out.json({**made, "commands": commands, "answers": answers})
        return DONE
    for name, meaning in FILES.items():
        call.out.print(f"{folder / name!s:<{len(str(folder)) + 32}}{meaning}")
    call.out.print(f"\npeople.yaml has you as {person}. Next:", *(f"  {command}" for command in commands))
    call.out.print("It wants to refund 120 EUR, and waits for you. In another terminal, in the same folder:")
    call.out.print(*(f"  {command}" for command in answers))
    for variable in find_set(OVERRIDES):
        call.out.note(f"{variable} is set, and wins over mandate.yaml: unset it to use the project's own")
    return DONE


def _make(folder: Path, person: str, *, program: str) -> None:
    """Write all files, or none."""
    if taken := [name for name in FILES if os.path.lexists(folder / name)]:
        raise CliError(
            f"the folder {str(folder)!r} has {', '.join(taken)} already, and nothing is overwritten; "
            f"name a new folder, for example `{program} init my-project`"
        )
    made: list[Path] = []
    try:
        for name in FILES:
            # A text of JSON is one of YAML, whatever characters a name has.
            content = (
                (SOURCE / name).read_text(encoding="utf-8").replace(PERSON, json.dumps(person, ensure_ascii=False))
            )
            path = folder / name
            for above in reversed([above for above in path.parents if not above.exists()]):
                above.mkdir()
                made.append(above)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(content)
    except OSError as error:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise CliError(f"{str(folder)!r} cannot hold a project: {error.strerror}; nothing was made") from None
