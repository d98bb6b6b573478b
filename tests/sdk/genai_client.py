"""The official google-genai SDK against a gateway: what a user's own program does.

    genai_client.py serving URL KEY MODEL          answers, plain and streamed, from whoever is behind
    genai_client.py errors URL KEY LIMITED FENCED  each error arrives as the SDK's own class
    genai_client.py foreign URL KEY MODEL          answers of a provider that speaks another dialect
    genai_client.py tools URL KEY MODEL            tools used with such a provider, to the end

Exit 0 when everything held; an assertion's traceback otherwise.
"""

import sys

from google import genai
from google.genai import errors as genai_errors
from google.genai import types

SAID = "Zwölf Boxkämpfer jagen Viktor"


def client(url, key, version=None):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, api_version=version, timeout=20_000))


def serving(url, key, model):
    # The SDK's own default version, and both that the gateway answers under.
    for version in (None, "v1beta", "v1"):
        api = client(url, key, version)
        answer = api.models.generate_content(model=model, contents=SAID)
        assert answer.text == SAID, answer
        assert answer.usage_metadata.prompt_token_count > 0, answer
        assert answer.candidates[0].finish_reason == types.FinishReason.STOP, answer

        chunks = list(api.models.generate_content_stream(model=model, contents=SAID))
        assert "".join(chunk.text or "" for chunk in chunks) == SAID, chunks
        assert chunks[-1].usage_metadata.candidates_token_count > 0, chunks[-1]

        short = types.GenerateContentConfig(max_output_tokens=1)
        answer = api.models.generate_content(model=model, contents=SAID, config=short)
        assert answer.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS, answer


def errors(url, key, limited, fenced):
    def refused(api, code, status, model="demo/echo"):
        for call in (api.models.generate_content, api.models.generate_content_stream):
            try:
                list(call(model=model, contents=SAID))
            except genai_errors.ClientError as error:
                assert error.code == code and error.status == status and error.message, error
                last = error
            else:
                raise AssertionError(f"{status} did not come")
        return last

    refused(client(url, "mrd_" + "x" * 40), 401, "UNAUTHENTICATED")
    refused(client(url, key), 404, "NOT_FOUND", model="nobody/nothing")
    refused(client(url, fenced), 403, "PERMISSION_DENIED")
    api = client(url, limited)
    api.models.generate_content(model="demo/echo", contents=SAID)
    error = refused(api, 429, "RESOURCE_EXHAUSTED")
    assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers


def foreign(url, key, model):
    serving(url, key, model)
    api = client(url, key)
    for config, field in (
        (types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())]), "googleSearch"),
        (types.GenerateContentConfig(candidate_count=2), "generationConfig.candidateCount"),
    ):
        try:
            api.models.generate_content(model=model, contents=SAID, config=config)
        except genai_errors.ClientError as error:
            assert error.code == 400 and error.status == "INVALID_ARGUMENT" and field in error.message, error
        else:
            raise AssertionError(f"{field} was taken")


def tools(url, key, model):
    api = client(url, key)
    location = types.Schema(type="OBJECT", properties={"location": types.Schema(type="STRING")}, required=["location"])
    function = types.FunctionDeclaration(name="get_weather", description="The weather", parameters=location)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[function])])

    def whole(contents):
        return api.models.generate_content(model=model, contents=contents, config=config).candidates[0].content.parts

    def streamed(contents):
        stream = api.models.generate_content_stream(model=model, contents=contents, config=config)
        return [part for chunk in stream for part in chunk.candidates[0].content.parts or []]

    for ask in whole, streamed:
        contents = [types.Content(role="user", parts=[types.Part(text=SAID)])]
        parts = ask(contents)
        calls = [part.function_call for part in parts if part.function_call]
        assert calls and calls[0].name.startswith("get_") and "location" in calls[0].args, parts
        contents.append(types.Content(role="model", parts=parts))
        results = [types.Part.from_function_response(name=call.name, response={"result": "sunny"}) for call in calls]
        contents.append(types.Content(role="user", parts=results))
        assert "".join(part.text or "" for part in ask(contents)) == "It is sunny.", contents


if __name__ == "__main__":
    {"serving": serving, "errors": errors, "foreign": foreign, "tools": tools}[sys.argv[1]](*sys.argv[2:])
