//! Writes a request as `/v1/chat/completions`, the one form that every server of OpenAI's dialect takes.
//!
//! Tool results are messages of their own; what they hold beside text follows in the user's next message.

use super::super::json::{foreign, one_line};
use super::super::out::{Items, Members, object};
use super::super::seal::Origin;
use super::joined;
use super::{
    Ask, Call, Choice, Data, Effort, Format, Given, Kind, Media, Outcome, Part, Target, Think, Tool, Turn, Who,
};
use crate::base::Error;

/// Longest `user` that OpenAI takes.
const USER: usize = 64;

/// The body; `usage`: a stream is asked for its usage.
pub(in super::super) fn write(ask: &Ask<'_>, target: &Target<'_>, stream: bool, usage: bool) -> Result<Vec<u8>, Error> {
    if let Some(Given { at, .. }) = ask.top_k {
        return Err(foreign(at, ""));
    }
    for turn in &ask.turns {
        takes(turn)?;
    }
    let mut body = Vec::with_capacity(1024);
    object(&mut body, |o| {
        o.put("model", target.model);
        o.array("messages", |list| {
            if !ask.system.is_empty() {
                list.object(|o| {
                    o.put("role", "system");
                    o.put("content", ask.system.join("\n\n"));
                });
            }
            for turn in &ask.turns {
                match turn.who {
                    Who::User => user(list, turn),
                    Who::Model => assistant(list, turn),
                }
            }
        });
        tools(o, ask);
        o.maybe(limit_name(target), ask.max_output);
        for (name, digits) in [
            ("temperature", ask.temperature),
            ("top_p", ask.top_p),
            ("presence_penalty", ask.presence.map(|given| given.it)),
            ("frequency_penalty", ask.frequency.map(|given| given.it)),
            ("seed", ask.seed),
        ] {
            if let Some(digits) = digits {
                o.raw(name, digits);
            }
        }
        o.maybe("stop", ask.stop.as_ref().map(|given| &given.it));
        if let Some(given) = &ask.format {
            o.object("response_format", |o| format(o, &given.it));
        }
        o.maybe("reasoning_effort", effort(ask.think));
        o.maybe("user", ask.user.as_deref().filter(|user| user.len() <= USER));
        if stream {
            o.put("stream", true);
            if usage {
                o.object("stream_options", |o| o.put("include_usage", true));
            }
        }
    });
    Ok(body)
}

/// OpenAI's newer models refuse `max_tokens`; most other servers know nothing else.
fn limit_name(target: &Target<'_>) -> &'static str {
    let model = target.model.rsplit('/').next().unwrap_or_default();
    let newer = ["gpt-5", "o1", "o3", "o4"].iter().any(|start| model.starts_with(start));
    if newer || matches!(target.provider, "openai" | "azure") { "max_completion_tokens" } else { "max_tokens" }
}

/// The words beyond `high` are for a few models only; no thought at all is what most of them do anyway.
fn effort(think: Think) -> Option<&'static str> {
    match think {
        Think::Unsaid | Think::Off | Think::Auto => None,
        Think::Effort(effort) => Some(effort.min(Effort::High).name()),
        Think::Budget(tokens) => Some(Effort::of_budget(tokens).name()),
    }
}

/// Whether everything in a turn has a form here.
fn takes(turn: &Turn<'_>) -> Result<(), Error> {
    let results = turn.parts.iter().flat_map(|part| match part {
        Part::Result(outcome) => &outcome.parts[..],
        _ => &[],
    });
    for part in turn.parts.iter().chain(results) {
        let Part::Media(media) = part else { continue };
        let known = match (media.kind, &media.data) {
            _ if turn.who == Who::Model => false,
            (Kind::Image, Data::Base64(_)) | (Kind::Document, Data::Base64(_) | Data::Text(_)) => true,
            (Kind::Image, Data::Url(url)) => url.starts_with("http"),
            (Kind::Audio, Data::Base64(_)) => audio_format(&media.mime).is_some(),
            _ => false,
        };
        if !known {
            return Err(foreign(media.at.clone(), "it has no such form there"));
        }
    }
    Ok(())
}

fn audio_format(mime: &str) -> Option<&'static str> {
    match mime {
        "audio/wav" | "audio/x-wav" | "audio/wave" => Some("wav"),
        "audio/mp3" | "audio/mpeg" => Some("mp3"),
        _ => None,
    }
}

fn user(list: &mut Items<'_>, turn: &Turn<'_>) {
    let mut rest: Vec<&Part<'_>> = Vec::new();
    for part in &turn.parts {
        let Part::Result(Outcome { id, parts, .. }) = part else { continue };
        list.object(|o| {
            o.put("role", "tool");
            o.put("tool_call_id", id);
            o.put("content", joined(parts, "\n"));
        });
        rest.extend(
            parts.iter().filter(|part| matches!(part, Part::Media(media) if !matches!(media.data, Data::Text(_)))),
        );
    }
    rest.extend(turn.parts.iter().filter(|part| matches!(part, Part::Text(_) | Part::Media(_))));
    if rest.is_empty() {
        return;
    }
    list.object(|o| {
        o.put("role", "user");
        if let [Part::Text(text)] = rest[..] {
            return o.put("content", text);
        }
        o.array("content", |list| rest.iter().for_each(|part| list.object(|o| content(o, part))));
    });
}

fn content(o: &mut Members<'_>, part: &Part<'_>) {
    match part {
        Part::Text(text) | Part::Media(Media { data: Data::Text(text), .. }) => {
            o.put("type", "text");
            o.put("text", text);
        }
        Part::Media(media) => match (&media.data, media.kind) {
            (Data::Base64(data), Kind::Audio) => {
                o.put("type", "input_audio");
                o.object("input_audio", |o| {
                    o.put("data", data);
                    o.put("format", audio_format(&media.mime));
                });
            }
            (Data::Base64(data), Kind::Document) => {
                o.put("type", "file");
                o.object("file", |o| {
                    o.put("filename", media.name.as_deref().unwrap_or("document.pdf"));
                    o.put("file_data", format!("data:{};base64,{data}", media.mime));
                });
            }
            (Data::Base64(data), _) => {
                o.put("type", "image_url");
                o.object("image_url", |o| o.put("url", format!("data:{};base64,{data}", media.mime)));
            }
            (Data::Url(url) | Data::Text(url), _) => {
                o.put("type", "image_url");
                o.object("image_url", |o| o.put("url", url));
            }
        },
        Part::Thought { .. } | Part::Call(_) | Part::Result(_) => {}
    }
}

fn assistant(list: &mut Items<'_>, turn: &Turn<'_>) {
    let calls: Vec<&Call<'_>> =
        turn.parts.iter().filter_map(|part| if let Part::Call(call) = part { Some(call) } else { None }).collect();
    let text = joined(&turn.parts, "");
    if text.is_empty() && calls.is_empty() {
        return; // thoughts alone: nothing that was said
    }
    list.object(|o| {
        o.put("role", "assistant");
        o.put("content", (!text.is_empty()).then_some(text));
        if calls.is_empty() {
            return;
        }
        // Reasoning servers want their thoughts back while a tool is being used, and only then.
        let own = |part: &Part<'_>| match part {
            Part::Thought { text, seal: Some(seal) } if seal.origin == Origin::OpenAi && !text.is_empty() => {
                Some(text.to_string())
            }
            _ => None,
        };
        o.maybe("reasoning_content", turn.parts.iter().find_map(own));
        o.array("tool_calls", |list| {
            for call in calls {
                list.object(|o| {
                    o.put("id", &call.id);
                    o.put("type", "function");
                    o.object("function", |o| {
                        o.put("name", &call.name);
                        o.put("arguments", one_line(&call.args));
                    });
                });
            }
        });
    });
}

fn tools(o: &mut Members<'_>, ask: &Ask<'_>) {
    if ask.tools.is_empty() {
        return;
    }
    o.array("tools", |list| {
        for Tool { name, description, schema, strict } in &ask.tools {
            list.object(|o| {
                o.put("type", "function");
                o.object("function", |o| {
                    o.put("name", name);
                    o.maybe("description", description.as_ref());
                    o.raw("parameters", schema.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#));
                    o.maybe("strict", *strict);
                });
            });
        }
    });
    match &ask.choice {
        Choice::Unsaid => {}
        Choice::Auto => o.put("tool_choice", "auto"),
        Choice::None => o.put("tool_choice", "none"),
        Choice::Any => o.put("tool_choice", "required"),
        Choice::One(name) => o.object("tool_choice", |o| {
            o.put("type", "function");
            o.object("function", |o| o.put("name", name));
        }),
    }
    if let Some(Given { it: false, .. }) = ask.parallel {
        o.put("parallel_tool_calls", false);
    }
}

fn format(o: &mut Members<'_>, format: &Format<'_>) {
    match format {
        Format::Json => o.put("type", "json_object"),
        Format::Schema { name, description, schema, strict } => {
            o.put("type", "json_schema");
            o.object("json_schema", |o| {
                o.put("name", name.as_deref().unwrap_or("answer"));
                o.maybe("description", description.as_ref());
                o.raw("schema", schema);
                o.maybe("strict", *strict);
            });
        }
    }
}
