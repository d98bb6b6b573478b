//! Reads a `/v1/chat/completions` request.
//!
//! What it refuses no other dialect has: several answers at once, log probabilities, biases, audio answers, tools that
//! OpenAI itself runs. What it leaves out changes no answer: storage, cache keys, tiers, predictions, verbosity.

use super::super::json::{At, Obj, document, list, text};
use super::super::seal::Seal;
use super::{Ask, Call, Choice, Data, Effort, Format, Given, Kind, Media, Outcome, Part, Think, Tool, Who};
use crate::base::Error;
use crate::dialect::Dialect;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads `body`, which `peek` has accepted.
pub(in super::super) fn read(body: &[u8]) -> Result<Ask<'_>, Error> {
    let root = At::ROOT;
    let obj = Obj::read(document(body).ok_or_else(|| Error::malformed("The body is not valid JSON."))?, root)?;
    only_one(&obj, "n")?;
    for name in ["functions", "function_call"] {
        obj.refuse(name, "it is the old form; use `tools`")?;
    }
    for name in ["logprobs", "top_logprobs", "logit_bias", "audio", "web_search_options", "moderation"] {
        obj.refuse(name, "")?;
    }
    for (n, one) in obj.list("modalities")?.into_iter().enumerate() {
        if text(one).as_deref() != Some("text") {
            return Err(obj.at.key("modalities").index(n).foreign("only text is answered"));
        }
    }
    let mut ask = Ask {
        max_output: obj.whole("max_completion_tokens")?.max(obj.whole("max_tokens")?),
        temperature: obj.number("temperature")?,
        top_p: obj.number("top_p")?,
        presence: given(&obj, "presence_penalty")?,
        frequency: given(&obj, "frequency_penalty")?,
        seed: obj.number("seed")?,
        stop: stop(&obj)?,
        parallel: obj.flag("parallel_tool_calls")?.map(|it| Given { it, at: "parallel_tool_calls" }),
        user: obj.text("safety_identifier")?.or(obj.text("user")?),
        think: effort(obj.text("reasoning_effort")?.as_deref(), &root.key("reasoning_effort"))?,
        ..Ask::default()
    };
    // Not OpenAI's, but what servers that speak its dialect take.
    ask.top_k = given(&obj, "top_k")?;
    if let Some(options) = obj.get("stream_options") {
        ask.include_usage = Obj::read(options, root.key("stream_options"))?.flag("include_usage")?.unwrap_or(false);
    }
    if let Some(format) = obj.get("response_format") {
        let at = root.key("response_format");
        let format = Obj::read(format, at)?;
        ask.format = match &*format.need_text("type")? {
            "text" => None,
            "json_object" => Some(Format::Json),
            "json_schema" => {
                let schema = format.get("json_schema").ok_or_else(|| at.key("json_schema").wrong("is missing"))?;
                Some(schema_format(&Obj::read(schema, at.key("json_schema"))?)?)
            }
            _ => return Err(at.key("type").foreign("")),
        }
        .map(|it| Given { it, at: "response_format" });
    }
    messages(&obj, &mut ask)?;
    let at = root.key("tools");
    for (n, tool) in obj.list("tools")?.into_iter().enumerate() {
        let at = at.index(n);
        let tool = Obj::read(tool, at)?;
        if tool.need_text("type")? != "function" {
            return Err(at.key("type").foreign("only functions are"));
        }
        let function = tool.get("function").ok_or_else(|| at.key("function").wrong("is missing"))?;
        ask.tools.push(function_tool(&Obj::read(function, at.key("function"))?)?);
    }
    if let Some(choice) = obj.get("tool_choice") {
        tool_choice(choice, root.key("tool_choice"), &mut ask)?;
    }
    Ok(ask)
}

/// A count that may only be one.
pub(super) fn only_one(obj: &Obj<'_, '_>, name: &str) -> Result<(), Error> {
    match obj.whole(name)? {
        None | Some(1) => Ok(()),
        Some(_) => Err(obj.at.key(name).foreign("only one answer is given")),
    }
}

/// A number that means something; 0 is what these are anyway.
fn given<'a>(obj: &Obj<'a, '_>, at: &'static str) -> Result<Option<Given<&'a str>>, Error> {
    let number = obj.number(at)?;
    Ok(number.filter(|it| it.parse::<f64>().ok() != Some(0.0)).map(|it| Given { it, at }))
}

fn stop<'a>(obj: &Obj<'a, '_>) -> Result<Option<Given<Vec<Cow<'a, str>>>>, Error> {
    let Some(raw) = obj.get("stop") else { return Ok(None) };
    let it = match text(raw) {
        Some(one) => vec![one],
        None => texts(obj, "stop")?,
    };
    Ok((!it.is_empty()).then_some(Given { it, at: "stop" }))
}

/// A list of texts.
pub(super) fn texts<'a>(obj: &Obj<'a, '_>, name: &str) -> Result<Vec<Cow<'a, str>>, Error> {
    let at = obj.at.key(name);
    let one = |(n, raw): (usize, &'a RawValue)| text(raw).ok_or_else(|| at.index(n).wrong("must be a string"));
    obj.list(name)?.into_iter().enumerate().map(one).collect()
}

pub(super) fn effort(name: Option<&str>, at: &At<'_>) -> Result<Think, Error> {
    match name {
        None => Ok(Think::Unsaid),
        Some("none") => Ok(Think::Off),
        Some(name) => {
            Effort::from_name(name).map(Think::Effort).ok_or_else(|| at.foreign("it is no effort that others know"))
        }
    }
}

/// `{name, description, schema, strict}`, as chat and Responses write it.
pub(super) fn schema_format<'a>(obj: &Obj<'a, '_>) -> Result<Format<'a>, Error> {
    let schema = obj.get("schema").ok_or_else(|| obj.at.key("schema").wrong("is missing"))?;
    Ok(Format::Schema {
        name: obj.text("name")?,
        description: obj.text("description")?,
        schema: Cow::Borrowed(schema.get()),
        strict: obj.flag("strict")?,
    })
}

/// `{name, description, parameters, strict}`, likewise.
pub(super) fn function_tool<'a>(obj: &Obj<'a, '_>) -> Result<Tool<'a>, Error> {
    Ok(Tool {
        name: obj.need_text("name")?,
        description: obj.text("description")?,
        schema: obj.get("parameters").map(|schema| Cow::Borrowed(schema.get())),
        strict: obj.flag("strict")?,
    })
}

fn tool_choice<'a>(raw: &'a RawValue, at: At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    if let Some(word) = text(raw) {
        ask.choice = choice_word(&word, &at)?;
        return Ok(());
    }
    let obj = Obj::read(raw, at)?;
    match &*obj.need_text("type")? {
        "function" => {
            let function = obj.get("function").ok_or_else(|| at.key("function").wrong("is missing"))?;
            ask.choice = Choice::One(Obj::read(function, at.key("function"))?.need_text("name")?);
        }
        "allowed_tools" => {
            let allowed = obj.get("allowed_tools").ok_or_else(|| at.key("allowed_tools").wrong("is missing"))?;
            let at = at.key("allowed_tools");
            let allowed = Obj::read(allowed, at)?;
            let mut names = Vec::new();
            for (n, tool) in allowed.list("tools")?.into_iter().enumerate() {
                let tools = at.key("tools");
                let at = tools.index(n);
                let function = Obj::read(tool, at)?.get("function").ok_or_else(|| at.foreign("only functions are"))?;
                names.push(Obj::read(function, at.key("function"))?.need_text("name")?);
            }
            ask.keep_tools(&names);
            ask.choice = choice_word(&allowed.need_text("mode")?, &at.key("mode"))?;
        }
        _ => return Err(at.key("type").foreign("only functions are")),
    }
    Ok(())
}

pub(super) fn choice_word<'a>(word: &str, at: &At<'_>) -> Result<Choice<'a>, Error> {
    match word {
        "auto" => Ok(Choice::Auto),
        "none" => Ok(Choice::None),
        "required" => Ok(Choice::Any),
        _ => Err(at.wrong("must be \"auto\", \"none\", \"required\" or name a function")),
    }
}

fn messages<'a>(obj: &Obj<'a, '_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let at = obj.at.key("messages");
    for (n, raw) in obj.list("messages")?.into_iter().enumerate() {
        let at = at.index(n);
        let message = Obj::read(raw, at)?;
        match &*message.need_text("role")? {
            "system" | "developer" => {
                for part in content(&message, &at)? {
                    match part {
                        Part::Text(text) => ask.system.push(text),
                        _ => return Err(at.key("content").foreign("only text is")),
                    }
                }
            }
            "user" => content(&message, &at)?.into_iter().for_each(|part| ask.say(Who::User, part)),
            "assistant" => assistant(&message, &at, ask)?,
            "tool" => {
                let id = message.need_text("tool_call_id")?;
                let name = ask.called(&id).map(|name| Cow::Owned(name.to_owned()));
                let parts = content(&message, &at)?;
                let outcome = Outcome { id, name, parts, failed: false, at: at.key("tool_call_id").to_string() };
                ask.say(Who::User, Part::Result(outcome));
            }
            "function" => return Err(at.key("role").foreign("it is the old form; use `tool`")),
            _ => return Err(at.key("role").wrong("is none that is known")),
        }
    }
    Ok(())
}

fn assistant<'a>(message: &Obj<'a, '_>, at: &At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    message.refuse("function_call", "it is the old form; use `tool_calls`")?;
    message.refuse("audio", "")?;
    // What servers that speak this dialect make of thoughts; only those who made them take them back.
    if let Some(text) = message.text("reasoning_content")? {
        let seal = Some(Seal::read(Cow::Borrowed(""), Dialect::OpenAi));
        ask.say(Who::Model, Part::Thought { text, seal });
    }
    content(message, at)?.into_iter().for_each(|part| ask.say(Who::Model, part));
    if let Some(text) = message.text("refusal")? {
        ask.say(Who::Model, Part::Text(text));
    }
    let calls = at.key("tool_calls");
    for (n, raw) in message.list("tool_calls")?.into_iter().enumerate() {
        let at = calls.index(n);
        let call = Obj::read(raw, at)?;
        let at = at.key("function");
        let function = Obj::read(call.get("function").ok_or_else(|| at.foreign("only functions are"))?, at)?;
        let args = arguments(function.text("arguments")?, &at.key("arguments"))?;
        let seal = sealed(&call);
        let (id, name) = (call.need_text("id")?, function.need_text("name")?);
        ask.say(Who::Model, Part::Call(Call { id, name, args, seal }));
    }
    Ok(())
}

/// Where Google's own OpenAI-compatible endpoint keeps the seal of a call.
fn sealed<'a>(call: &Obj<'a, '_>) -> Option<Cow<'a, str>> {
    let google = Obj::lax(call.get("extra_content")?)?.obj("google")?;
    google.say("thought_signature")
}

/// Arguments as the JSON object they must be elsewhere.
pub(super) fn arguments<'a>(text: Option<Cow<'a, str>>, at: &At<'_>) -> Result<Cow<'a, str>, Error> {
    match text {
        None => Ok(Cow::Borrowed("{}")),
        Some(text) if text.trim_ascii().is_empty() => Ok(Cow::Borrowed("{}")),
        Some(text) if super::super::json::is_object(&text) => Ok(text),
        Some(_) => Err(at.foreign("it must hold a JSON object")),
    }
}

/// `content`: a text, or a list of parts, or nothing.
fn content<'a>(message: &Obj<'a, '_>, at: &At<'_>) -> Result<Vec<Part<'a>>, Error> {
    let at = at.key("content");
    let Some(raw) = message.get("content") else { return Ok(Vec::new()) };
    if let Some(text) = text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let items = list(raw).ok_or_else(|| at.wrong("must be a string or a list of parts"))?;
    items.into_iter().enumerate().map(|(n, raw)| part(raw, at.index(n))).collect()
}

fn part<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Part<'a>, Error> {
    let obj = Obj::read(raw, at)?;
    let kind = obj.need_text("type")?;
    let inner = || Obj::read(obj.get(&kind).ok_or_else(|| at.key(&kind).wrong("is missing"))?, at.key(&kind));
    Ok(match &*kind {
        "text" => Part::Text(obj.need_text("text")?),
        "refusal" => Part::Text(obj.need_text("refusal")?),
        "image_url" => {
            let url = inner()?.need_text("url")?;
            Part::Media(Media::of_url(url, Kind::Image, at.key("image_url").to_string()))
        }
        "input_audio" => {
            let audio = inner()?;
            let mime = Cow::Owned(format!("audio/{}", audio.need_text("format")?));
            let data = Data::Base64(audio.need_text("data")?);
            Part::Media(Media { kind: Kind::Audio, mime, data, name: None, at: at.key("input_audio").to_string() })
        }
        "file" => {
            let file = inner()?;
            let data = file.text("file_data")?.ok_or_else(|| at.key("file").foreign("send `file_data`"))?;
            let media = Media::of_url(data, Kind::Document, at.key("file").to_string());
            Part::Media(Media { name: file.text("filename")?, ..media })
        }
        _ => return Err(at.key("type").foreign("")),
    })
}
