"""The demo's own folder with the agents, people and scripts of the team."""

import shutil
from pathlib import Path

from mandate.activities import private_files
from mandate.workers.demo import setup
from mandate.workers.demo.setup import DemoFolder
from mandate.workers.examples.shop_data import create_shop

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "team"
"""A project that can be copied, with `mandate.yaml`; the wheel has it too."""
MANAGER = "manager"
ASKED = (
    "Three matters from this morning: order 1042 came back broken, with two unopened packs of filters; order 1037 has a"
    " chipped mug; and customers ask for MUG-12."
)


def prepare(folder: DemoFolder, *, is_paced: bool, person: str) -> None:
    """Write a shop as on its first day, the agents of the team, and `person` as the shop's finance."""
    agents = folder.path / "agents"
    create_shop(folder.shop)
    folder.log.unlink(missing_ok=True)
    shutil.rmtree(agents, ignore_errors=True)
    private_files.make_folder(agents)
    for file in sorted((SOURCE / "agents").glob("*.yaml")):
        content = file.read_text(encoding="utf-8")
        is_script = file.name.endswith(".script.yaml")
        private_files.write_own(
            agents / file.name, f"delay: {setup.PACE}\n{content}" if is_script and is_paced else content
        )
    setup.write_surroundings(folder, person)
