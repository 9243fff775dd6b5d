"""A model that asks a server on this machine what to say: whoever runs that sees each call begin and end."""

import json
import os
import re
import urllib.request

from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ForgeLLM(BaseLLM):
    def supports_function_calling(self):
        return False

    def supports_stop_words(self):
        return False

    def get_context_window_size(self):
        return 100_000

    def call(self, messages, tools=None, callbacks=None, available_functions=None, from_task=None, from_agent=None,
             response_model=None):  # fmt: skip
        said = "\n".join(str(message.get("content")) for message in messages)
        order, url = re.search(r"order (\S+) at (\S+) ", said).groups()
        where = {"messages": messages, "from_task": from_task, "from_agent": from_agent}
        with llm_call_context():
            self._emit_call_started_event(tools=tools, callbacks=callbacks, available_functions=None, **where)
            question = {"order": order, "task": from_task.name, "pid": os.getpid()}
            with DIRECT.open(url, json.dumps(question).encode()) as answer:
                reply = answer.read().decode()
            self._track_token_usage_internal({"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10})
            self._emit_call_completed_event(response=reply, call_type=LLMCallType.LLM_CALL, **where)
            return reply

    async def acall(self, *arguments, **named):
        return self.call(*arguments, **named)
