//! What a provider says it counted, read out of its reply without parsing the rest.
//!
//! `prompt` always includes what was read from or written to the provider's cache, and `completion` always includes
//! reasoning: that is how OpenAI counts. Anthropic counts cache reads and writes beside `input_tokens` and Gemini counts
//! thoughts beside the candidates, so they are added here. Unreadable numbers count as not reported.

use super::scan::{self, Member, Members};
use super::{Dialect, Endpoint};
use memchr::memmem::{Finder, FinderRev};
use std::sync::LazyLock;

/// Numbers beyond this are a provider's nonsense: believed, one of them would empty a budget.
const MOST: u64 = 1_000_000_000;

/// Keys looked at near the end of a body before it is walked from its start.
const TRIES: usize = 4;

static NEEDLE_REV: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(b"\"usage"));
/// Finds `"usage"` and `"usageMetadata"`.
pub(super) static NEEDLE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage"));

/// Tokens of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Prompt, cached parts included.
    pub prompt: u64,
    /// Completion, reasoning included.
    pub completion: u64,
    /// The part of `prompt` that was read from the provider's cache.
    pub cache_read: u64,
    /// The part of `prompt` that was written to the provider's cache.
    pub cache_write: u64,
    /// The part of `completion` that was reasoning.
    pub reasoning: u64,
}

/// The usage of a non-streamed reply; `None` when it reports none.
pub fn from_body(endpoint: Endpoint, body: &[u8]) -> Option<Usage> {
    raw_from_body(endpoint, body).map(|raw| raw.settle(endpoint.dialect()))
}

pub(super) fn raw_from_body(endpoint: Endpoint, body: &[u8]) -> Option<Raw> {
    let dialect = endpoint.dialect();
    // Usage nearly always stands at the end. A key of that name deeper inside (a tool call's input is the model's own
    // JSON) must not pass for it, so its depth is told from the end.
    let mut before = body.len();
    for _ in 0..TRIES {
        let at = NEEDLE_REV.rfind(body.get(..before).unwrap_or_default())?;
        before = at;
        if let Some(value) = value_of_key(body, at, dialect)
            && scan::depth_to_end(body, value) == Some(1)
        {
            let raw = Raw::read(body, value);
            if raw.is_some() {
                return raw;
            }
        }
    }
    let mut members = Members::open(body, 0).ok()?;
    let mut found = None;
    while let Some(Member { key, value }) = members.next().ok()? {
        if key == key_name(dialect) {
            found = Raw::read(body, value.start);
        }
    }
    found
}

pub(super) const fn key_name(dialect: Dialect) -> &'static [u8] {
    match dialect {
        Dialect::Gemini => b"usageMetadata",
        _ => b"usage",
    }
}

/// Where the value of the usage key at `at` (its quote) begins; `None` when that is no such key.
pub(super) fn value_of_key(text: &[u8], at: usize, dialect: Dialect) -> Option<usize> {
    // `"x\"usage":` is the end of another key.
    if at > 0 && text.get(at - 1) == Some(&b'\\') {
        return None;
    }
    let name = key_name(dialect);
    let rest = text.get(at + 1..)?.strip_prefix(name)?.strip_prefix(b"\"")?;
    let space = |rest: &[u8]| rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut skipped = space(rest);
    if rest.get(skipped) != Some(&b':') {
        return None;
    }
    skipped += 1;
    skipped += space(rest.get(skipped..)?);
    Some(at + 1 + name.len() + 1 + skipped)
}

/// The numbers as they stood there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Raw {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
    /// Gemini: tool results counted beside the prompt.
    tool_prompt: Option<u64>,
}

impl Raw {
    /// Reads the usage object that begins at `at`; `None` when there is none, or none with a number we know.
    pub(super) fn read(text: &[u8], at: usize) -> Option<Self> {
        if text.get(at) != Some(&b'{') {
            return None;
        }
        let mut raw = Self::default();
        let mut members = Members::open(text, at).ok()?;
        while let Some(Member { key, value }) = members.next().ok()? {
            let start = value.start;
            let place = match key {
                b"prompt_tokens" | b"input_tokens" | b"promptTokenCount" => &mut raw.input,
                b"completion_tokens" | b"output_tokens" | b"candidatesTokenCount" => &mut raw.output,
                b"total_tokens" | b"totalTokenCount" => &mut raw.total,
                b"cache_read_input_tokens" | b"cachedContentTokenCount" | b"prompt_cache_hit_tokens" => {
                    &mut raw.cache_read
                }
                b"cache_creation_input_tokens" => &mut raw.cache_write,
                b"thoughtsTokenCount" => &mut raw.reasoning,
                b"toolUsePromptTokenCount" => &mut raw.tool_prompt,
                b"prompt_tokens_details"
                | b"input_tokens_details"
                | b"completion_tokens_details"
                | b"output_tokens_details" => {
                    raw.details(text, start);
                    continue;
                }
                _ => continue,
            };
            if let Some(n) = number(text.get(value).unwrap_or_default()) {
                *place = Some(n);
            }
        }
        (raw.input.is_some() || raw.output.is_some() || raw.total.is_some()).then_some(raw)
    }

    fn details(&mut self, text: &[u8], at: usize) -> Option<()> {
        if text.get(at) != Some(&b'{') {
            return None;
        }
        let mut members = Members::open(text, at).ok()?;
        while let Some(Member { key, value }) = members.next().ok()? {
            let place = match key {
                b"cached_tokens" => &mut self.cache_read,
                b"cache_write_tokens" => &mut self.cache_write,
                b"reasoning_tokens" => &mut self.reasoning,
                _ => continue,
            };
            if let Some(n) = number(text.get(value).unwrap_or_default()) {
                *place = Some(n);
            }
        }
        Some(())
    }

    /// Takes the larger of each: Anthropic's counts are cumulative, and either of its two events may leave some out.
    pub(super) fn grow(&mut self, other: Self) {
        self.input = self.input.max(other.input);
        self.output = self.output.max(other.output);
        self.total = self.total.max(other.total);
        self.cache_read = self.cache_read.max(other.cache_read);
        self.cache_write = self.cache_write.max(other.cache_write);
        self.reasoning = self.reasoning.max(other.reasoning);
        self.tool_prompt = self.tool_prompt.max(other.tool_prompt);
    }

    pub(super) fn settle(self, dialect: Dialect) -> Usage {
        let or0 = |n: Option<u64>| n.unwrap_or(0);
        let (read, write, reasoning) = (or0(self.cache_read), or0(self.cache_write), or0(self.reasoning));
        let (prompt, completion) = match dialect {
            Dialect::Anthropic => (or0(self.input) + read + write, or0(self.output)),
            Dialect::Gemini => (or0(self.input) + or0(self.tool_prompt), or0(self.output) + reasoning),
            Dialect::OpenAi => {
                // Rerankers and some embedders report only a total.
                let prompt = self.input.unwrap_or_else(|| or0(self.total).saturating_sub(or0(self.output)));
                // Several providers leave reasoning out of the completion, but not out of the total.
                (prompt, or0(self.output).max(or0(self.total).saturating_sub(prompt)))
            }
        };
        Usage {
            prompt,
            completion,
            cache_read: read.min(prompt),
            cache_write: write.min(prompt),
            reasoning: reasoning.min(completion),
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    scan::whole_number(text).filter(|n| *n <= MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(endpoint: Endpoint, body: &str) -> Option<(u64, u64, u64, u64, u64)> {
        from_body(endpoint, body.as_bytes()).map(|u| (u.prompt, u.completion, u.cache_read, u.cache_write, u.reasoning))
    }

    #[test]
    fn each_dialect_counts_its_own_way() {
        let body = r#"{"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}],"usage":{"prompt_tokens":11,
            "completion_tokens":7,"total_tokens":18,"queue_time":0.5,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":3}},"system_fingerprint":null}"#;
        assert_eq!(of(Endpoint::Chat, body), Some((11, 7, 4, 0, 3)));
        let body = r#"{"output":[],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1},"output_tokens":6,
            "output_tokens_details":{"reasoning_tokens":2},"total_tokens":11},"user":null,"metadata":{}}"#;
        assert_eq!(of(Endpoint::Responses, body), Some((5, 6, 1, 0, 2)));
        let body = r#"{"content":[],"usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":30,"output_tokens":4}}"#;
        assert_eq!(of(Endpoint::Messages, body), Some((60, 4, 30, 20, 0)));
        let body = r#"{"candidates":[],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":5,"thoughtsTokenCount":7,
            "cachedContentTokenCount":2,"totalTokenCount":20},"modelVersion":"m"}"#;
        assert_eq!(of(Endpoint::Generate, body), Some((8, 12, 2, 0, 7)));
        assert_eq!(
            of(Endpoint::Embeddings, r#"{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}"#),
            Some((3, 0, 0, 0, 0))
        );
        assert_eq!(of(Endpoint::Rerank, r#"{"results":[],"usage":{"total_tokens":9}}"#), Some((9, 0, 0, 0, 0)));
    }

    #[test]
    fn reasoning_outside_the_completion_is_found_in_the_total() {
        let body = r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}}"#;
        assert_eq!(of(Endpoint::Chat, body), Some((10, 105, 0, 0, 100)));
    }

    #[test]
    fn a_tool_call_cannot_write_its_own_bill() {
        let forged = r#"{"usage":{"input_tokens":1,"output_tokens":2},"content":[{"type":"tool_use","input":{"usage":{"input_tokens":0,"output_tokens":0}}}]}"#;
        assert_eq!(of(Endpoint::Messages, forged), Some((1, 2, 0, 0, 0)));
        let many = format!(
            r#"{{"usage":{{"input_tokens":1,"output_tokens":2}},"content":[{{"input":[{}]}}],"x\"usage":{{"input_tokens":5}}}}"#,
            vec![r#"{"usage":{"output_tokens":0}}"#; 50].join(",")
        );
        assert_eq!(of(Endpoint::Messages, &many), Some((1, 2, 0, 0, 0)));
        let word = r#"{"content":["usage"],"kind":"usage"}"#;
        assert_eq!(of(Endpoint::Messages, word), None);
    }

    #[test]
    fn nonsense_counts_as_not_reported() {
        for body in [
            "",
            "{",
            r#"{"usage"#,
            r#"{"usage":"#,
            r#"{"usage":{"#,
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":[1]}"#,
            r#"{"usage":{"prompt_tokens":-1}}"#,
            r#"{"usage":{"prompt_tokens":1e18}}"#,
            r#"{"usage":{"prompt_tokens":"5"}}"#,
        ] {
            assert_eq!(of(Endpoint::Chat, body), None, "{body}");
        }
        assert_eq!(of(Endpoint::Generate, r#"{"usage":{"prompt_tokens":5}}"#), None);
    }
}
