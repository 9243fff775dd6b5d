"""What a task returned, as JSON and back."""

import importlib
import json
from concurrent.futures import Future
from typing import Any

from .wire import encode

Entries = dict[str, Any]


def survives(value: Any) -> bool:
    """Whether another process gets this as it is."""
    try:
        return bool(json.loads(encode({"value": value}))["value"] == value)
    except Exception:
        return False


def dump_output(output: Any) -> Entries:
    model = output.pydantic
    return {
        # Of a model that is declared as any model, nothing would be left.
        "fields": output.model_dump(mode="json", exclude={"pydantic"}),
        "model": None if model is None else model.model_dump(mode="json"),
        "class": None if model is None else _class_name(type(model)),
    }


def load_output(dumped: Entries, task: Any) -> Any:
    output = importlib.import_module("crewai.tasks.task_output").TaskOutput.model_validate(dumped["fields"])
    declared = task.output_pydantic
    # A model that a guardrail made of another class is nowhere to be found; its text is there.
    if dumped["class"] is not None and declared is not None and _class_name(declared) == dumped["class"]:
        output.pydantic = declared.model_validate(dumped["model"])
    return output


def answer_with(task: Any, output: Any) -> None:
    """Have the task give this output without any work."""

    def at_once(**_named: Any) -> Any:
        task.output = output
        return output

    def later(**_named: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(at_once())
        return future

    vars(task)["execute_sync"], vars(task)["execute_async"] = at_once, later


def _class_name(class_: type) -> str:
    return class_.__module__ + "." + class_.__qualname__
