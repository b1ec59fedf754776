import json
import subprocess
import sys


def test_warnings_are_lines_of_the_log() -> None:
    program = (
        "import warnings; from mandate.workers.telemetry.logs import configure_logging; "
        "configure_logging(as_json=True); warnings.warn('old name', DeprecationWarning)"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr

    (line,) = map(json.loads, said.splitlines())
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: old name" in line["event"]


def test_a_line_that_cannot_be_written_tells_nothing_of_the_exception_that_it_is_about() -> None:
    program = (
        "import sys, logging, os; from mandate.workers.telemetry.logs import configure_logging\n"
        "broken = open('/dev/full', 'w'); whole = sys.stderr; sys.stderr = broken\n"
        "configure_logging(as_json=True); sys.stderr = whole\n"
        "try: raise ValueError('4111222233334444')\n"
        "except ValueError: logging.getLogger('x').warning('refused')\n"
        "sys.stdout.write('went on'); sys.stdout.flush(); os._exit(0)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("went on", "")
