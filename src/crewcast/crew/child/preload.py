"""What a host imports, so that its children are born with it."""

import gc
import importlib
import os
import pkgutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Off before the import, or it starts a thread and installs signal handlers; a thread does not survive a fork.
FORCED = {"CREWAI_DISABLE_TELEMETRY": "true"}
# A server neither prompts for traces nor looks up versions, unless the environment or the project's .env says so.
DEFAULTS = {"CREWAI_TRACING_ENABLED": "false", "CREWAI_DISABLE_VERSION_CHECK": "true"}

REQUIRED = [
    "crewai",
    "crewai.crew",
    "crewai.flow",
    "crewai.project",
    "crewai.events.stream_context",
    "crewai.llm",
]
# What CrewAI imports when a crew is built or kicked off, and what most projects import: measured, since each of these
# would be paid by every child in time and memory of its own. Any of them may be missing in some release or environment.
# Not here: lancedb (CrewAI's memory), whose native threads would not survive the fork.
USUAL = [
    "crewai.execution",
    "crewai.agents.agent_executor",
    "crewai.hooks.contexts",
    "crewai.knowledge.knowledge",
    "crewai.llms.cache",
    "crewai.llms.providers.openai.completion",
    "crewai.llms.providers.openai_compatible.completion",
    "crewai.memory.unified_memory",
    "crewai.project.crew_loader",
    "crewai.skills.tool",
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
    _settle_native_threads()
    gc.collect()
    gc.freeze()


def threads() -> int:
    """How many threads this process has; those of native libraries count where the kernel tells."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


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
