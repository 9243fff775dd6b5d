"""OpenAI's API over HTTP: forms, streams, errors."""

import base64
import json
import math
import struct
import time

import pytest

HELLO = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Describe the harbour of Trieste."}],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


def streamed(stub_llm, body):
    status, text = stub_llm.request("POST", "/chat/completions", {**body, "stream": True})
    assert status == 200
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_completion_has_openais_form(stub_llm):
    status, body = stub_llm.post("/chat/completions", HELLO)
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "gpt-4o-mini"
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert "harbour" in choice["message"]["content"]
    usage = body["usage"]
    assert usage["prompt_tokens"] > 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert stub_llm.post("/chat/completions", HELLO) == (200, body)


def test_a_stream_says_what_the_completion_says(stub_llm):
    _, whole = stub_llm.post("/chat/completions", HELLO)
    chunks = streamed(stub_llm, {**HELLO, "stream_options": {"include_usage": True}})
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    assert said == whole["choices"][0]["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all("usage" not in chunk for chunk in streamed(stub_llm, HELLO))


def test_a_streamed_tool_call_comes_in_argument_deltas(stub_llm):
    body = {**HELLO, "tools": [TOOL]}
    _, whole = stub_llm.post("/chat/completions", body)
    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert whole["choices"][0]["message"]["content"] is None
    assert whole["choices"][0]["finish_reason"] == "tool_calls"

    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(stub_llm, body)]
    parts = [part for delta in deltas for part in delta.get("tool_calls", ())]
    assert parts[0]["id"] == call["id"]
    assert parts[0]["function"]["name"] == "look_up"
    assert len(parts) > 2
    assert "".join(part["function"]["arguments"] for part in parts) == call["function"]["arguments"]
    assert "harbour" in json.loads(call["function"]["arguments"])["query"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/chat/completions", b"{not json", 400),
        ("POST", "/chat/completions", {"model": "x"}, 400),
        ("POST", "/chat/completions", {"messages": []}, 400),
        ("POST", "/chat/completions", {"messages": "hi"}, 400),
        ("POST", "/embeddings", {"input": 7}, 400),
        ("POST", "/embeddings", {"input": "x", "dimensions": 0}, 400),
        ("GET", "/chat/completions", None, 405),
        ("POST", "/responses", {}, 404),
        ("GET", "/nowhere", None, 404),
    ],
)
def test_bad_requests_get_openais_errors(stub_llm, method, path, body, status):
    code, text = stub_llm.request(method, path, body)
    assert code == status
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def test_models_are_listed(stub_llm):
    status, text = stub_llm.request("GET", "/models")
    assert status == 200
    assert {model["object"] for model in json.loads(text)["data"]} == {"model"}


def test_a_request_can_ask_for_its_own_delay(stub_llm):
    start = time.monotonic()
    assert stub_llm.post("/chat/completions", HELLO, {"x-stub-delay": "0.2"})[0] == 200
    assert time.monotonic() - start >= 0.2
    for bad in ("soon", "-1", "nan", "1e9"):
        assert stub_llm.post("/chat/completions", HELLO, {"x-stub-delay": bad})[0] == 400


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embeddings_are_unit_vectors_and_near_for_similar_texts(stub_llm):
    texts = ["bees and honey in the city", "honey from city bees", "quarterly tax forms"]
    status, body = stub_llm.post("/embeddings", {"model": "text-embedding-3-small", "input": texts})
    assert status == 200
    vectors = [item["embedding"] for item in body["data"]]
    assert {len(vector) for vector in vectors} == {1536}
    assert all(math.isclose(cosine(vector, vector), 1.0, abs_tol=1e-6) for vector in vectors)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2
    assert stub_llm.post("/embeddings", {"input": texts[0]})[1]["data"][0]["embedding"] == vectors[0]


def test_embeddings_come_in_base64_and_in_the_dimensions_asked_for(stub_llm):
    ask = {"model": "text-embedding-3-large", "input": "tea", "dimensions": 64}
    _, plain = stub_llm.post("/embeddings", ask)
    _, packed = stub_llm.post("/embeddings", {**ask, "encoding_format": "base64"})
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack("<64f", raw) == pytest.approx(plain["data"][0]["embedding"], abs=1e-6)
    _, large = stub_llm.post("/embeddings", {"model": "text-embedding-3-large", "input": [[1, 2], [3]]})
    assert [len(item["embedding"]) for item in large["data"]] == [3072, 3072]
