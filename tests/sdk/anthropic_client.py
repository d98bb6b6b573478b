"""The official Anthropic SDK against a gateway: what a user's own program does.

    anthropic_client.py serving URL KEY MODEL          answers, plain and streamed, from whoever is behind
    anthropic_client.py errors URL KEY LIMITED FENCED  each error arrives as the SDK's own class
    anthropic_client.py shapes URL KEY MODEL           thinking and tool use, and a stream that breaks off
    anthropic_client.py foreign URL KEY MODEL          answers of a provider that speaks another dialect
    anthropic_client.py tools URL KEY MODEL            tools used with such a provider, to the end

Exit 0 when everything held; an assertion's traceback otherwise.
"""

import sys

import anthropic
from anthropic import Anthropic

SAID = "Zwölf Boxkämpfer jagen Viktor"
ASK = {"messages": [{"role": "user", "content": SAID}], "max_tokens": 100}


def client(url, key):
    return Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)


def serving(url, key, model):
    api = client(url, key)

    message = api.messages.create(model=model, **ASK)
    assert message.content[0].text == SAID and message.stop_reason == "end_turn", message
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0, message
    assert api.messages.with_raw_response.create(model=model, **ASK).headers["x-merido-attempts"] == "1"

    kinds = [event.type for event in api.messages.create(model=model, stream=True, **ASK)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds
    with api.messages.stream(model=model, **ASK) as stream:
        assert "".join(stream.text_stream) == SAID
        final = stream.get_final_message()
    assert final.content[0].text == SAID and final.usage.output_tokens > 0, final

    block = [{"type": "text", "text": SAID}]
    asked = [{"role": "user", "content": block}]
    assert api.messages.create(model=model, messages=asked, max_tokens=1).stop_reason == "max_tokens"
    assert api.messages.count_tokens(model=model, messages=asked).input_tokens > 0
    assert api.beta.messages.create(model=model, betas=["x-2030-01-01"], **ASK).content[0].text == SAID

    names = [entry.id for entry in api.models.list()]
    assert names, "no models"
    assert api.models.retrieve(names[0]).id == names[0]


def errors(url, key, limited, fenced):
    def refused(kind, api, status, name, **more):
        for stream in (False, True):
            try:
                api.messages.create(**{"model": "demo/echo", **ASK, **more}, stream=stream)
            except kind as error:
                assert type(error) is kind, error
                assert error.status_code == status and error.body["type"] == "error", error.body
                assert error.body["error"]["type"] == name and error.body["error"]["message"], error.body
                assert error.body["request_id"], error.body
                last = error
            else:
                raise AssertionError(f"{kind.__name__} did not come")
        return last

    refused(anthropic.AuthenticationError, client(url, "mrd_" + "x" * 40), 401, "authentication_error")
    refused(anthropic.NotFoundError, client(url, key), 404, "not_found_error", model="nobody/nothing")
    refused(anthropic.PermissionDeniedError, client(url, fenced), 403, "permission_error")
    refused(anthropic.BadRequestError, client(url, key), 400, "invalid_request_error", extra_body={"max_tokens": "many"})

    api = client(url, limited)
    api.messages.create(model="demo/echo", **ASK)
    error = refused(anthropic.RateLimitError, api, 429, "rate_limit_error")
    headers = error.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60, headers
    assert headers["anthropic-ratelimit-requests-remaining"] == "0", headers


def shapes(url, key, model):
    """What the provider behind was told to send, in this order."""
    api = client(url, key)
    with api.messages.stream(model=model, **ASK) as stream:
        final = stream.get_final_message()
    thought, call = final.content
    assert (thought.thinking, thought.signature) == ("Hm, Köln.", "c2ln"), thought
    assert (call.name, call.input) == ("weather", {"city": "Köln"}), call
    assert final.stop_reason == "tool_use" and final.usage.output_tokens == 21, final

    text = ""
    try:
        with api.messages.stream(model=model, **ASK) as stream:
            for part in stream.text_stream:
                text += part
    except anthropic.APIStatusError as error:
        assert "broke off" in str(error) and error.body["error"]["type"] == "api_error", error
    else:
        raise AssertionError("a broken stream passed for a whole one")
    assert text == "half", text

    try:
        api.messages.create(model=model, **ASK)
    except anthropic.BadRequestError as error:
        assert error.body["error"]["message"] == "prompt is too long: 1 tokens > 0 maximum", error
    else:
        raise AssertionError("the provider's refusal did not come through")


def foreign(url, key, model):
    api = client(url, key)
    message = api.messages.create(model=model, system="Repeat.", **ASK)
    assert message.content[0].text == SAID and message.stop_reason == "end_turn", message
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0, message
    kinds = [event.type for event in api.messages.create(model=model, stream=True, **ASK)]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds
    with api.messages.stream(model=model, **ASK) as stream:
        assert "".join(stream.text_stream) == SAID
        final = stream.get_final_message()
    assert final.content[0].text == SAID and final.usage.output_tokens > 0 and final.usage.input_tokens > 0, final
    short = api.messages.create(model=model, messages=ASK["messages"], max_tokens=1)
    assert short.stop_reason == "max_tokens", short
    raw = api.messages.with_raw_response.count_tokens(model=model, messages=ASK["messages"])
    assert raw.parse().input_tokens > 0 and raw.headers["x-merido-estimated"] == "true", raw.headers
    assert api.beta.messages.create(model=model, betas=["x-2030-01-01"], **ASK).content[0].text == SAID

    try:
        api.messages.create(model=model, tools=[{"type": "web_search_20250305", "name": "web_search"}], **ASK)
    except anthropic.BadRequestError as error:
        assert "tools[0].type" in error.body["error"]["message"], error
    else:
        raise AssertionError("a tool of Anthropic's own was taken")


def tools(url, key, model):
    api = client(url, key)
    schema = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
    with_tools = {"model": model, "max_tokens": 500, "tools": [{"name": "get_weather", "input_schema": schema}]}

    def streamed(messages):
        with api.messages.stream(messages=messages, **with_tools) as stream:
            return stream.get_final_message()

    for ask in (lambda messages: api.messages.create(messages=messages, **with_tools)), streamed:
        messages = list(ASK["messages"])
        message = ask(messages)
        calls = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use" and "location" in calls[0].input, message
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        message = ask(messages)
        assert message.content[0].text == "It is sunny." and message.stop_reason == "end_turn", message


if __name__ == "__main__":
    {"serving": serving, "errors": errors, "shapes": shapes, "foreign": foreign, "tools": tools}[sys.argv[1]](*sys.argv[2:])
