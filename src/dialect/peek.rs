//! The first look at a request's JSON body, without a full parse: model, stream flag, output limit, and where the
//! gateway may write into it.
//!
//! One pass, no allocation but for a model name written with escapes. The same field twice is refused: the gateway
//! and the provider could otherwise read two different requests. Every other failure is a 400 that names its field.

use super::scan::{self, Member, Members, ScanError};
use super::{Dialect, Endpoint};
use crate::base::{Error, ErrorKind};
use std::borrow::Cow;
use std::ops::Range;

/// Longest model name taken, in bytes.
pub const MAX_MODEL_BYTES: usize = 256;

const INCLUDE_USAGE: &str = "stream_options.include_usage";
const GEMINI_LIMIT: &str = "generationConfig.maxOutputTokens";

/// What the gateway needs to know of a body. Ranges are offsets into that body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peek {
    model: Option<Model>,
    /// `stream`; `null` counts as absent.
    pub stream: Option<bool>,
    /// Tokens of output at most, whatever the dialect calls it; the larger one when it is given twice over
    /// (`max_tokens` and `max_completion_tokens`).
    pub max_output: Option<u64>,
    /// `temperature`.
    pub temperature: Option<f64>,
    /// `stream_options`: chat and plain completions only.
    pub stream_options: StreamOptions,
    /// Where the closing brace stands: a member can be written before it.
    pub end: usize,
    /// The object has no member (so a new one needs no comma).
    pub empty: bool,
}

/// What stands at `stream_options`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamOptions {
    /// Nothing.
    #[default]
    Absent,
    /// `null`, here.
    Null(Range<usize>),
    /// An object, here.
    Object {
        /// From brace to brace.
        range: Range<usize>,
        /// It has no member.
        empty: bool,
        /// The value of `include_usage`, if the key is there (`null` counts as `false`), and where it stands.
        include_usage: Option<(bool, Range<usize>)>,
    },
}

/// The model's value: where it stands, quotes included, and its text if that is not what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    range: Range<usize>,
    unescaped: Option<Box<str>>,
}

/// Why a body is refused: always a 400.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeekError {
    /// For the client.
    pub message: Cow<'static, str>,
    /// The field at fault; `None`: the body as a whole.
    pub param: Option<&'static str>,
}

/// Looks at `body`.
pub fn peek(body: &[u8], endpoint: Endpoint) -> Result<Peek, PeekError> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(PeekError::whole("The body starts with a byte order mark; JSON must be sent without it."));
    }
    if scan::only_space(body, 0) {
        return Err(PeekError::whole("The body is empty; a JSON object is needed."));
    }
    let dialect = endpoint.dialect();
    let mut peek = Peek::default();
    let mut seen = 0_u16;
    let mut members = Members::open(body, 0)?;
    while let Some(Member { key, value }) = members.next()? {
        let Some(field) = field(key, dialect)? else { continue };
        if seen & 1 << field as u16 != 0 {
            return Err(PeekError::field(field.name(), "is given more than once"));
        }
        seen |= 1 << field as u16;
        let text = body.get(value.clone()).unwrap_or_default();
        match field {
            Field::Model => peek.model = Some(model(text, value)?),
            Field::Stream => peek.stream = flag(text, "stream")?,
            Field::MaxTokens | Field::MaxCompletionTokens | Field::MaxOutputTokens => {
                let limit = limit(text, field.name(), dialect)?;
                peek.max_output = peek.max_output.max(limit);
            }
            Field::Temperature => peek.temperature = number(text, "temperature")?,
            Field::StreamOptions if matches!(endpoint, Endpoint::Chat | Endpoint::Completions) => {
                peek.stream_options = stream_options(body, value)?;
            }
            Field::StreamOptions => {}
            Field::GenerationConfig => generation_config(body, value, &mut peek)?,
        }
    }
    peek.end = members.at().saturating_sub(1);
    peek.empty = members.empty();
    if !scan::only_space(body, members.at()) {
        return Err(PeekError::whole("The body goes on after its JSON object."));
    }
    Ok(peek)
}

impl Peek {
    /// The model's name as the client wrote it. `body` is the one that was looked at.
    ///
    /// Of a Gemini body this is at most a repetition: there the URL names the model.
    pub fn model<'a>(&'a self, body: &'a [u8]) -> Option<&'a str> {
        let model = self.model.as_ref()?;
        if let Some(text) = &model.unescaped {
            return Some(text);
        }
        let inner = model.range.start + 1..model.range.end.saturating_sub(1);
        std::str::from_utf8(body.get(inner)?).ok()
    }

    /// Where the model's value stands, quotes included.
    pub fn model_range(&self) -> Option<Range<usize>> {
        self.model.as_ref().map(|m| m.range.clone())
    }

    /// Whether the name stands there as it is, without escapes: then any end of it can be kept in place.
    pub(super) fn model_is_plain(&self) -> bool {
        self.model.as_ref().is_some_and(|m| m.unescaped.is_none())
    }

    /// Whether the client itself asks for the usage of a stream.
    pub fn include_usage(&self) -> bool {
        matches!(self.stream_options, StreamOptions::Object { include_usage: Some((true, _)), .. })
    }

    /// `temperature` is given and zero: the same question is meant to have the same answer.
    pub fn temperature_is_zero(&self) -> bool {
        self.temperature == Some(0.0)
    }
}

impl PeekError {
    fn whole(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), param: None }
    }

    fn field(param: &'static str, complaint: &str) -> Self {
        Self { message: format!("`{param}` {complaint}.").into(), param: Some(param) }
    }
}

impl From<ScanError> for PeekError {
    fn from(e: ScanError) -> Self {
        Self::whole(format!("The body is not a JSON object: {} (byte {}).", e.what, e.at))
    }
}

impl From<PeekError> for Error {
    fn from(e: PeekError) -> Self {
        let error = Self::new(ErrorKind::Malformed, e.message);
        match e.param {
            Some(param) => error.param(param),
            None => error,
        }
    }
}

#[derive(Clone, Copy)]
enum Field {
    Model,
    Stream,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    Temperature,
    StreamOptions,
    GenerationConfig,
}

impl Field {
    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::Temperature => "temperature",
            Self::StreamOptions => "stream_options",
            Self::GenerationConfig => "generationConfig",
        }
    }
}

/// The field a key names; `Ok(None)` for one that rides along.
fn field(key: &[u8], dialect: Dialect) -> Result<Option<Field>, PeekError> {
    let plain = plain_key(key)?;
    let key = plain.as_ref();
    let gemini = dialect == Dialect::Gemini;
    Ok(Some(match key {
        b"model" => Field::Model,
        b"generationConfig" | b"generation_config" if gemini => Field::GenerationConfig,
        _ if gemini => return Ok(None),
        b"stream" => Field::Stream,
        b"max_tokens" => Field::MaxTokens,
        b"max_completion_tokens" => Field::MaxCompletionTokens,
        b"max_output_tokens" => Field::MaxOutputTokens,
        b"temperature" => Field::Temperature,
        b"stream_options" => Field::StreamOptions,
        // Servers whose JSON library ignores case would read this as the model, past what the key may ask for.
        _ if key.len() == 5 && key.eq_ignore_ascii_case(b"model") => {
            return Err(PeekError::field("model", "must be written in lower case"));
        }
        _ => return Ok(None),
    }))
}

/// The key with its escapes resolved: `"mod\u0065l"` is `model` to every provider.
fn plain_key(key: &[u8]) -> Result<Cow<'_, [u8]>, PeekError> {
    // Nearly every key is short: a plain loop beats a call into a vector search.
    if !key.contains(&b'\\') {
        return Ok(Cow::Borrowed(key));
    }
    unescape(key)
        .map(|text| Cow::Owned(text.into_bytes()))
        .ok_or_else(|| PeekError::whole("The body is not a JSON object: a key holds a bad escape."))
}

/// Cold: text between quotes, escapes resolved.
#[cold]
fn unescape(inner: &[u8]) -> Option<String> {
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    serde_json::from_slice(&quoted).ok()
}

fn model(text: &[u8], range: Range<usize>) -> Result<Model, PeekError> {
    let bad = |complaint| PeekError::field("model", complaint);
    let inner = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).ok_or_else(|| bad("must be a string"))?;
    // An escape takes six bytes at most for one of the name.
    if inner.len() > MAX_MODEL_BYTES * 6 {
        return Err(bad("is too long"));
    }
    let unescaped = if inner.contains(&b'\\') {
        Some(unescape(inner).ok_or_else(|| bad("holds a bad escape"))?.into_boxed_str())
    } else {
        None
    };
    let name = match &unescaped {
        Some(name) => name,
        None => std::str::from_utf8(inner).map_err(|_| bad("is not valid UTF-8"))?,
    };
    if name.is_empty() {
        return Err(bad("must not be empty"));
    }
    if name.len() > MAX_MODEL_BYTES {
        return Err(bad("is too long"));
    }
    if name.chars().any(char::is_control) {
        return Err(bad("must not hold control characters"));
    }
    Ok(Model { range, unescaped })
}

fn flag(text: &[u8], param: &'static str) -> Result<Option<bool>, PeekError> {
    match text {
        b"true" => Ok(Some(true)),
        b"false" => Ok(Some(false)),
        b"null" => Ok(None),
        _ => Err(PeekError::field(param, "must be true or false")),
    }
}

fn limit(text: &[u8], param: &'static str, dialect: Dialect) -> Result<Option<u64>, PeekError> {
    if text == b"null" {
        return Ok(None);
    }
    // Protobuf's JSON lets an integer stand in quotes.
    let quoted = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\""));
    let digits = quoted.filter(|_| dialect == Dialect::Gemini).unwrap_or(text);
    let whole = scan::whole_number(digits);
    whole.map(Some).ok_or_else(|| PeekError::field(param, "must be a whole number, zero or more"))
}

fn number(text: &[u8], param: &'static str) -> Result<Option<f64>, PeekError> {
    if text == b"null" {
        return Ok(None);
    }
    let number = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok());
    // `parse` also takes `inf` and `nan`, but no JSON value that got here reads so.
    number.map(Some).ok_or_else(|| PeekError::field(param, "must be a number"))
}

fn stream_options(body: &[u8], range: Range<usize>) -> Result<StreamOptions, PeekError> {
    match body.get(range.start) {
        Some(b'n') => return Ok(StreamOptions::Null(range)),
        Some(b'{') => {}
        _ => return Err(PeekError::field("stream_options", "must be an object")),
    }
    let mut include_usage = None;
    let mut members = Members::open(body, range.start)?;
    while let Some(Member { key, value }) = members.next()? {
        if plain_key(key)?.as_ref() == b"include_usage" {
            if include_usage.is_some() {
                return Err(PeekError::field(INCLUDE_USAGE, "is given more than once"));
            }
            let on = flag(body.get(value.clone()).unwrap_or_default(), INCLUDE_USAGE)?;
            include_usage = Some((on.unwrap_or(false), value));
        }
    }
    Ok(StreamOptions::Object { range, empty: members.empty(), include_usage })
}

fn generation_config(body: &[u8], range: Range<usize>, peek: &mut Peek) -> Result<(), PeekError> {
    match body.get(range.start) {
        Some(b'n') => return Ok(()),
        Some(b'{') => {}
        _ => return Err(PeekError::field("generationConfig", "must be an object")),
    }
    let (mut limits, mut temperatures) = (0, 0);
    let mut members = Members::open(body, range.start)?;
    while let Some(Member { key, value }) = members.next()? {
        let text = body.get(value).unwrap_or_default();
        match plain_key(key)?.as_ref() {
            b"maxOutputTokens" | b"max_output_tokens" => {
                limits += 1;
                peek.max_output = limit(text, GEMINI_LIMIT, Dialect::Gemini)?;
            }
            b"temperature" => {
                temperatures += 1;
                peek.temperature = number(text, "generationConfig.temperature")?;
            }
            _ => {}
        }
    }
    if limits > 1 {
        return Err(PeekError::field(GEMINI_LIMIT, "is given more than once"));
    }
    if temperatures > 1 {
        return Err(PeekError::field("generationConfig.temperature", "is given more than once"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "peek_tests.rs"]
mod tests;
