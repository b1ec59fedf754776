"""What judging costs: CPU of one call under 100 rules with conditions, in plain code and inside a workflow.

`python -m tests.benchmarks.policy [--rules 100] [--calls 100] [--json]`
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from temporalio.worker import Worker

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.sandbox import workflow_runner
from tests.benchmarks import judging

_IMPORT = """
import time
import temporalio.worker, temporalio.contrib.pydantic, mandate.workflows.rules.policy
began = time.process_time()
from mandate.workflows.rules import cel
cel.Facts({"args": {}}).evaluate("true")
print((time.process_time() - began) * 1000)
"""


@dataclass(frozen=True, slots=True)
class Report:
    """CPU of the process in milliseconds; of one judged call where nothing else is said."""

    rules: int
    plain_ms: float
    """Median of the repeats."""
    plain_least_ms: float
    """The repeat that other load disturbed least."""
    workflow_ms: float
    """In workflow code, within the sandbox that workers use; what the rest of the process does meanwhile included."""
    workflow_least_ms: float
    first_ms: float
    """The first call of a process: the library is imported and each condition compiled."""
    library_ms: float
    """Of that, the library with one condition, in a process that has imported Temporal's SDK."""


async def in_workflow(rules: int, calls: int) -> list[float]:
    async with run_private_server() as server:
        client = await connect(address=server.address)
        queue = f"judging-{uuid.uuid4()}"
        async with Worker(
            client, task_queue=queue, workflows=[judging.JudgingWorkflow], workflow_runner=workflow_runner()
        ):
            return await client.execute_workflow(
                "JudgingWorkflow", args=[rules, calls], id=queue, task_queue=queue, result_type=list[float]
            )


def measure(rules: int, calls: int) -> Report:
    library = [
        float(subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True).stdout) for _ in range(3)
    ]
    made, now = judging.rules_of(rules), datetime.now(UTC)
    began = time.process_time()
    judging.judge(made, now)
    first = (time.process_time() - began) * 1000
    plain = [judging.milliseconds(made, calls, now) for _ in range(judging.REPEATS)]
    inside = asyncio.run(in_workflow(rules, calls))
    return Report(
        rules=rules,
        plain_ms=round(statistics.median(plain), 3),
        plain_least_ms=round(min(plain), 3),
        workflow_ms=round(statistics.median(inside), 3),
        workflow_least_ms=round(min(inside), 3),
        first_ms=round(first, 1),
        library_ms=round(statistics.median(library), 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--calls", type=int, default=100, help="judged in one repeat")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    report = asdict(measure(options.rules, options.calls))
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
