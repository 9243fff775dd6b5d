"""What a host imports, so that its children are born with it."""

import asyncio
import gc
import importlib
import os
import pkgutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Off before the import, or it starts a thread and installs signal handlers; a thread does not survive a fork.
FORCED = {"CREWAI_DISABLE_TELEMETRY": "true"}
# A server neither prompts for traces nor looks up versions, unless the environment or the project's .env says so.
DEFAULTS = {"CREWAI_TRACING_ENABLED": "false", "CREWAI_DISABLE_VERSION_CHECK": "true"}

# What every release that can be hosted has.
REQUIRED = [
    "crewai",
    "crewai.crew",
    "crewai.events.event_bus",
    "crewai.flow",
    "crewai.llm",
    "crewai.project",
    "crewai.task",
]
# What CrewAI imports when a crew is built or kicked off, and what most projects import: measured, since each of these
# would be paid by every child in time and memory of its own. Any of them may be missing in some release or environment;
# the release named is the first, or the last, that has the module.
# Not here: lancedb (CrewAI's memory), whose native threads would not survive the fork.
USUAL = [
    "crewai.agents.agent_executor",  # since 1.15.29, before that the next two
    "crewai.agents.crew_agent_executor",  # until 1.15.28
    "crewai.experimental.agent_executor",  # until 1.15.28
    "crewai.execution",  # since 1.15.16
    "crewai.hooks.contexts",  # since 1.15.3
    "crewai.knowledge.knowledge",
    "crewai.llms.cache",  # since 1.14.5
    "crewai.llms.providers.openai.completion",
    "crewai.llms.providers.openai_compatible.completion",  # since 1.12
    "crewai.memory.unified_memory",
    "crewai.project.crew_loader",  # since 1.15
    "crewai.skills.tool",  # since 1.15.9
    # The OpenAI client imports these at its first request.
    "openai.resources",
    "httpcore",
    "crewai_tools",
]
# Every flow has a memory, whose import takes a second; this is most of it, and Python alone.
MEMORY = ["lance_namespace"]


def preload(*, memory: bool = False) -> None:
    """Import everything, for flows also what their memory needs. Raises what importing crewai raises."""
    os.environ.update(FORCED)
    added = {name: value for name, value in DEFAULTS.items() if name not in os.environ}
    os.environ.update(added)
    with _no_dotenv():
        for name in REQUIRED:
            importlib.import_module(name)
        for name in [*USUAL, *(MEMORY if memory else []), *_event_modules()]:
            with suppress(Exception):
                importlib.import_module(name)
    # The child sets them again, below the project's own .env.
    for name in added:
        del os.environ[name]
    _decline_first_traces()
    _stop_event_loop()
    _settle_native_threads()
    gc.collect()
    gc.freeze()


def revive() -> None:
    """In the child: start again what had to stop for the fork."""
    bus = _event_bus()
    if _event_thread(bus) is not None and bus._loop.is_closed():  # noqa: SLF001 - see _stop_event_loop
        bus._loop = asyncio.new_event_loop()  # noqa: SLF001
        bus._loop_thread = threading.Thread(  # noqa: SLF001
            target=bus._run_loop,  # noqa: SLF001
            name="CrewAIEventsLoop",
            daemon=True,
        )
        bus._loop_thread.start()  # noqa: SLF001


def threads() -> int:
    """How many threads this process has; those of native libraries count where the kernel tells."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


def _decline_first_traces() -> None:
    """CrewAI collects traces of the first run in a storage folder, to offer them; here each run has a folder of its own.

    Before 1.13 it asks although there is no terminal. `CREWAI_TRACING_ENABLED` and `tracing=True` go another way.
    """
    tracing = "crewai.events.listeners.tracing."
    hook = getattr(importlib.import_module(tracing + "utils"), "_first_time_trace_hook", None)
    if hook is not None:
        # For this context: that of the main thread, in the children too.
        hook.set(lambda: False)
    # Made while importing, and has looked at a folder by then.
    listener = importlib.import_module(tracing + "trace_listener").TraceCollectionListener._instance  # noqa: SLF001
    handler = getattr(listener, "first_time_handler", None)
    if handler is not None:
        handler.is_first_time = False


def _event_bus() -> Any:
    return importlib.import_module("crewai.events.event_bus").crewai_event_bus


def _event_thread(bus: Any) -> threading.Thread | None:
    thread: threading.Thread | None = getattr(bus, "_loop_thread", None)
    return thread


def _stop_event_loop() -> None:
    """CrewAI before 1.13 starts the thread of its event bus when imported, later releases with the first event.

    A child would be born without it, and wait for it: for asynchronous event handlers, and when it ends.
    """
    bus = _event_bus()
    thread = _event_thread(bus)
    if thread is not None and thread.is_alive():
        bus._loop.call_soon_threadsafe(bus._loop.stop)  # noqa: SLF001 - its shutdown() would end the bus as well
        thread.join()
        bus._loop.close()  # noqa: SLF001


def _event_modules() -> list[str]:
    types = sys.modules.get("crewai.events.types") or importlib.import_module("crewai.events.types")
    return [types.__name__ + "." + module.name for module in pkgutil.iter_modules(types.__path__)]


def _settle_native_threads() -> None:
    """Fork once for nothing: OpenBLAS (numpy) ends its idle worker threads before a fork and starts them when needed."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@contextmanager
def _no_dotenv() -> Iterator[None]:
    """CrewAI's modules load the `.env` above site-packages when imported. That is one project's, and may change
    while the host lives; each child loads its own project's instead.
    """
    try:
        import dotenv.main as dotenv
    except ImportError:
        yield
        return
    names = vars(dotenv)
    find = names["find_dotenv"]
    names["find_dotenv"] = lambda *_, **__: ""
    try:
        yield
    finally:
        names["find_dotenv"] = find
