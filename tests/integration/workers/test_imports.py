"""What processes import: each case in one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

RATES = '{input: "0.10", output: "0.40"}'


def run(code: str, folder: Path) -> str:
    """Return what a process says that runs `code` in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, timeout=60
    )
    return done.stdout.strip()


def test_a_process_that_counts_nothing_loads_no_tokenizer(tmp_path: Path) -> None:
    """Commands that start no worker begin as quickly without it."""
    modules = "mandate.workers.main, mandate.workers.worker, mandate.workers.history.token_use"
    code = f"import {modules}; from mandate.activities.context import tokenizer; print(tokenizer.load.cache_info())"

    assert "currsize=0" in run(code, tmp_path)


def test_agents_with_prices_of_their_own_load_no_price_list(tmp_path: Path) -> None:
    """The list takes a quarter of a second to load."""
    (tmp_path / "desk.yaml").write_text(
        "name: desk\ninstructions: Help.\nbudget: {cost_usd: '1'}\n"
        f"models: [{{model: 'vllm:a', price: {RATES}}}, {{model: 'openai:gpt-6-sol', window: 2048, price: {RATES}}}]\n"
    )
    code = (
        "import asyncio, sys; from pathlib import Path; from mandate.workers.catalog.catalog import Catalog;"
        "from mandate.workers.secrets import Secrets;"
        "from mandate.activities.toolbox.mcp.lazy_toolbox import LazyMcpToolbox;"
        "secrets = Secrets({});"
        "catalog = asyncio.run(Catalog.load(Path('desk.yaml'), LazyMcpToolbox(secrets), secrets=secrets));"
        "print(len(catalog.agents), 'genai_prices' in sys.modules)"
    )

    assert run(code, tmp_path).split() == ["1", "False"]


@pytest.mark.parametrize(("text", "loaded"), [(None, "False"), ("# task_queue: x\n", "False"), ("user: x\n", "True")])
def test_yaml_is_read_only_where_there_is_something_to_read(tmp_path: Path, text: str | None, loaded: str) -> None:
    if text is not None:
        (tmp_path / "mandate.yaml").write_text(text)
    code = "from mandate.workers.settings import Settings; Settings.from_environment()"

    assert run(f"{code}; import sys; print('ruamel' in sys.modules)", tmp_path) == loaded


def test_conditions_are_imported_with_the_first_of_them(tmp_path: Path) -> None:
    code = "import sys; import mandate.workflows.rules.policy; print('cel_expr_python' in sys.modules)"

    assert run(code, tmp_path) == "False"


def test_telemetry_that_nothing_asks_for_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; import mandate.workers.cli.worker, mandate.workers.worker; "
        "watched = ('opentelemetry.sdk', 'opentelemetry.exporter', 'mandate.workers.telemetry.'); "
        "print(*sorted(name for name in sys.modules if name.startswith(watched)))"
    )

    ours = "mandate.workers.telemetry"
    assert run(code, tmp_path).split() == [f"{ours}.logs", f"{ours}.settings"]
