"""Client half of the MCP SDK: its packages import the server half too, which takes a third of the time of all.

A package's own code is deferred here until somebody takes a name from it; its modules are imported as ever.
"""

import gc
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

PACKAGES = ("mcp", "mcp.client")

_lock = threading.RLock()


class _DeferredPackage(ModuleType):
    """Package whose own code runs when a name is looked up that none of its imported modules has set."""

    def __getattr__(self, name: str) -> object:
        # Whoever comes meanwhile from another thread waits for the whole package.
        with _lock:
            if type(self) is _DeferredPackage:
                self.__class__ = _RunningPackage
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                try:
                    self.__spec__.loader.exec_module(self)
                except BaseException:
                    self.__class__ = _DeferredPackage
                    raise
                self.__class__ = ModuleType  # type: ignore[assignment]
            return object.__getattribute__(self, name)


class _RunningPackage(_DeferredPackage):
    """Package whose own code runs at this moment."""


@contextmanager
def deferred_packages() -> Iterator[None]:
    """Let the body import modules of the SDK without what its packages import on top."""
    for name in PACKAGES:
        if name not in sys.modules:
            _defer(name)
    # Imports make no garbage, and looking for it takes a good part of their time.
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _defer(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _DeferredPackage
    sys.modules[name] = package
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, package)
