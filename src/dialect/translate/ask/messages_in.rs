//! Reads a `/v1/messages` request.
//!
//! Cache marks, betas' wishes about context and service tiers are left out. Tools that Anthropic runs itself, files it
//! keeps, MCP servers it calls and citations are refused: without them the answer would be another one.

use super::super::json::{At, Obj, document, list, text};
use super::super::seal::{Origin, Seal};
use super::chat_in::texts;
use super::{Ask, Call, Choice, Data, Effort, Format, Given, Kind, Media, Outcome, Part, Think, Tool, Who};
use crate::base::Error;
use crate::dialect::Dialect;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Reads `body`, which `peek` has accepted.
pub(in super::super) fn read(body: &[u8]) -> Result<Ask<'_>, Error> {
    let root = At::ROOT;
    let obj = Obj::read(document(body).ok_or_else(|| Error::malformed("The body is not valid JSON."))?, root)?;
    for name in ["container", "mcp_servers"] {
        obj.refuse(name, "")?;
    }
    let stop = texts(&obj, "stop_sequences")?;
    let mut ask = Ask {
        max_output: obj.whole("max_tokens")?,
        temperature: obj.number("temperature")?,
        top_p: obj.number("top_p")?,
        top_k: obj.number("top_k")?.map(|it| Given { it, at: "top_k" }),
        stop: (!stop.is_empty()).then_some(Given { it: stop, at: "stop_sequences" }),
        include_usage: true,
        ..Ask::default()
    };
    if let Some(metadata) = obj.get("metadata") {
        ask.user = Obj::read(metadata, root.key("metadata"))?.text("user_id")?;
    }
    if let Some(raw) = obj.get("system") {
        let at = root.key("system");
        if let Some(text) = text(raw) {
            ask.system.push(text);
        } else {
            let blocks = list(raw).ok_or_else(|| at.wrong("must be a string or blocks"))?;
            for (n, block) in blocks.into_iter().enumerate() {
                ask.system.push(Obj::read(block, at.index(n))?.need_text("text")?);
            }
        }
    }
    output(&obj, &mut ask)?;
    let at = root.key("messages");
    for (n, raw) in obj.list("messages")?.into_iter().enumerate() {
        message(raw, at.index(n), &mut ask)?;
    }
    let at = root.key("tools");
    for (n, raw) in obj.list("tools")?.into_iter().enumerate() {
        let at = at.index(n);
        let tool = Obj::read(raw, at)?;
        if tool.text("type")?.is_some_and(|kind| kind != "custom") {
            return Err(at.key("type").foreign("only tools of the caller's own are"));
        }
        ask.tools.push(Tool {
            name: tool.need_text("name")?,
            description: tool.text("description")?,
            schema: tool.get("input_schema").map(|schema| Cow::Borrowed(schema.get())),
            strict: tool.flag("strict")?,
        });
    }
    if let Some(raw) = obj.get("tool_choice") {
        let at = root.key("tool_choice");
        let choice = Obj::read(raw, at)?;
        ask.choice = match &*choice.need_text("type")? {
            "auto" => Choice::Auto,
            "any" => Choice::Any,
            "none" => Choice::None,
            "tool" => Choice::One(choice.need_text("name")?),
            _ => return Err(at.key("type").wrong("is none that is known")),
        };
        let one = choice.flag("disable_parallel_tool_use")?;
        ask.parallel = one.map(|one| Given { it: !one, at: "tool_choice.disable_parallel_tool_use" });
    }
    Ok(ask)
}

/// How it is to think, and in what shape it is to answer.
fn output<'a>(obj: &Obj<'a, '_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let root = At::ROOT;
    if let Some(raw) = obj.get("thinking") {
        let at = root.key("thinking");
        let thinking = Obj::read(raw, at)?;
        ask.think = match &*thinking.need_text("type")? {
            "disabled" => Think::Off,
            "enabled" => thinking.whole("budget_tokens")?.map_or(Think::Auto, Think::Budget),
            _ => Think::Auto,
        };
    }
    let mut format = obj.get("output_format").map(|raw| ("output_format", raw));
    let at = root.key("output_config");
    if let Some(raw) = obj.get("output_config") {
        let config = Obj::read(raw, at)?;
        if let Some(effort) = config.text("effort")?
            && ask.think != Think::Off
        {
            let effort = Effort::from_name(&effort).ok_or_else(|| at.key("effort").wrong("is none that is known"))?;
            ask.think = Think::Effort(effort);
        }
        format = config.get("format").map(|raw| ("output_config.format", raw)).or(format);
    }
    if let Some((name, raw)) = format {
        let at = root.key(name);
        let format = Obj::read(raw, at)?;
        if format.need_text("type")? != "json_schema" {
            return Err(at.key("type").foreign(""));
        }
        let schema = format.get("schema").ok_or_else(|| at.key("schema").wrong("is missing"))?;
        let schema = Cow::Borrowed(schema.get());
        let it = Format::Schema { name: None, description: None, schema, strict: Some(true) };
        ask.format = Some(Given { it, at: name });
    }
    Ok(())
}

fn message<'a>(raw: &'a RawValue, at: At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let obj = Obj::read(raw, at)?;
    let role = obj.need_text("role")?;
    let content = obj.get("content").ok_or_else(|| at.key("content").wrong("is missing"))?;
    let at = at.key("content");
    let parts = blocks(content, at)?;
    match &*role {
        "user" => parts.into_iter().for_each(|part| {
            let part = match part {
                // The tool's name stands in the call alone.
                Part::Result(outcome) => {
                    let name = ask.called(&outcome.id).map(|name| Cow::Owned(name.to_owned()));
                    Part::Result(Outcome { name, ..outcome })
                }
                part => part,
            };
            ask.say(Who::User, part);
        }),
        "assistant" => parts.into_iter().for_each(|part| ask.say(Who::Model, part)),
        "system" => {
            for part in parts {
                match part {
                    Part::Text(text) => ask.system.push(text),
                    _ => return Err(at.foreign("only text is")),
                }
            }
        }
        _ => return Err(at.wrong("belongs to no role that is known")),
    }
    Ok(())
}

fn blocks<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Vec<Part<'a>>, Error> {
    if let Some(text) = text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let blocks = list(raw).ok_or_else(|| at.wrong("must be a string or a list of blocks"))?;
    blocks.into_iter().enumerate().map(|(n, raw)| block(raw, at.index(n))).collect()
}

fn block<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Part<'a>, Error> {
    let obj = Obj::read(raw, at)?;
    Ok(match &*obj.need_text("type")? {
        "text" => Part::Text(obj.need_text("text")?),
        "image" => Part::Media(media(&obj, Kind::Image, at)?),
        "document" => {
            if let Some(citations) = obj.get("citations") {
                Obj::read(citations, at.key("citations"))?.refuse("enabled", "")?;
            }
            Part::Media(Media { name: obj.text("title")?, ..media(&obj, Kind::Document, at)? })
        }
        "thinking" => Part::Thought {
            text: obj.text("thinking")?.unwrap_or_default(),
            seal: obj.text("signature")?.filter(|s| !s.is_empty()).map(|s| Seal::read(s, Dialect::Anthropic)),
        },
        "redacted_thinking" => {
            let seal = Seal { origin: Origin::AnthropicRedacted, data: obj.need_text("data")? };
            Part::Thought { text: Cow::Borrowed(""), seal: Some(seal) }
        }
        "tool_use" => Part::Call(Call {
            id: obj.need_text("id")?,
            name: obj.need_text("name")?,
            args: match obj.get("input") {
                None => Cow::Borrowed("{}"),
                Some(input) if input.get().starts_with('{') => Cow::Borrowed(input.get()),
                Some(_) => return Err(at.key("input").wrong("must be an object")),
            },
            seal: None,
        }),
        "tool_result" => Part::Result(Outcome {
            id: obj.need_text("tool_use_id")?,
            name: None,
            parts: obj.get("content").map_or(Ok(Vec::new()), |raw| result(raw, at.key("content")))?,
            failed: obj.flag("is_error")?.unwrap_or(false),
            at: at.key("tool_use_id").to_string(),
        }),
        _ => return Err(at.key("type").foreign("")),
    })
}

/// What a tool said: one level of blocks, so nothing nests.
fn result<'a>(raw: &'a RawValue, at: At<'_>) -> Result<Vec<Part<'a>>, Error> {
    if let Some(text) = text(raw) {
        return Ok(vec![Part::Text(text)]);
    }
    let blocks = list(raw).ok_or_else(|| at.wrong("must be a string or a list of blocks"))?;
    let mut parts = Vec::with_capacity(blocks.len());
    for (n, raw) in blocks.into_iter().enumerate() {
        let at = at.index(n);
        let obj = Obj::read(raw, at)?;
        parts.push(match &*obj.need_text("type")? {
            "text" => Part::Text(obj.need_text("text")?),
            "image" => Part::Media(media(&obj, Kind::Image, at)?),
            "document" => Part::Media(Media { name: obj.text("title")?, ..media(&obj, Kind::Document, at)? }),
            _ => return Err(at.key("type").foreign("")),
        });
    }
    Ok(parts)
}

fn media<'a>(obj: &Obj<'a, '_>, kind: Kind, at: At<'_>) -> Result<Media<'a>, Error> {
    let at = at.key("source");
    let source = Obj::read(obj.get("source").ok_or_else(|| at.wrong("is missing"))?, at)?;
    let (mime, data) = match &*source.need_text("type")? {
        "base64" => (source.need_text("media_type")?, Data::Base64(source.need_text("data")?)),
        "url" => (Cow::Borrowed(""), Data::Url(source.need_text("url")?)),
        "text" => (Cow::Borrowed("text/plain"), Data::Text(source.need_text("data")?)),
        _ => return Err(at.key("type").foreign("")),
    };
    Ok(Media { kind, mime, data, name: None, at: at.to_string() })
}
