"""Every LLM of the project on the offline LLM: no keys, no provider SDK, no edit of the project.

CrewAI builds LLMs in one place, `LLM.__new__`: model strings of agents and crews, `MODEL` in the environment,
config objects and `LLM(...)` in user code all arrive there, and it returns an instance of the provider's class.
`point_at` makes it return one class for every provider, CrewAI's own client of the OpenAI API, which needs nothing
beyond what CrewAI itself installs. (The `llm_overlay` of recent releases maps model names, too, but only within one
context, not in threads that the project starts, and it cannot set an endpoint across providers.) A project's own
subclass of `BaseLLM` or `LLM` is left alone.
"""

import os
import re
from typing import Any
from urllib.parse import urlsplit

from crewai.llm import LLM
from crewai.llms.providers.openai.completion import OpenAICompletion

_KEY = "sk-stub"

_OWN_NEW = LLM.__new__
_OWN_CLIENT_PARAMS = OpenAICompletion._get_client_params  # noqa: SLF001 - what point_at extends

# Settings that mean the same at any provider. Endpoints, credentials, timeouts and a provider's own options stay
# behind: the endpoint is ours, and OpenAI's client refuses arguments that it doesn't know.
_CARRIED = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "stream",
)

_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "claude": "anthropic",
    "azure": "azure",
    "azure_openai": "azure",
    "google": "gemini",
    "gemini": "gemini",
    "bedrock": "bedrock",
    "aws": "bedrock",
    "snowflake": "snowflake",
    "openrouter": "openai-compatible",
    "deepseek": "openai-compatible",
    "ollama": "openai-compatible",
    "ollama_chat": "openai-compatible",
    "hosted_vllm": "openai-compatible",
    "cerebras": "openai-compatible",
    "dashscope": "openai-compatible",
    "deepinfra": "openai-compatible",
}

# A context no run of the offline LLM fills: CrewAI would otherwise summarise long prompts of models it doesn't know.
_CONTEXT_WINDOW = 200_000


class OfflineCompletion(OpenAICompletion):  # type: ignore[misc]
    """CrewAI's OpenAI client that answers for the project's model, whoever provides that."""

    native_tools: bool = True

    def supports_function_calling(self) -> bool:
        return self.native_tools

    def get_context_window_size(self) -> int:
        return max(int(super().get_context_window_size()), _CONTEXT_WINDOW)

    def get_input_tokens_count(self, messages: Any, *_args: Any, **_settings: Any) -> int:
        # CrewAI's estimate for servers without a counting endpoint, without its warning at every call.
        return (len(str(messages)) + 3) // 4


def point_at(base_url: str) -> None:
    """Every LLM built from now on talks to the server at `base_url` (`http://127.0.0.1:PORT/v1`).

    Call it after the project's `.env` was read (that must not win) and before the project is imported. A second
    call moves the LLMs built after it to another server.
    """
    _point_environment_at(base_url)

    def build(cls: Any, model: str, *args: Any, **settings: Any) -> Any:
        if cls is not LLM or not model or not isinstance(model, str):
            return _OWN_NEW(cls, model, *args, **settings)
        through_litellm = any(args) or settings.get("is_litellm", False)
        provider, name = split_model(model, "litellm" if through_litellm else settings.get("provider"))
        fixed = {"model": name, "base_url": base_url, "api_key": _KEY}
        carried = _carried(settings)
        try:
            made = OfflineCompletion(**fixed, **carried)
        except ValueError:
            # A value that the project's provider takes and OpenAI's client doesn't; the answer won't depend on it.
            made = OfflineCompletion(
                **fixed, **{key: carried[key] for key in ("stop", "stream") if key in carried}
            )
        # Set, not passed: before CrewAI 1.13 this is no pydantic model, and sends on what its __init__ doesn't know.
        made.native_tools = calls_tools_natively(provider, name)
        return made

    def client_params(self: Any) -> dict[str, Any]:
        return {**_OWN_CLIENT_PARAMS(self), "base_url": base_url, "api_key": _KEY}

    LLM.__new__ = staticmethod(build)
    # For clients that the project makes of CrewAI's OpenAI class without `LLM`, and those that CrewAI restores from
    # a checkpoint with the endpoint of an earlier server.
    OpenAICompletion._get_client_params = client_params  # noqa: SLF001 - the one place all its clients pass


def _carried(settings: dict[str, Any]) -> dict[str, Any]:
    carried = {key: settings[key] for key in _CARRIED if settings.get(key) is not None}
    # The same by another name, which wins in CrewAI, and which the OpenAI client of its releases before 1.13 refuses.
    if settings.get("stop_sequences") is not None:
        carried["stop"] = settings["stop_sequences"]
    return carried


def split_model(model: str, provider: str | None = None) -> tuple[str, str]:
    """Which provider CrewAI would send `model` to, and the name it would use there.

    An unknown prefix means LiteLLM, to which CrewAI passes the whole string.
    """
    if provider:
        return _PROVIDERS.get(provider.lower(), "litellm"), model
    prefix, slash, rest = model.partition("/")
    if slash:
        known = _PROVIDERS.get(prefix.lower())
        return (known, rest) if known else ("litellm", model)
    lower = model.lower()
    if "anthropic." in lower:
        return "bedrock", model
    if lower.startswith("claude"):
        return "anthropic", model
    if lower.startswith(("gemini-", "gemma-", "learnlm-")):
        return "gemini", model
    return "openai", model


def calls_tools_natively(provider: str, model: str) -> bool:
    """Whether CrewAI would give this model its tools natively or describe them in the prompt (ReAct).

    The rules are those of CrewAI's provider classes, repeated because most of them can't be imported without the
    provider's SDK.
    """
    name = model.lower()
    if provider in ("openai", "openai-compatible"):
        return "o1" not in name
    if provider == "gemini":
        version = re.search(r"gemini-(\d+(?:\.\d+)?)", name)
        return version is not None and float(version.group(1)) >= 1.5
    if provider == "azure":
        return any(part in name for part in ("gpt-", "o1-", "text-"))
    if provider == "snowflake":
        return name.startswith(("openai-", "claude-", "anthropic."))
    if provider == "litellm":
        return _litellm_calls_tools(model)
    return True


def _litellm_calls_tools(model: str) -> bool:
    """LiteLLM's own catalogue decides, of which CrewAI carries a copy; before 1.15.24 it has none: yes is assumed."""
    try:
        from crewai.llms import context_window
    except ImportError:
        return True
    catalog = getattr(context_window, "_CATALOG", {})
    for name in (model, model.partition("/")[2]):
        if name in catalog:
            return catalog[name].get("supports_function_calling") is True
    return False


def _point_environment_at(base_url: str) -> None:
    """For code that uses OpenAI's SDK itself, and for CrewAI's default embedder."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "EMBEDDINGS_OPENAI_API_BASE"):
        os.environ[name] = base_url
    for name in ("OPENAI_API_KEY", "EMBEDDINGS_OPENAI_API_KEY"):
        os.environ[name] = _KEY
    # A proxy that the environment names would be asked for a server on this machine.
    host = urlsplit(base_url).hostname or ""
    for name in ("NO_PROXY", "no_proxy"):
        listed = os.environ.get(name, "")
        if host not in listed.split(","):
            os.environ[name] = ",".join(filter(None, (listed, host)))
