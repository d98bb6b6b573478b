"""The official OpenAI SDK against a gateway: what a user's own program does.

    openai_client.py serving URL KEY MODEL          answers, plain and streamed, from whoever is behind
    openai_client.py errors URL KEY LIMITED FENCED  each error arrives as the SDK's own class
    openai_client.py shapes URL KEY MODEL           tool calls, and a stream that breaks off
    openai_client.py foreign URL KEY MODEL          answers of a provider that speaks another dialect
    openai_client.py tools URL KEY MODEL            tools used with such a provider, to the end

Exit 0 when everything held; an assertion's traceback otherwise.
"""

import json
import sys

import openai
from openai import OpenAI

SAID = "Zwölf Boxkämpfer jagen Viktor"
ASK = [{"role": "user", "content": SAID}]


def client(url, key):
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)


def serving(url, key, model):
    api = client(url, key)

    chat = api.chat.completions.create(model=model, messages=ASK)
    assert chat.choices[0].message.content == SAID, chat
    assert chat.usage.prompt_tokens > 0 and chat.usage.completion_tokens > 0, chat
    raw = api.chat.completions.with_raw_response.create(model=model, messages=ASK)
    assert raw.headers["x-request-id"] and raw.headers["x-merido-attempts"] == "1", raw.headers

    chunks = list(api.chat.completions.create(model=model, messages=ASK, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == SAID, chunks
    assert all(c.choices and not c.usage for c in chunks), "usage that was not asked for"
    chunks = list(
        api.chat.completions.create(model=model, messages=ASK, stream=True, stream_options={"include_usage": True})
    )
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0, chunks[-1]
    with api.chat.completions.stream(model=model, messages=ASK) as stream:
        kinds = [event.type for event in stream]
        assert "content.delta" in kinds and kinds[-1] == "content.done", kinds
        assert stream.get_final_completion().choices[0].message.content == SAID

    answer = api.responses.create(model=model, input=SAID)
    assert answer.output_text == SAID and answer.status == "completed" and answer.usage.output_tokens > 0, answer
    with api.responses.stream(model=model, input=[{"role": "user", "content": SAID}]) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == SAID, text
        assert stream.get_final_response().output_text == SAID

    vectors = api.embeddings.create(model=model, input=["one", "two"])
    assert len(vectors.data) == 2 and isinstance(vectors.data[1].embedding[0], float), vectors
    assert vectors.data[0].embedding != vectors.data[1].embedding
    floats = api.embeddings.create(model=model, input="one", encoding_format="float")
    pairs = zip(floats.data[0].embedding, vectors.data[0].embedding, strict=True)
    assert all(abs(a - b) < 1e-6 for a, b in pairs)

    old = api.completions.create(model=model, prompt=SAID)
    assert old.choices[0].text == SAID, old

    names = [entry.id for entry in api.models.list()]
    assert names, "no models"
    assert api.models.retrieve(names[0]).id == names[0]


def errors(url, key, limited, fenced):
    ask = {"model": "demo/echo", "messages": ASK}

    def refused(kind, api, status, code, **more):
        for stream in (False, True):
            try:
                api.chat.completions.create(**{**ask, **more}, stream=stream)
            except kind as error:
                assert type(error) is kind, error
                assert error.status_code == status and error.code == code, (error.status_code, error.code)
                assert error.message and error.type and error.request_id, error
                last = error
            else:
                raise AssertionError(f"{kind.__name__} did not come")
        return last

    refused(openai.AuthenticationError, client(url, "mrd_" + "x" * 40), 401, "invalid_api_key")
    error = refused(openai.NotFoundError, client(url, key), 404, "model_not_found", model="nobody/nothing")
    assert error.param == "model", error.param
    refused(openai.PermissionDeniedError, client(url, fenced), 403, "model_not_allowed")
    refused(openai.BadRequestError, client(url, key), 400, "invalid_request", extra_body={"max_tokens": "many"})

    api = client(url, limited)
    api.chat.completions.create(**ask)
    error = refused(openai.RateLimitError, api, 429, "rate_limit_exceeded")
    assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0", error.response.headers


def shapes(url, key, model):
    """What the provider behind was told to send, in this order."""
    api = client(url, key)
    stream = api.chat.completions.create(model=model, messages=ASK, stream=True)
    call = [c.choices[0].delta.tool_calls[0] for c in stream if c.choices and c.choices[0].delta.tool_calls]
    assert call[0].function.name == "weather" and call[0].id == "call_1", call
    assert "".join(part.function.arguments for part in call) == '{"city":"Köln"}', call

    got = []
    try:
        for chunk in api.chat.completions.create(model=model, messages=ASK, stream=True):
            got.append(chunk.choices[0].delta.content)
    except openai.APIError as error:
        assert "broke off" in str(error), error
    else:
        raise AssertionError("a broken stream passed for a whole one")
    assert got == ["half"], got

    try:
        api.chat.completions.create(model=model, messages=ASK)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded" and error.type == "invalid_request_error", error
    else:
        raise AssertionError("the provider's refusal did not come through")


def foreign(url, key, model):
    api = client(url, key)
    chat = api.chat.completions.create(model=model, messages=ASK)
    assert chat.choices[0].message.content == SAID and chat.choices[0].finish_reason == "stop", chat
    assert chat.usage.prompt_tokens > 0 and chat.usage.completion_tokens > 0, chat
    short = api.chat.completions.create(model=model, messages=ASK, max_tokens=1)
    assert short.choices[0].finish_reason == "length", short

    chunks = list(api.chat.completions.create(model=model, messages=ASK, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == SAID, chunks
    assert all(c.choices and not c.usage for c in chunks), "usage that was not asked for"
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop", chunks
    with_usage = {"include_usage": True}
    chunks = list(api.chat.completions.create(model=model, messages=ASK, stream=True, stream_options=with_usage))
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens > 0, chunks[-1]

    answer = api.responses.create(model=model, input=SAID)
    assert answer.output_text == SAID and answer.status == "completed" and answer.usage.output_tokens > 0, answer
    with api.responses.stream(model=model, input=[{"role": "user", "content": SAID}]) as stream:
        events = list(stream)
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID, events
        assert [event.sequence_number for event in events] == list(range(len(events))), events
        assert stream.get_final_response().output_text == SAID
    short = api.responses.create(model=model, input=SAID, max_output_tokens=1)
    assert short.status == "incomplete" and short.incomplete_details.reason == "max_output_tokens", short

    for more, param in ({"n": 2}, "n"), ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"):
        try:
            api.chat.completions.create(model=model, messages=ASK, **more)
        except openai.BadRequestError as error:
            assert error.param == param and param in error.message, error
        else:
            raise AssertionError(f"{param} was taken")


PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}


def tools(url, key, model):
    api = client(url, key)
    function = {"name": "get_weather", "description": "The weather", "parameters": PARAMETERS}
    with_tools = {"model": model, "tools": [{"type": "function", "function": function}]}

    def used(ask):
        messages = list(ASK)
        message = ask(messages)
        assert message.tool_calls, message
        for call in message.tool_calls:
            json.loads(call.function.arguments)
        assert "location" in json.loads(message.tool_calls[0].function.arguments), message
        messages.append(message)
        for call in message.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
        assert ask(messages).content == "It is sunny.", messages

    def whole(messages):
        choice = api.chat.completions.create(messages=messages, **with_tools).choices[0]
        assert choice.finish_reason == ("tool_calls" if choice.message.tool_calls else "stop"), choice
        return choice.message

    def streamed(messages):
        with api.chat.completions.stream(messages=messages, **with_tools) as stream:
            for _ in stream:
                pass
            return stream.get_final_completion().choices[0].message

    used(whole)
    used(streamed)

    flat = {"model": model, "tools": [{"type": "function", **function}], "store": False}

    def responded(ask):
        items = [{"role": "user", "content": SAID}]
        answer = ask(items)
        calls = [item for item in answer.output if item.type == "function_call"]
        assert calls and "location" in json.loads(calls[0].arguments), answer
        items += answer.output
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
        assert ask(items).output_text == "It is sunny."

    def stream(items):
        with api.responses.stream(input=items, **flat) as stream:
            return stream.get_final_response()

    responded(lambda items: api.responses.create(input=items, **flat))
    responded(stream)


if __name__ == "__main__":
    {"serving": serving, "errors": errors, "shapes": shapes, "foreign": foreign, "tools": tools}[sys.argv[1]](*sys.argv[2:])
