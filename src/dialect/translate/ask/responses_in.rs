//! Reads a `/v1/responses` request.
//!
//! What OpenAI keeps for its callers (earlier responses, conversations, prompts, files) and the tools it runs itself
//! are nowhere else: those are refused. Items of the model's own thoughts come back sealed.

use super::super::json::{At, Obj, document, list, text};
use super::super::seal::Seal;
use super::chat_in::{arguments, choice_word, effort, function_tool, schema_format};
use super::{Ask, Call, Choice, Data, Format, Given, Kind, Media, Outcome, Part, Who};
use crate::base::Error;
use crate::dialect::Dialect;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads `body`, which `peek` has accepted.
pub(in super::super) fn read(body: &[u8]) -> Result<Ask<'_>, Error> {
    let root = At::ROOT;
    let obj = Obj::read(document(body).ok_or_else(|| Error::malformed("The body is not valid JSON."))?, root)?;
    for name in ["previous_response_id", "conversation", "prompt"] {
        obj.refuse(name, "the provider keeps nothing; send the whole conversation")?;
    }
    for name in ["background", "moderation", "top_logprobs", "max_tool_calls"] {
        obj.refuse(name, "")?;
    }
    let mut ask = Ask {
        max_output: obj.whole("max_output_tokens")?,
        temperature: obj.number("temperature")?,
        top_p: obj.number("top_p")?,
        parallel: obj.flag("parallel_tool_calls")?.map(|it| Given { it, at: "parallel_tool_calls" }),
        user: obj.text("safety_identifier")?.or(obj.text("user")?),
        include_usage: true,
        ..Ask::default()
    };
    if let Some(reasoning) = obj.get("reasoning") {
        let at = root.key("reasoning");
        ask.think = effort(Obj::read(reasoning, at)?.text("effort")?.as_deref(), &at.key("effort"))?;
    }
    if let Some(words) = obj.get("text") {
        let at = root.key("text");
        if let Some(format) = Obj::read(words, at)?.get("format") {
            let at = at.key("format");
            let format = Obj::read(format, at)?;
            ask.format = match &*format.need_text("type")? {
                "text" => None,
                "json_object" => Some(Format::Json),
                "json_schema" => Some(schema_format(&format)?),
                _ => return Err(at.key("type").foreign("")),
            }
            .map(|it| Given { it, at: "text.format" });
        }
    }
    ask.system.extend(obj.text("instructions")?);
    let at = root.key("input");
    match obj.get("input") {
        None => return Err(at.wrong("is missing")),
        Some(input) => {
            if let Some(text) = text(input) {
                ask.say(Who::User, Part::Text(text));
            } else {
                let items = list(input).ok_or_else(|| at.wrong("must be a string or a list of items"))?;
                for (n, raw) in items.into_iter().enumerate() {
                    item(raw, at.index(n), &mut ask)?;
                }
            }
        }
    }
    let at = root.key("tools");
    for (n, tool) in obj.list("tools")?.into_iter().enumerate() {
        let at = at.index(n);
        let tool = Obj::read(tool, at)?;
        if tool.need_text("type")? != "function" {
            return Err(at.key("type").foreign("only functions are"));
        }
        ask.tools.push(function_tool(&tool)?);
    }
    if let Some(choice) = obj.get("tool_choice") {
        tool_choice(choice, root.key("tool_choice"), &mut ask)?;
    }
    Ok(ask)
}

fn tool_choice<'a>(raw: &'a RawValue, at: At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    if let Some(word) = text(raw) {
        ask.choice = choice_word(&word, &at)?;
        return Ok(());
    }
    let obj = Obj::read(raw, at)?;
    match &*obj.need_text("type")? {
        "function" => ask.choice = Choice::One(obj.need_text("name")?),
        "allowed_tools" => {
            let (mut names, tools) = (Vec::new(), at.key("tools"));
            for (n, tool) in obj.list("tools")?.into_iter().enumerate() {
                names.push(Obj::read(tool, tools.index(n))?.need_text("name")?);
            }
            ask.keep_tools(&names);
            ask.choice = choice_word(&obj.need_text("mode")?, &at.key("mode"))?;
        }
        _ => return Err(at.key("type").foreign("only functions are")),
    }
    Ok(())
}

fn item<'a>(raw: &'a RawValue, at: At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let obj = Obj::read(raw, at)?;
    match obj.text("type")?.as_deref().unwrap_or("message") {
        "message" => message(&obj, at, ask)?,
        "function_call" => {
            let args = arguments(obj.text("arguments")?, &at.key("arguments"))?;
            let (id, name) = (obj.need_text("call_id")?, obj.need_text("name")?);
            ask.say(Who::Model, Part::Call(Call { id, name, args, seal: None }));
        }
        "function_call_output" => {
            let id = obj.need_text("call_id")?;
            let name = ask.called(&id).map(|name| Cow::Owned(name.to_owned()));
            let parts = content(&obj, "output", at)?;
            let outcome = Outcome { id, name, parts, failed: false, at: at.key("call_id").to_string() };
            ask.say(Who::User, Part::Result(outcome));
        }
        "reasoning" => {
            let mut thought = String::new();
            for list in ["summary", "content"] {
                if !thought.is_empty() {
                    break; // the thought itself, where its summary is already there
                }
                let at = at.key(list);
                for (n, part) in obj.list(list)?.into_iter().enumerate() {
                    thought.push_str(&Obj::read(part, at.index(n))?.need_text("text")?);
                }
            }
            let seal = obj.text("encrypted_content")?.map(|sealed| Seal::read(sealed, Dialect::OpenAi));
            ask.say(Who::Model, Part::Thought { text: Cow::Owned(thought), seal });
        }
        _ => return Err(at.key("type").foreign("")),
    }
    Ok(())
}

fn message<'a>(obj: &Obj<'a, '_>, at: At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let parts = content(obj, "content", at)?;
    match &*obj.need_text("role")? {
        "system" | "developer" => {
            for part in parts {
                match part {
                    Part::Text(text) => ask.system.push(text),
                    _ => return Err(at.key("content").foreign("only text is")),
                }
            }
        }
        "user" => parts.into_iter().for_each(|part| ask.say(Who::User, part)),
        "assistant" => parts.into_iter().for_each(|part| ask.say(Who::Model, part)),
        _ => return Err(at.key("role").wrong("is none that is known")),
    }
    Ok(())
}

fn content<'a>(obj: &Obj<'a, '_>, name: &str, at: At<'_>) -> Result<Vec<Part<'a>>, Error> {
    let at = at.key(name);
    let raw = obj.get(name).ok_or_else(|| at.wrong("is missing"))?;
    if let Some(text) = text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let items = list(raw).ok_or_else(|| at.wrong("must be a string or a list of parts"))?;
    items.into_iter().enumerate().map(|(n, raw)| part(raw, at.index(n))).collect()
}

fn part<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Part<'a>, Error> {
    let obj = Obj::read(raw, at)?;
    Ok(match &*obj.need_text("type")? {
        "input_text" | "output_text" | "text" => Part::Text(obj.need_text("text")?),
        "refusal" => Part::Text(obj.need_text("refusal")?),
        "input_image" => {
            let url = obj.text("image_url")?.ok_or_else(|| at.foreign("send `image_url`"))?;
            Part::Media(Media::of_url(url, Kind::Image, at.to_string()))
        }
        "input_file" => {
            let data = match obj.text("file_data")? {
                Some(data) => data,
                None => obj.text("file_url")?.ok_or_else(|| at.foreign("send `file_data`"))?,
            };
            let media = Media::of_url(data, Kind::Document, at.to_string());
            Part::Media(Media { name: obj.text("filename")?, ..media })
        }
        "input_audio" => {
            let audio = obj.get("input_audio").ok_or_else(|| at.key("input_audio").wrong("is missing"))?;
            let audio = Obj::read(audio, at.key("input_audio"))?;
            let mime = Cow::Owned(format!("audio/{}", audio.need_text("format")?));
            let data = Data::Base64(audio.need_text("data")?);
            Part::Media(Media { kind: Kind::Audio, mime, data, name: None, at: at.to_string() })
        }
        _ => return Err(at.key("type").foreign("")),
    })
}
