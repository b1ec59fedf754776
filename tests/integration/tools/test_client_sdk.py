import subprocess
import sys

import pytest

TOOLBOX = """
import sys
from mandate.activities.toolbox.mcp.client_sdk import deferred_packages
with deferred_packages():
    import mandate.activities.toolbox.mcp.toolbox
"""


def run(program: str) -> list[str]:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def test_toolbox_needs_nothing_of_the_server_half() -> None:
    loaded = "print(*sorted(name for name in sys.modules if name.startswith(('mcp.server', 'uvicorn', 'starlette'))))"

    assert run(TOOLBOX + loaded) == [""]


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("import mcp; print(mcp.Client.__name__, type(mcp).__name__)", "Client module"),
        ("from mcp.client import Client; print(Client.__name__)", "Client"),
        ("from mcp.server.mcpserver import MCPServer; print(MCPServer.__name__)", "MCPServer"),
        ("import mcp.types; print(mcp.types.Tool.__name__)", "Tool"),
        ("import mcp; print(hasattr(mcp, 'nothing'))", "False"),
        ("import mcp; from mcp.client.session import ClientSession; print(mcp.ClientSession is ClientSession)", "True"),
        ("from mcp import *; print(ClientSession.__name__)", "ClientSession"),
    ],
)
def test_packages_are_whole_for_whoever_uses_them_afterwards(use: str, said: str) -> None:
    assert run(f"{TOOLBOX}\n{use}") == [said]


def test_packages_that_are_imported_already_stay_as_they_are() -> None:
    before = "import mcp, mcp.client; before = mcp, mcp.client\n"

    assert run(f"{before}{TOOLBOX}\nprint(before == (mcp, mcp.client), type(mcp).__name__)") == ["True module"]
