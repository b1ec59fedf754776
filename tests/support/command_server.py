"""Commands in processes that are forked, in place of started: what every one of them imports is there already.

    python -m tests.support.command_server SOCKET       forks the program `mandate` for each request
    python command_server.py SOCKET PROGRAM WORD...     runs it there, as if it were started here

A started one takes half a second of processor time before its first line of work. Each forked one is a process of its
own, with the words, the environment, the folder and the three streams of whoever asks; only one thing is not as users
have it: that start. So it is for tests of what commands say, not of how they begin and end.
"""

import array
import json
import os
import signal
import socket
import struct
import sys

LENGTH = struct.Struct("!I")
STREAMS = 3


def serve(path: str) -> None:
    """Fork one process for each request until the parent of this one is gone."""
    import importlib  # noqa: PLC0415 - nothing of this is for who only asks

    from mandate.workers.main import VERBS  # noqa: PLC0415

    for verb in VERBS.values():
        importlib.import_module(f"mandate.workers.{verb.place.partition(':')[0]}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    listener.settimeout(1)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.settimeout(None)
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Run the command in a child of this process and tell how it ended."""
    streams = array.array("i")
    head, told, *_ = connection.recvmsg(LENGTH.size, socket.CMSG_SPACE(STREAMS * streams.itemsize))
    for _, _, data in told:
        streams.frombytes(data[: len(data) - len(data) % streams.itemsize])
    asked = json.loads(_read(connection, LENGTH.unpack(head)[0]))
    child = os.fork()
    if child == 0:
        _become(asked, streams)
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    connection.sendall(LENGTH.pack(os.waitstatus_to_exitcode(status) & 0xFF))
    os._exit(0)


def _become(asked: dict[str, object], streams: "array.array[int]") -> None:
    """Be the command, until it ends this process."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(str(asked["folder"]))
        environment = asked["environment"]
        assert isinstance(environment, dict)
        os.environ.clear()
        os.environ.update(environment)
        words = asked["words"]
        assert isinstance(words, list)
        sys.argv[:] = words
        # Whether they are terminals, and how they write, is asked of what they are now.
        sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115, PTH123
        from mandate.workers.main import main  # noqa: PLC0415

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        os._exit(code)


def ask(path: str, words: list[str]) -> int:
    """Run a command there and return its exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    asked = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109 - without pathlib
    content = json.dumps(asked).encode()
    streams = array.array("i", range(STREAMS))
    connection.sendmsg([LENGTH.pack(len(content))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    connection.sendall(content)
    code: int = LENGTH.unpack(_read(connection, LENGTH.size))[0]
    return code


def _read(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = connection.recv(length - len(content))
        if not more:
            raise ConnectionError("the other side is gone")
        content += more
    return content


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
