//! Writes a request as `/v1/messages`.
//!
//! Anthropic wants an output limit, results before words, no empty text, and ids of a narrow alphabet. Thinking goes by
//! budget or by effort, as the model's generation has it, and is left out where Anthropic would refuse the request for
//! it: under a forced tool, and in a tool's turn whose thoughts the caller could not send back.

use super::super::json::foreign;
use super::super::out::{Items, Members, object};
use super::super::seal::{Origin, Seal};
use super::{Ask, Choice, Data, Effort, Format, Given, Kind, Media, Outcome, Part, Target, Think, Turn, Who};
use crate::base::Error;
use std::borrow::Cow;

/// Output at most where neither caller nor catalogue names a limit: every model takes it.
const MAX_TOKENS: u64 = 4096;
/// The smallest budget for thoughts.
const LEAST_BUDGET: u64 = 1024;

/// The body.
pub(in super::super) fn write(ask: &Ask<'_>, target: &Target<'_>, stream: bool) -> Result<Vec<u8>, Error> {
    if let Some(given) = ask.presence.or(ask.frequency) {
        return Err(foreign(given.at, ""));
    }
    if let Some(Given { it: Format::Json, at }) = &ask.format {
        return Err(foreign(*at, "name a JSON schema"));
    }
    for turn in &ask.turns {
        takes(turn)?;
    }
    let known = Some(u64::from(target.max_output)).filter(|most| *most > 0);
    let max_tokens = ask.max_output.or(known).unwrap_or(MAX_TOKENS);
    let think = thinking(ask, target, max_tokens);
    let mut body = Vec::with_capacity(1024);
    object(&mut body, |o| {
        o.put("model", target.model);
        o.put("max_tokens", max_tokens);
        let system: Vec<&Cow<'_, str>> = ask.system.iter().filter(|text| !text.trim().is_empty()).collect();
        match system[..] {
            [] => {}
            [one] => o.put("system", one),
            _ => o.array("system", |list| system.iter().for_each(|text| list.object(|o| text_block(o, text)))),
        }
        o.array("messages", |list| ask.turns.iter().for_each(|turn| message(list, turn)));
        tools(o, ask);
        for (name, digits) in
            [("temperature", ask.temperature), ("top_p", ask.top_p), ("top_k", ask.top_k.map(|given| given.it))]
        {
            if let Some(digits) = digits {
                o.raw(name, digits);
            }
        }
        o.maybe("stop_sequences", ask.stop.as_ref().map(|given| &given.it));
        match think {
            Some(Thinking::Budget(tokens)) => o.object("thinking", |o| {
                o.put("type", "enabled");
                o.put("budget_tokens", tokens);
            }),
            Some(Thinking::Effort(_)) => o.object("thinking", |o| o.put("type", "adaptive")),
            None => {}
        }
        let schema = ask.format.as_ref().map(|given| &given.it);
        let effort = if let Some(Thinking::Effort(effort)) = think { effort } else { None };
        if schema.is_some() || effort.is_some() {
            o.object("output_config", |o| {
                o.maybe("effort", effort.map(Effort::name));
                if let Some(Format::Schema { schema, .. }) = schema {
                    o.object("format", |o| {
                        o.put("type", "json_schema");
                        o.raw("schema", schema);
                    });
                }
            });
        }
        if let Some(user) = &ask.user {
            o.object("metadata", |o| o.put("user_id", user));
        }
        if stream {
            o.put("stream", true);
        }
    });
    Ok(body)
}

enum Thinking {
    Budget(u64),
    Effort(Option<Effort>),
}

fn thinking(ask: &Ask<'_>, target: &Target<'_>, max_tokens: u64) -> Option<Thinking> {
    if matches!(ask.think, Think::Unsaid | Think::Off) || matches!(ask.choice, Choice::Any | Choice::One(_)) {
        return None;
    }
    let version = version(target.model);
    if version >= Some((4, 6)) {
        let effort = match ask.think {
            Think::Effort(effort) => Some(effort),
            Think::Budget(tokens) => Some(Effort::of_budget(tokens)),
            _ => None,
        };
        let effort = effort.map(|effort| match effort {
            Effort::Minimal => Effort::Low,
            Effort::XHigh if version < Some((4, 7)) => Effort::High,
            effort => effort,
        });
        return Some(Thinking::Effort(effort));
    }
    let budget = match ask.think {
        Think::Effort(effort) => effort.budget(),
        Think::Budget(tokens) => tokens,
        _ => Effort::Medium.budget(),
    };
    let budget = budget.max(LEAST_BUDGET).min(max_tokens.saturating_sub(1));
    (budget >= LEAST_BUDGET && !unsealed_tool_turn(ask)).then_some(Thinking::Budget(budget))
}

/// The generation in a Claude's name: `claude-opus-4-6`, `claude-3-7-sonnet-20250219`.
fn version(model: &str) -> Option<(u32, u32)> {
    let (_, name) = model.split_once("claude-")?;
    let mut numbers = name.split(['-', '.', '@', ':']).filter_map(|word| word.parse().ok().filter(|n| *n < 100));
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

/// Whether the model waits for a tool's result and its thoughts before the call are lost.
fn unsealed_tool_turn(ask: &Ask<'_>) -> bool {
    let [.., before, last] = &ask.turns[..] else { return false };
    let sealed =
        |part: &Part<'_>| matches!(part, Part::Thought { seal: Some(Seal { origin, .. }), .. } if is_own(*origin));
    last.parts.iter().any(|part| matches!(part, Part::Result(_))) && !before.parts.iter().any(sealed)
}

fn is_own(origin: Origin) -> bool {
    matches!(origin, Origin::Anthropic | Origin::AnthropicRedacted)
}

fn takes(turn: &Turn<'_>) -> Result<(), Error> {
    let results = turn.parts.iter().flat_map(|part| match part {
        Part::Result(outcome) => &outcome.parts[..],
        _ => &[],
    });
    for part in turn.parts.iter().chain(results) {
        let Part::Media(media) = part else { continue };
        let known = match (media.kind, &media.data) {
            _ if turn.who == Who::Model => false,
            (Kind::Image | Kind::Document, Data::Url(url)) => url.starts_with("http"),
            (Kind::Image, _) | (Kind::Document, Data::Text(_)) => true,
            (Kind::Document, Data::Base64(_)) => media.mime == "application/pdf" || media.mime == "text/plain",
            _ => false,
        };
        if !known {
            return Err(foreign(media.at.clone(), "it has no such form there"));
        }
    }
    Ok(())
}

fn message(list: &mut Items<'_>, turn: &Turn<'_>) {
    let (results, others): (Vec<_>, Vec<_>) = turn.parts.iter().partition(|part| matches!(part, Part::Result(_)));
    let said = |part: &&Part<'_>| match part {
        Part::Text(text) => !text.trim().is_empty(),
        Part::Thought { seal, .. } => seal.as_ref().is_some_and(|seal| is_own(seal.origin)),
        _ => true,
    };
    let parts: Vec<&Part<'_>> = results.into_iter().chain(others.into_iter().filter(said)).collect();
    if parts.is_empty() {
        return;
    }
    list.object(|o| {
        o.put("role", if turn.who == Who::User { "user" } else { "assistant" });
        if let [Part::Text(text)] = parts[..] {
            return o.put("content", text);
        }
        o.array("content", |list| parts.iter().for_each(|part| list.object(|o| block(o, part))));
    });
}

fn text_block(o: &mut Members<'_>, text: &str) {
    o.put("type", "text");
    o.put("text", text);
}

fn block(o: &mut Members<'_>, part: &Part<'_>) {
    match part {
        Part::Text(text) => text_block(o, text),
        Part::Media(media) => media_block(o, media),
        Part::Thought { text, seal: Some(seal) } if seal.origin == Origin::Anthropic => {
            o.put("type", "thinking");
            o.put("thinking", text);
            o.put("signature", &seal.data);
        }
        Part::Thought { seal, .. } => {
            o.put("type", "redacted_thinking");
            o.put("data", seal.as_ref().map_or("", |seal| &seal.data));
        }
        Part::Call(call) => {
            o.put("type", "tool_use");
            o.put("id", plain_id(&call.id));
            o.put("name", &call.name);
            o.raw("input", &call.args);
        }
        Part::Result(Outcome { id, parts, failed, .. }) => {
            o.put("type", "tool_result");
            o.put("tool_use_id", plain_id(id));
            let said = |part: &&Part<'_>| !matches!(part, Part::Text(text) if text.is_empty());
            let parts: Vec<&Part<'_>> = parts.iter().filter(said).collect();
            match parts[..] {
                [] => {}
                [Part::Text(text)] => o.put("content", text),
                _ => o.array("content", |list| parts.iter().for_each(|part| list.object(|o| block(o, part)))),
            }
            if *failed {
                o.put("is_error", true);
            }
        }
    }
}

fn media_block(o: &mut Members<'_>, media: &Media<'_>) {
    o.put("type", if media.kind == Kind::Image { "image" } else { "document" });
    o.object("source", |o| match &media.data {
        Data::Url(url) => {
            o.put("type", "url");
            o.put("url", url);
        }
        Data::Base64(data) => {
            o.put("type", "base64");
            o.put("media_type", &media.mime);
            o.put("data", data);
        }
        Data::Text(text) => {
            o.put("type", "text");
            o.put("media_type", "text/plain");
            o.put("data", text);
        }
    });
    if media.kind == Kind::Document {
        o.maybe("title", media.name.as_ref());
    }
}

/// Ids of other servers may hold what Anthropic's may not.
fn plain_id(id: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.chars().all(plain) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(id.chars().map(|c| if plain(c) { c } else { '_' }).collect())
}

fn tools(o: &mut Members<'_>, ask: &Ask<'_>) {
    if ask.tools.is_empty() {
        return;
    }
    o.array("tools", |list| {
        for tool in &ask.tools {
            list.object(|o| {
                o.put("name", &tool.name);
                o.maybe("description", tool.description.as_ref());
                o.raw("input_schema", tool.schema.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#));
                o.maybe("strict", tool.strict.filter(|strict| *strict));
            });
        }
    });
    let one_at_a_time = matches!(ask.parallel, Some(Given { it: false, .. }));
    let kind = match &ask.choice {
        Choice::Unsaid if !one_at_a_time => return,
        Choice::Unsaid | Choice::Auto => "auto",
        Choice::None => "none",
        Choice::Any => "any",
        Choice::One(_) => "tool",
    };
    o.object("tool_choice", |o| {
        o.put("type", kind);
        if let Choice::One(name) = &ask.choice {
            o.put("name", name);
        }
        if one_at_a_time && kind != "none" {
            o.put("disable_parallel_tool_use", true);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_read_from_names() {
        assert_eq!(version("claude-opus-4-6"), Some((4, 6)));
        assert_eq!(version("anthropic/claude-sonnet-4.5"), Some((4, 5)));
        assert_eq!(version("claude-3-7-sonnet-20250219"), Some((3, 7)));
        assert_eq!(version("claude-sonnet-4-20250514"), Some((4, 0)));
        assert_eq!(version("claude-opus-5"), Some((5, 0)));
        assert_eq!((version("deepseek-chat"), version("claude-x")), (None, None));
    }
}
