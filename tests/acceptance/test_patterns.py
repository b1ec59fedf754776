"""The example programs of the patterns, as a user runs them: no key, a Temporal server of their own."""

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "deploy" / "examples" / "patterns" / "run.py"


def test_each_pattern_runs_without_a_key_and_a_fan_out_is_faster() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--companies", "12"], capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stderr
    ends = dict(re.findall(r"^(\w+): (\w+), [\d.]+ s$", done.stdout, re.MULTILINE))
    assert ends == dict.fromkeys(
        ("chain", "fan_out", "reflect", "plan_and_execute", "supervise", "debate"), "completed"
    )
    (times,) = re.findall(r"one after another: [\d.]+ s, ([\d.]+) times as long", done.stdout)
    assert float(times) > 2
    assert "'baseline':" in done.stdout
