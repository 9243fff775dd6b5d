"""An exception as the project's developer wants to read it."""

import pytest

from crewcast.crew.child.errors import ProjectError, has_frame, report, summary


def caught(code, filename="<string>"):
    try:
        exec(compile(code, filename, "exec"), {})
    except Exception as error:  # noqa: BLE001 - whichever the code raises
        return error
    raise AssertionError("nothing was raised")


def test_the_place_is_the_innermost_line_of_the_project(tmp_path):
    error = caught("def f():\n    raise ValueError('too short')\nf()", str(tmp_path / "src/crew.py"))
    assert summary(error, str(tmp_path)) == "ValueError: too short (src/crew.py:2)"


@pytest.mark.parametrize("path", ["elsewhere.py", "root/.venv/lib/site-packages/x.py"])
def test_a_line_outside_the_project_is_no_place(tmp_path, path):
    error = caught("raise KeyError", str(tmp_path / path))
    assert summary(error, str(tmp_path / "root")) == "KeyError"


def test_our_own_errors_speak_for_themselves():
    assert summary(ProjectError("There is no crew."), "/x") == "There is no crew."


def test_the_report_has_the_chain_without_the_import_system(tmp_path):
    (tmp_path / "broken.py").write_text(
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e"
    )
    code = f"import sys, importlib\nsys.path.insert(0, {str(tmp_path)!r})\ntry:\n    importlib.import_module('broken')\nfinally:\n    del sys.path[0]"
    text = report(caught(code))
    assert "importlib" not in text
    assert text.index("ZeroDivisionError") < text.index("direct cause") < text.index("ValueError: x")
    assert str(tmp_path / "broken.py") in text


def test_a_frame_is_found_by_name():
    error = caught("def inner():\n    raise ValueError\ndef outer():\n    inner()\nouter()")
    assert has_frame(error, "outer")
    assert not has_frame(error, "another")


def test_an_error_in_a_circle_of_causes_ends():
    error = ValueError("a")
    error.__context__ = KeyError("b")
    error.__context__.__context__ = error
    assert "ValueError: a" in report(error)
