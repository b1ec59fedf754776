"""A Kafka server of its own for tests: one node, from Maven Central, where Java and Maven are."""

import asyncio
import base64
import fcntl
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.support.ports import free_port

VERSION = "4.1.0"
LIBRARIES = Path(sys.prefix) / f"kafka-{VERSION}"

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>broker</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
  </dependency></dependencies>
</project>
"""

PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/log
num.partitions=3
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
"""


def find_lack() -> str | None:
    """Return why there can be no Kafka here."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing:
        return f"a Kafka server needs {' and '.join(missing)}, which is not here"
    return _fetch()


def _fetch() -> str | None:
    """Put the libraries beside the interpreter, once; return why that cannot be done."""
    if (LIBRARIES / "complete").exists():
        return None
    LIBRARIES.mkdir(exist_ok=True)
    with (LIBRARIES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (LIBRARIES / "complete").exists():
            return None
        (LIBRARIES / "pom.xml").write_text(POM)
        done = subprocess.run(
            ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"],
            cwd=LIBRARIES,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"Maven cannot fetch Kafka {VERSION}: {done.stdout.strip()[-300:]}"
        (LIBRARIES / "complete").touch()
    return None


def _java(*words: str) -> list[str]:
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{LIBRARIES}/lib/*", *words]


@asynccontextmanager
async def kafka_server(folder: Path) -> AsyncIterator[str]:
    """With a server whose topics have three partitions and are made by who uses them; gives its address."""
    port, controller = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(PROPERTIES.format(port=port, controller=controller, folder=folder))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties), "--standalone")
    await asyncio.to_thread(subprocess.run, _java(*tool), check=True, capture_output=True, cwd=folder)
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            _java("kafka.Kafka", str(properties)), stdout=log, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ}
        )
    try:
        address = f"127.0.0.1:{port}"
        await _wait_for(address, process, folder / "server.log")
        yield address
    finally:
        process.kill()
        process.wait()


async def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a record can be written: the server says nothing, since it has no library of logs."""
    async with asyncio.timeout(120):
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            producer = AIOKafkaProducer(bootstrap_servers=address, request_timeout_ms=5000)
            try:
                await producer.start()
                await producer.send_and_wait("ready", b"")
            except KafkaError:
                await asyncio.sleep(0.3)
            else:
                return
            finally:
                await producer.stop()
