//! Writes a request as Gemini's `generateContent`.
//!
//! Schemas go out as JSON Schema. A call must carry the seal that its model put on it; one that has none (it was made
//! by another model, or its caller's dialect could not hold it) says so in the word Google documents for that.

use super::super::json::{foreign, is_object};
use super::super::out::{Items, Members, object};
use super::{Ask, Choice, Data, Effort, Format, Given, Kind, Media, Outcome, Part, Target, Think, Turn, Who, joined};
use crate::base::Error;

/// Tells Gemini 3 that a call was not sealed by it.
const UNSEALED: &str = "skip_thought_signature_validator";
/// The largest budget that every model of the second generation takes.
const MOST_BUDGET: u64 = 24_576;
/// The smallest for those that can't stop thinking.
const LEAST_BUDGET: u64 = 128;

/// The body. Whether it is a stream stands in the path.
pub(in super::super) fn write(ask: &Ask<'_>, target: &Target<'_>) -> Result<Vec<u8>, Error> {
    if let Some(Given { it: false, at }) = ask.parallel
        && !ask.tools.is_empty()
    {
        return Err(foreign(at, "it always may call several tools at once"));
    }
    for turn in &ask.turns {
        takes(turn)?;
    }
    let newer = generation(target.model) >= 3;
    let mut body = Vec::with_capacity(1024);
    object(&mut body, |o| {
        if !ask.system.is_empty() {
            o.object("systemInstruction", |o| {
                o.array("parts", |list| ask.system.iter().for_each(|text| list.object(|o| o.put("text", text))));
            });
        }
        o.array("contents", |list| ask.turns.iter().for_each(|turn| content(list, turn, newer)));
        tools(o, ask);
        o.object("generationConfig", |o| config(o, ask, target, newer));
    });
    Ok(body)
}

/// The number in `gemini-2.5-pro`; 0: another name. `gemini-flash-latest` and its like are of the newest.
fn generation(model: &str) -> u32 {
    let Some((_, rest)) = model.split_once("gemini-") else { return 0 };
    rest.split(['.', '-']).next().unwrap_or_default().parse().unwrap_or(u32::MAX)
}

fn takes(turn: &Turn<'_>) -> Result<(), Error> {
    for part in &turn.parts {
        match part {
            Part::Media(media) => blob(media)?,
            Part::Result(outcome) => {
                if outcome.name.is_none() {
                    return Err(foreign(outcome.at.clone(), "no earlier message holds that call"));
                }
                for part in &outcome.parts {
                    if let Part::Media(media) = part {
                        blob(media)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn blob(media: &Media<'_>) -> Result<(), Error> {
    match &media.data {
        Data::Url(url) if !url.starts_with("http") => Err(foreign(media.at.clone(), "it is no URL")),
        _ => Ok(()),
    }
}

fn content(list: &mut Items<'_>, turn: &Turn<'_>, newer: bool) {
    let said = |part: &&Part<'_>| match part {
        Part::Text(text) => !text.is_empty(),
        Part::Thought { .. } => false, // its seal is on the call
        _ => true,
    };
    let (results, others): (Vec<_>, Vec<_>) =
        turn.parts.iter().filter(said).partition(|part| matches!(part, Part::Result(_)));
    if results.is_empty() && others.is_empty() {
        return;
    }
    let sealed = turn.parts.iter().any(|part| matches!(part, Part::Call(call) if call.seal.is_some()));
    let mut unsealed = newer && !sealed;
    list.object(|o| {
        o.put("role", if turn.who == Who::User { "user" } else { "model" });
        o.array("parts", |list| {
            for part in &results {
                let Part::Result(outcome) = part else { continue };
                list.object(|o| result(o, outcome));
            }
            for part in &results {
                let Part::Result(Outcome { parts, .. }) = part else { continue };
                let media = parts.iter().filter(|part| matches!(part, Part::Media(_)));
                media.for_each(|part| list.object(|o| one(o, part, &mut false)));
            }
            for part in &others {
                list.object(|o| one(o, part, &mut unsealed));
            }
        });
    });
}

fn one(o: &mut Members<'_>, part: &Part<'_>, unsealed: &mut bool) {
    match part {
        Part::Text(text) | Part::Media(Media { data: Data::Text(text), .. }) => o.put("text", text),
        Part::Media(Media { mime, data: Data::Base64(data), .. }) => o.object("inlineData", |o| {
            o.put("mimeType", mime);
            o.put("data", data);
        }),
        Part::Media(Media { kind, mime, data: Data::Url(url), .. }) => o.object("fileData", |o| {
            o.put("mimeType", if mime.is_empty() { mime_of(url, *kind) } else { mime });
            o.put("fileUri", url);
        }),
        Part::Call(call) => {
            o.object("functionCall", |o| {
                o.put("id", &call.id);
                o.put("name", &call.name);
                o.raw("args", &call.args);
            });
            // Of several calls at once only the first is sealed.
            let none = std::mem::take(unsealed).then_some(UNSEALED);
            o.maybe("thoughtSignature", call.seal.as_deref().or(none));
        }
        Part::Thought { .. } | Part::Result(_) => {}
    }
}

/// By its ending, else what is most usual.
fn mime_of(url: &str, kind: Kind) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match path.rsplit('.').next().unwrap_or_default() {
        "png" => "image/png",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        _ if kind == Kind::Document => "application/pdf",
        _ => "image/jpeg",
    }
}

/// An object goes as it is, anything else as Google's `output` or `error`.
fn result(o: &mut Members<'_>, outcome: &Outcome<'_>) {
    let text = joined(&outcome.parts, "\n");
    o.object("functionResponse", |o| {
        o.put("id", &outcome.id);
        o.maybe("name", outcome.name.as_ref());
        if !outcome.failed && is_object(&text) {
            return o.raw("response", &text);
        }
        o.object("response", |o| o.put(if outcome.failed { "error" } else { "output" }, text));
    });
}

fn tools(o: &mut Members<'_>, ask: &Ask<'_>) {
    if ask.tools.is_empty() {
        return;
    }
    o.array("tools", |list| {
        list.object(|o| {
            o.array("functionDeclarations", |list| {
                for tool in &ask.tools {
                    list.object(|o| {
                        o.put("name", &tool.name);
                        o.maybe("description", tool.description.as_ref());
                        if let Some(schema) = &tool.schema {
                            o.raw("parametersJsonSchema", schema);
                        }
                    });
                }
            });
        });
    });
    let mode = match &ask.choice {
        Choice::Unsaid => return,
        Choice::Auto => "AUTO",
        Choice::None => "NONE",
        Choice::Any | Choice::One(_) => "ANY",
    };
    o.object("toolConfig", |o| {
        o.object("functionCallingConfig", |o| {
            o.put("mode", mode);
            if let Choice::One(name) = &ask.choice {
                o.put("allowedFunctionNames", [name]);
            }
        });
    });
}

fn config(o: &mut Members<'_>, ask: &Ask<'_>, target: &Target<'_>, newer: bool) {
    o.maybe("maxOutputTokens", ask.max_output);
    for (name, digits) in [
        ("temperature", ask.temperature),
        ("topP", ask.top_p),
        ("topK", ask.top_k.map(|given| given.it)),
        ("presencePenalty", ask.presence.map(|given| given.it)),
        ("frequencyPenalty", ask.frequency.map(|given| given.it)),
        ("seed", ask.seed),
    ] {
        if let Some(digits) = digits {
            o.raw(name, digits);
        }
    }
    o.maybe("stopSequences", ask.stop.as_ref().map(|given| &given.it));
    if let Some(Given { it, .. }) = &ask.format {
        o.put("responseMimeType", "application/json");
        if let Format::Schema { schema, .. } = it {
            o.raw("responseJsonSchema", schema);
        }
    }
    if ask.think != Think::Unsaid {
        o.object("thinkingConfig", |o| thinking(o, ask.think, target.model, newer));
    }
}

/// Levels since the third generation, budgets before.
fn thinking(o: &mut Members<'_>, think: Think, model: &str, newer: bool) {
    let small = model.contains("flash");
    if newer {
        let effort = match think {
            Think::Unsaid | Think::Auto => None,
            Think::Off => Some(Effort::Minimal),
            Think::Effort(effort) => Some(effort),
            Think::Budget(tokens) => Some(Effort::of_budget(tokens)),
        };
        o.maybe(
            "thinkingLevel",
            effort.map(|effort| match effort {
                Effort::Minimal if small => "minimal",
                Effort::Minimal | Effort::Low => "low",
                Effort::Medium => "medium",
                Effort::High | Effort::XHigh | Effort::Max => "high",
            }),
        );
    } else {
        match think {
            Think::Unsaid => {}
            Think::Off if small => o.put("thinkingBudget", 0),
            Think::Off => o.put("thinkingBudget", LEAST_BUDGET),
            Think::Auto => o.put("thinkingBudget", -1),
            Think::Effort(effort) => o.put("thinkingBudget", effort.budget().min(MOST_BUDGET)),
            Think::Budget(tokens) => o.put("thinkingBudget", tokens.clamp(LEAST_BUDGET, MOST_BUDGET)),
        }
    }
    if think != Think::Off {
        o.put("includeThoughts", true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_read_from_names() {
        assert_eq!(generation("gemini-2.5-pro"), 2);
        assert_eq!(generation("models/gemini-3-flash-preview"), 3);
        assert_eq!(generation("gemini-flash-latest"), u32::MAX);
        assert_eq!(generation("gemma-3"), 0);
    }
}
