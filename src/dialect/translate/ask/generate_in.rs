//! Reads a `generateContent` request; fields may be spelled in camel or snake case, as Google takes them.
//!
//! Tools that Google runs itself, cached contents, files it keeps and answers that are not text are refused. Safety
//! settings are about Google's own filters and are left out, as are labels and media resolutions.

use super::super::json::{At, Obj, document, one_line, text};
use super::super::seal::{Origin, Seal};
use super::chat_in::{only_one, texts};
use super::schema::from_openapi;
use super::{Ask, Call, Choice, Data, Effort, Format, Given, Kind, Media, Outcome, Part, Think, Tool, Who};
use crate::base::Error;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Calls without an id of their own, by order: `(name, our id)` of those not answered yet.
type Pending<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Reads `body`, which `peek` has accepted.
pub(in super::super) fn read(body: &[u8]) -> Result<Ask<'_>, Error> {
    let root = At::ROOT;
    let obj = Obj::read(document(body).ok_or_else(|| Error::malformed("The body is not valid JSON."))?, root)?;
    for name in ["cachedContent", "cached_content"] {
        obj.refuse(name, "the provider does not keep it")?;
    }
    let mut ask = Ask { include_usage: true, ..Ask::default() };
    if let Some((name, raw)) = obj.either("generationConfig", "generation_config") {
        config(raw, root.key(name), &mut ask)?;
    }
    if let Some((name, raw)) = obj.either("systemInstruction", "system_instruction") {
        let at = root.key(name);
        if let Some(text) = text(raw) {
            ask.system.push(text);
        } else {
            let (instruction, at) = (Obj::read(raw, at)?, at.key("parts"));
            for (n, part) in instruction.list("parts")?.into_iter().enumerate() {
                let at = at.index(n);
                let text = Obj::read(part, at)?.text("text")?.ok_or_else(|| at.foreign("only text is"))?;
                ask.system.push(text);
            }
        }
    }
    let (at, mut pending, mut calls) = (root.key("contents"), Pending::new(), 0);
    for (n, raw) in obj.list("contents")?.into_iter().enumerate() {
        let at = at.index(n);
        let content = Obj::read(raw, at)?;
        let who = match content.text("role")?.as_deref() {
            None | Some("user" | "function") => Who::User,
            Some("model") => Who::Model,
            Some(_) => return Err(at.key("role").wrong("must be \"user\" or \"model\"")),
        };
        let at = at.key("parts");
        for (n, raw) in content.list("parts")?.into_iter().enumerate() {
            part(raw, at.index(n), who, &mut ask, &mut pending, &mut calls)?;
        }
    }
    tools(&obj, &mut ask)?;
    Ok(ask)
}

fn config<'a>(raw: &'a RawValue, at: At<'_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let obj = Obj::read(raw, at)?;
    for name in ["candidateCount", "candidate_count"] {
        only_one(&obj, name)?;
    }
    for name in ["responseLogprobs", "response_logprobs", "logprobs", "speechConfig", "speech_config"] {
        obj.refuse(name, "")?;
    }
    if let Some((name, _)) = obj.either("responseModalities", "response_modalities") {
        for (n, one) in texts(&obj, name)?.iter().enumerate() {
            if !one.eq_ignore_ascii_case("text") {
                return Err(at.key(name).index(n).foreign("only text is answered"));
            }
        }
    }
    let number = |camel, snake| obj.either(camel, snake).map_or(Ok(None), |(name, _)| obj.number(name));
    let whole = |camel, snake| obj.either(camel, snake).map_or(Ok(None), |(name, _)| obj.whole(name));
    ask.max_output = whole("maxOutputTokens", "max_output_tokens")?;
    ask.temperature = obj.number("temperature")?;
    ask.top_p = number("topP", "top_p")?;
    ask.seed = obj.number("seed")?;
    let given = |it: Option<&'a str>, at| it.filter(|it| it.parse().ok() != Some(0.0)).map(|it| Given { it, at });
    ask.top_k = given(number("topK", "top_k")?, "generationConfig.topK");
    ask.presence = given(number("presencePenalty", "presence_penalty")?, "generationConfig.presencePenalty");
    ask.frequency = given(number("frequencyPenalty", "frequency_penalty")?, "generationConfig.frequencyPenalty");
    if let Some((name, _)) = obj.either("stopSequences", "stop_sequences") {
        let it = texts(&obj, name)?;
        ask.stop = (!it.is_empty()).then_some(Given { it, at: "generationConfig.stopSequences" });
    }
    let mime = obj.either("responseMimeType", "response_mime_type").map_or(Ok(None), |(name, _)| obj.text(name))?;
    let openapi = obj.either("responseSchema", "response_schema");
    let json = obj.either("responseJsonSchema", "response_json_schema");
    let schema = |schema| Format::Schema { name: None, description: None, schema, strict: None };
    let (it, field) = match (mime.as_deref(), openapi, json) {
        (None | Some("application/json"), _, Some((_, raw))) => {
            (schema(Cow::Borrowed(raw.get())), "generationConfig.responseJsonSchema")
        }
        (None | Some("application/json"), Some((name, raw)), None) => {
            (schema(Cow::Owned(from_openapi(raw, at.key(name))?)), "generationConfig.responseSchema")
        }
        (Some("application/json"), None, None) => (Format::Json, "generationConfig.responseMimeType"),
        (None | Some("text/plain"), ..) => return thinking(&obj, at, ask),
        (Some(_), ..) => return Err(at.key("responseMimeType").foreign("")),
    };
    ask.format = Some(Given { it, at: field });
    thinking(&obj, at, ask)
}

fn thinking(obj: &Obj<'_, '_>, at: At<'_>, ask: &mut Ask<'_>) -> Result<(), Error> {
    let Some((name, raw)) = obj.either("thinkingConfig", "thinking_config") else { return Ok(()) };
    let at = at.key(name);
    let thinking = Obj::read(raw, at)?;
    if let Some((name, _)) = thinking.either("thinkingLevel", "thinking_level") {
        let level = thinking.text(name)?.unwrap_or_default().to_ascii_lowercase();
        ask.think = match Effort::from_name(&level) {
            Some(effort) => Think::Effort(effort),
            None if level == "thinking_level_unspecified" => Think::Unsaid,
            None => return Err(at.key(name).wrong("is none that is known")),
        };
    } else if let Some((name, _)) = thinking.either("thinkingBudget", "thinking_budget") {
        ask.think = match thinking.number(name)? {
            Some("0") => Think::Off,
            Some("-1") => Think::Auto,
            _ => thinking.whole(name)?.map_or(Think::Unsaid, Think::Budget),
        };
    }
    Ok(())
}

fn part<'a>(
    raw: &'a RawValue,
    at: At<'_>,
    who: Who,
    ask: &mut Ask<'a>,
    pending: &mut Pending<'a>,
    calls: &mut usize,
) -> Result<(), Error> {
    let obj = Obj::read(raw, at)?;
    let seal = obj.either("thoughtSignature", "thought_signature").map_or(Ok(None), |(name, _)| obj.text(name))?;
    let seal = seal.map(Seal::read_bytes);
    if obj.flag("thought")? == Some(true) {
        ask.say(who, Part::Thought { text: obj.text("text")?.unwrap_or_default(), seal });
    } else if let Some(text) = obj.text("text")? {
        ask.say(who, Part::Text(text));
    } else if let Some((name, raw)) = obj.either("functionCall", "function_call") {
        let call = Obj::read(raw, at.key(name))?;
        let name = call.need_text("name")?;
        let id = call.text("id")?.unwrap_or_else(|| Cow::Owned(format!("call_{}", *calls)));
        *calls += 1;
        let args = call.get("args").map_or(Cow::Borrowed("{}"), |args| Cow::Borrowed(args.get()));
        if !args.starts_with('{') {
            return Err(call.at.key("args").wrong("must be an object"));
        }
        pending.push((name.clone(), id.clone()));
        let own = seal.filter(|seal| seal.origin == Origin::Gemini).map(|seal| seal.data);
        ask.say(who, Part::Call(Call { id, name, args, seal: own }));
    } else if let Some((name, raw)) = obj.either("functionResponse", "function_response") {
        let (outcome, at) = (Obj::read(raw, at.key(name))?, at.key(name));
        outcome.refuse("parts", "send pictures beside it")?;
        let (name, id) = (outcome.need_text("name")?, outcome.text("id")?);
        let waits = |(known, own): &(Cow<'_, str>, Cow<'_, str>)| match &id {
            Some(id) => id == own,
            None => *known == name,
        };
        let found = pending.iter().position(waits).map(|n| pending.remove(n));
        let Some(id) = found.map(|(_, id)| id).or(id) else {
            return Err(at.key("name").wrong("answers no call"));
        };
        let (text, failed) = response(&outcome)?;
        let parts = vec![Part::Text(text)];
        ask.say(Who::User, Part::Result(Outcome { id, name: Some(name), parts, failed, at: at.to_string() }));
    } else if let Some((name, raw)) = obj.either("inlineData", "inline_data") {
        let at = at.key(name);
        let (mime, data) = blob(raw, at, "data")?;
        let kind = Kind::of_mime(&mime);
        ask.say(who, Part::Media(Media { kind, mime, data: Data::Base64(data), name: None, at: at.to_string() }));
    } else if let Some((name, raw)) = obj.either("fileData", "file_data") {
        let at = at.key(name);
        let (mime, uri) = blob(raw, at, "fileUri")?;
        if !uri.starts_with("http") || uri.starts_with("https://generativelanguage.googleapis.com/") {
            return Err(at.foreign("the provider can't read it"));
        }
        let kind = Kind::of_mime(&mime);
        ask.say(who, Part::Media(Media { kind, mime, data: Data::Url(uri), name: None, at: at.to_string() }));
    } else {
        return Err(at.foreign(""));
    }
    Ok(())
}

fn blob<'a>(raw: &'a RawValue, at: At<'_>, what: &'static str) -> Result<(Cow<'a, str>, Cow<'a, str>), Error> {
    let obj = Obj::read(raw, at)?;
    let mime = obj.either("mimeType", "mime_type").map_or(Ok(None), |(name, _)| obj.text(name))?.unwrap_or_default();
    let snake = if what == "fileUri" { "file_uri" } else { what };
    let name = obj.either(what, snake).map_or(what, |(name, _)| name);
    Ok((mime, obj.need_text(name)?))
}

/// Google's convention: `output`, or `error`, or the whole object is what the function said.
fn response<'a>(outcome: &Obj<'a, '_>) -> Result<(Cow<'a, str>, bool), Error> {
    let Some(raw) = outcome.get("response") else { return Ok((Cow::Borrowed(""), false)) };
    let obj = Obj::read(raw, outcome.at.key("response"))?;
    let [(name, value)] = obj.members() else { return Ok((one_line(raw.get()), false)) };
    let said = text(value).unwrap_or(one_line(value.get()));
    Ok(match &**name {
        "output" | "result" => (said, false),
        "error" => (said, true),
        _ => (one_line(raw.get()), false),
    })
}

fn tools<'a>(obj: &Obj<'a, '_>, ask: &mut Ask<'a>) -> Result<(), Error> {
    let at = obj.at.key("tools");
    for (n, raw) in obj.list("tools")?.into_iter().enumerate() {
        let at = at.index(n);
        let tool = Obj::read(raw, at)?;
        for (name, _) in tool.members() {
            let ours = matches!(&**name, "functionDeclarations" | "function_declarations");
            if !ours && tool.get(name).is_some() {
                return Err(at.key(name).foreign("only functions are"));
            }
        }
        let Some((name, _)) = tool.either("functionDeclarations", "function_declarations") else { continue };
        let at = at.key(name);
        for (n, raw) in tool.list(name)?.into_iter().enumerate() {
            let at = at.index(n);
            let function = Obj::read(raw, at)?;
            let schema = match function.either("parametersJsonSchema", "parameters_json_schema") {
                Some((_, raw)) => Some(Cow::Borrowed(raw.get())),
                None => match function.get("parameters") {
                    Some(raw) => Some(Cow::Owned(from_openapi(raw, at.key("parameters"))?)),
                    None => None,
                },
            };
            let (name, description) = (function.need_text("name")?, function.text("description")?);
            ask.tools.push(Tool { name, description, schema, strict: None });
        }
    }
    let Some((name, raw)) = obj.either("toolConfig", "tool_config") else { return Ok(()) };
    let at = obj.at.key(name);
    let config = Obj::read(raw, at)?;
    let Some((name, raw)) = config.either("functionCallingConfig", "function_calling_config") else { return Ok(()) };
    let at = at.key(name);
    let calling = Obj::read(raw, at)?;
    let names = match calling.either("allowedFunctionNames", "allowed_function_names") {
        Some((name, _)) => texts(&calling, name)?,
        None => Vec::new(),
    };
    ask.choice = match calling.text("mode")?.unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "MODE_UNSPECIFIED" | "AUTO" | "VALIDATED" => Choice::Auto,
        "NONE" => Choice::None,
        "ANY" => match &names[..] {
            [one] => Choice::One(one.clone()),
            _ => Choice::Any,
        },
        _ => return Err(at.key("mode").wrong("is none that is known")),
    };
    if !names.is_empty() {
        ask.keep_tools(&names);
    }
    Ok(())
}
