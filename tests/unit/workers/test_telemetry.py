import json
import subprocess
import sys


def test_warnings_are_lines_of_the_log() -> None:
    program = (
        "import warnings; from mandate.workers.telemetry import configure_logging; "
        "configure_logging(as_json=True); warnings.warn('old name', DeprecationWarning)"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr

    (line,) = map(json.loads, said.splitlines())
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: old name" in line["event"]
