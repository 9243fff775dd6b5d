"""OpenAI's forms: requests checked, answers and errors put into the JSON that its clients expect."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from crewcast.stub_llm import words
from crewcast.stub_llm.answers import Answer, ToolCall
from crewcast.stub_llm.embeddings import dimensions_of, embed, to_base64


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """What the answer depends on; every other field of OpenAI's API is accepted and has no effect."""

    messages: list[dict[str, Any]]
    model: str = "stub"
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class EmbeddingRequest(msgspec.Struct):
    input: str | list[str | int | list[int]]
    model: str = "text-embedding-3-small"
    encoding_format: str = "float"
    dimensions: int | None = None


# A piece of a streamed answer: a word with the white space before it.
_PIECE: Final = re.compile(r"\s*\S+|\s+$")
_ARGUMENT_PIECE: Final = 12


def usage(request: ChatRequest, answer: Answer) -> dict[str, Any]:
    asked = words.count_tokens(msgspec.json.encode([request.messages, request.tools or []]).decode())
    said = words.count_tokens(answer.text)
    said += sum(words.count_tokens(call.name + call.arguments) for call in answer.tool_calls)
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def completion(request: ChatRequest, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in answer.tool_calls]
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}
    return {
        **_envelope(request, answer, "chat.completion"),
        "choices": [choice],
        "usage": usage(request, answer),
    }


def chunks(request: ChatRequest, answer: Answer) -> Iterator[dict[str, Any]]:
    """The same answer piece by piece, in OpenAI's order: role, content or tool calls, finish, usage."""
    envelope = _envelope(request, answer, "chat.completion.chunk")
    with_usage = request.stream_options is not None and request.stream_options.include_usage
    blank = {"usage": None} if with_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**envelope, "choices": [choice], **blank}

    yield chunk({"role": "assistant", "content": "" if answer.text else None})
    for piece in _PIECE.findall(answer.text):
        yield chunk({"content": piece})
    for index, call in enumerate(answer.tool_calls):
        opened = _tool_call(call)
        opened["function"]["arguments"] = ""
        yield chunk({"tool_calls": [{"index": index, **opened}]})
        for start in range(0, len(call.arguments), _ARGUMENT_PIECE):
            part = call.arguments[start : start + _ARGUMENT_PIECE]
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, _finish(answer))
    if with_usage:
        yield {**envelope, "choices": [], "usage": usage(request, answer)}


def embeddings(request: EmbeddingRequest) -> dict[str, Any]:
    texts = _texts(request.input)
    size = request.dimensions or dimensions_of(request.model)
    vectors = [embed(text, size) for text in texts]
    packed = request.encoding_format == "base64"
    tokens = sum(words.count_tokens(text) for text in texts)
    return {
        "object": "list",
        "model": request.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": to_base64(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _texts(given: str | list[str | int | list[int]]) -> list[str]:
    """Token ids (LangChain sends them) are words of their own; one list of ids is one text."""
    if isinstance(given, str):
        return [given]
    if all(isinstance(part, int) for part in given):
        return [" ".join(map(str, given))]
    return [" ".join(map(str, part)) if isinstance(part, list) else str(part) for part in given]


def _envelope(request: ChatRequest, answer: Answer, kind: str) -> dict[str, Any]:
    said = answer.text + "".join(call.id for call in answer.tool_calls)
    number = words.seed(msgspec.json.encode(request.messages).decode(), said)
    # `created` is a constant: the same request gets the same answer, byte for byte.
    return {
        "id": f"chatcmpl-{number:016x}",
        "object": kind,
        "created": 0,
        "model": request.model,
        "system_fingerprint": "stub",
    }


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.tool_calls else "stop"
