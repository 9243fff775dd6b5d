"""An exception as the project's developer wants to read it: where in the project, and without our frames."""

import re
import traceback
from pathlib import Path
from types import TracebackType

from .advice import advice
from .wire import clean, text

OURS = Path(__file__).resolve().parent
# A frame of the import system says nothing about the project.
IMPORT_SYSTEM = ("<frozen importlib", "/importlib/__init__.py")
# CrewAI asks for the running loop and calls the model where it handles the answer "there is none".
ASYNCIO_PROBE = "no running event loop"


PYDANTIC = re.compile(r"Value error, (.+?) \[type=value_error", re.DOTALL)


class ProjectError(Exception):
    """The project cannot be loaded, and no exception of its own says why."""


def summary(error: BaseException, root: str) -> str:
    """`ValueError: too short (src/pkg/crew.py:12)`, and what to do about it where that is known."""
    message = _message(error)
    if isinstance(error, ProjectError):
        return message
    if isinstance(error, SyntaxError):
        # Its text ends in a shorter form of the place.
        message = text(error.msg)
    name = type(error).__name__
    headline = name + ": " + message if message else name
    place = _place(error, root)
    if place and place not in headline:
        headline += " (" + place + ")"
    remedy = advice(error, message, root)
    return clean(headline + "; " + remedy if remedy else headline)


def _message(error: BaseException) -> str:
    """The error's text in one line; of pydantic's, what the validator said."""
    message = text(error)
    said = PYDANTIC.findall(message)
    return " ".join((said[-1] if said else message).split())


def report(error: BaseException) -> str:
    """The traceback, chained causes included, from the project's first frame on."""
    _trim_chain(error)
    try:
        return clean("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    except Exception:
        return text(error)


def has_frame(error: BaseException, function: str) -> bool:
    """Whether the exception came through a function of this name."""
    return any(frame.f_code.co_name == function for frame, _ in traceback.walk_tb(error.__traceback__))


def _place(error: BaseException, root: str) -> str:
    """The project's innermost line on the way to the error."""
    steps = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    # A frozen module of Python has no file.
    steps = [(name, line) for name, line in steps if not name.startswith("<")]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        steps.append((error.filename, error.lineno))
    for filename, line in reversed(steps):
        path, folder = Path(filename).resolve(), Path(root).resolve()
        # A project's environment often lies in its folder.
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            return str(path.relative_to(folder)) + ":" + str(line)
    return ""


def _trim_chain(error: BaseException) -> None:
    seen: list[int] = []
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.append(id(link))
        link.__traceback__ = _trim(link.__traceback__)
        if link.__context__ is not None and text(link.__context__) == ASYNCIO_PROBE:
            link.__context__ = None
        link = link.__cause__ or link.__context__


def _trim(trace: TracebackType | None) -> TracebackType | None:
    kept = trace
    while kept is not None and _is_noise(kept.tb_frame.f_code.co_filename):
        kept = kept.tb_next
    link = kept
    while link is not None and link.tb_next is not None:
        if _is_noise(link.tb_next.tb_frame.f_code.co_filename):
            link.tb_next = link.tb_next.tb_next
        else:
            link = link.tb_next
    return kept


def _is_noise(filename: str) -> bool:
    return (
        filename.startswith(IMPORT_SYSTEM[0])
        or filename.endswith(IMPORT_SYSTEM[1])
        or Path(filename).resolve().parent == OURS
    )
