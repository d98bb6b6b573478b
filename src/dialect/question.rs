//! Takes a request apart into the last user message's text and everything else.
//!
//! For the similarity cache only (off by default): this parses the whole body, which the hot path never does. What it
//! cannot take apart has no question, and is simply not cached; nor has a request with tools, with pictures or other
//! parts in that message, for several answers, or that goes on from what the provider remembers.

use super::Endpoint;
use serde_json::Value;

/// A request's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The last user message's text; several texts are joined by line ends.
    pub text: String,
    /// Hash of the whole request but for that text: model, `stream`, tools and earlier messages included. Independent
    /// of spacing and of the order of fields.
    pub rest: [u8; 32],
}

/// Fields with which a question is more than its text: tools act, and what the provider remembers we can't compare.
const MORE: [&str; 6] = ["tools", "functions", "mcp_servers", "previous_response_id", "conversation", "background"];

/// Where a text stood: no text of a client's, since those are strings.
const MARK: Value = Value::Bool(true);

/// The question of `body`, if it has one.
pub fn question(endpoint: Endpoint, body: &[u8]) -> Option<Question> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    if MORE.iter().any(|field| body.get(field).is_some_and(is_something)) || several(&body) {
        return None;
    }
    let list = match endpoint {
        Endpoint::Chat | Endpoint::Messages => "messages",
        Endpoint::Responses => "input",
        Endpoint::Generate | Endpoint::StreamGenerate => "contents",
        _ => return None,
    };
    let mut texts = Vec::new();
    match body.get_mut(list)? {
        input @ Value::String(_) if endpoint == Endpoint::Responses => texts.extend(take(input)),
        Value::Array(messages) => {
            let message = messages.iter_mut().rev().find(|message| asks(endpoint, message))?;
            let field = if list == "contents" { "parts" } else { "content" };
            match message.get_mut(field)? {
                content @ Value::String(_) => texts.extend(take(content)),
                Value::Array(parts) => {
                    for part in parts {
                        texts.push(text_of(endpoint, part)?);
                    }
                }
                _ => return None,
            }
        }
        _ => return None,
    }
    let text = texts.join("\n");
    if text.trim().is_empty() {
        return None;
    }
    // A map of values is sorted by key, so equal requests are spelled equally.
    let rest = *blake3::hash(&serde_json::to_vec(&body).ok()?).as_bytes();
    Some(Question { text, rest })
}

/// Not null, not false, not an empty list or object.
fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// Whether it asks for several answers at once: they are meant to differ.
fn several(body: &Value) -> bool {
    let gemini = body.get("generationConfig").and_then(|config| config.get("candidateCount"));
    body.get("n").into_iter().chain(gemini).any(|count| count.as_u64() != Some(1) && !count.is_null())
}

/// Whether a message is the user's. Gemini's may leave the role out.
fn asks(endpoint: Endpoint, message: &Value) -> bool {
    match message.get("role") {
        Some(role) => role == "user",
        None => matches!(endpoint, Endpoint::Generate | Endpoint::StreamGenerate),
    }
}

fn text_of(endpoint: Endpoint, part: &mut Value) -> Option<String> {
    let fits = match endpoint {
        Endpoint::Generate | Endpoint::StreamGenerate => true,
        Endpoint::Responses => part.get("type").is_some_and(|kind| kind == "input_text" || kind == "text"),
        _ => part.get("type").is_some_and(|kind| kind == "text"),
    };
    if fits { take(part.get_mut("text")?) } else { None }
}

fn take(value: &mut Value) -> Option<String> {
    match std::mem::replace(value, MARK) {
        Value::String(text) => Some(text),
        other => {
            *value = other;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(endpoint: Endpoint, body: &str) -> Option<Question> {
        question(endpoint, body.as_bytes())
    }

    #[test]
    fn each_dialect_gives_its_last_user_message() {
        use Endpoint::{Chat, Generate, Messages, Responses};
        for (endpoint, body, text) in [
            (Chat, r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]}"#, "q"),
            (Chat, r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"p"}]}"#, "q"),
            (
                Chat,
                r#"{"n":1,"tools":[],"messages":[{"role":"user","content":[{"type":"text","text":"q"},{"type":"text","text":"r"}]}]}"#,
                "q\nr",
            ),
            (Messages, r#"{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"q"}]}]}"#, "q"),
            (Responses, r#"{"input":"q"}"#, "q"),
            (Responses, r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"q"}]}]}"#, "q"),
            (Generate, r#"{"contents":[{"parts":[{"text":"q"}]}]}"#, "q"),
            (Generate, r#"{"contents":[{"role":"model","parts":[]},{"role":"user","parts":[{"text":"q"}]}]}"#, "q"),
        ] {
            assert_eq!(ask(endpoint, body).map(|q| q.text).as_deref(), Some(text), "{body}");
        }
    }

    #[test]
    fn everything_but_the_text_counts_and_nothing_else_does() {
        let rest = |body: &str| ask(Endpoint::Chat, body).unwrap().rest;
        let one = rest(r#"{"model":"m","messages":[{"role":"user","content":"q"}]}"#);
        assert_eq!(one, rest(r#"{ "messages":[{"content":"other","role":"user"}], "model":"m" }"#));
        for other in [
            r#"{"model":"n","messages":[{"role":"user","content":"q"}]}"#,
            r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"q"}]}"#,
            r#"{"model":"m","messages":[{"role":"user","content":"a"},{"role":"user","content":"q"}]}"#,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"q"}]}]}"#,
        ] {
            assert_ne!(one, rest(other), "{other}");
        }
    }

    #[test]
    fn what_has_no_question_is_none() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"messages":"x"}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":[7,null]}"#,
            r#"{"messages":[{"role":"user"}]}"#,
            r#"{"messages":[{"role":"user","content":" "}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"tool_result","content":"x"}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":7}]}]}"#,
        ] {
            assert_eq!(ask(Endpoint::Messages, body), None, "{body}");
        }
        let asks = r#""messages":[{"role":"user","content":"q"}]"#;
        for more in [r#""tools":[{}]"#, r#""functions":[{}]"#, r#""n":2"#, r#""previous_response_id":"r""#] {
            assert_eq!(ask(Endpoint::Chat, &format!("{{{more},{asks}}}")), None, "{more}");
        }
        let picture = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"q"},{"type":"image_url"}]}]}"#;
        assert_eq!(ask(Endpoint::Chat, picture), None);
        let two = r#"{"generationConfig":{"candidateCount":2},"contents":[{"parts":[{"text":"q"}]}]}"#;
        assert_eq!(ask(Endpoint::Generate, two), None);
        assert_eq!(ask(Endpoint::Embeddings, r#"{"input":"q"}"#), None);
    }
}
