"""The offline LLM: an OpenAI-compatible server whose answers are made from the prompt.

It lets a crew run without keys, network or provider SDK: in `crewcast dev --stub-llm`, in the examples and in the
tests. The same request always gets the same answer, so a run can be compared with the next one.
"""

from crewcast.stub_llm.server import create_app

__all__ = ["create_app"]
