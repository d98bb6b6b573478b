//! A chat request in nobody's dialect: what all of them can say, and where in the caller's words it was said.
//!
//! Texts, schemas and arguments are the caller's own bytes wherever they needed no unescaping. Fields that change
//! nothing about the answer are not here: readers leave them out. Fields that would, and that no other dialect has,
//! readers refuse; those that some have and some lack are kept with their name, and writers refuse.

pub(super) mod chat_in;
pub(super) mod chat_out;
pub(super) mod generate_in;
pub(super) mod generate_out;
pub(super) mod messages_in;
pub(super) mod messages_out;
pub(super) mod responses_in;
pub(super) mod schema;

use super::seal::{Origin, Seal};
use std::borrow::Cow;

/// A value and the caller's name for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Given<T> {
    pub(super) it: T,
    pub(super) at: &'static str,
}

/// A request.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) system: Vec<Cow<'a, str>>,
    pub(super) turns: Vec<Turn<'a>>,
    pub(super) tools: Vec<Tool<'a>>,
    pub(super) choice: Choice<'a>,
    pub(super) parallel: Option<Given<bool>>,
    pub(super) max_output: Option<u64>,
    pub(super) temperature: Option<&'a str>,
    pub(super) top_p: Option<&'a str>,
    pub(super) top_k: Option<Given<&'a str>>,
    pub(super) presence: Option<Given<&'a str>>,
    pub(super) frequency: Option<Given<&'a str>>,
    pub(super) seed: Option<&'a str>,
    pub(super) stop: Option<Given<Vec<Cow<'a, str>>>>,
    pub(super) format: Option<Given<Format<'a>>>,
    pub(super) think: Think,
    pub(super) user: Option<Cow<'a, str>>,
    /// The caller wants a stream's usage.
    pub(super) include_usage: bool,
}

/// Whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    User,
    Model,
}

/// One speaker's words, until the other one speaks.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) who: Who,
    pub(super) parts: Vec<Part<'a>>,
}

#[derive(Debug)]
pub(super) enum Part<'a> {
    Text(Cow<'a, str>),
    Media(Media<'a>),
    Thought { text: Cow<'a, str>, seal: Option<Seal<'a>> },
    Call(Call<'a>),
    Result(Outcome<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Document,
    Audio,
    Other,
}

/// A picture, a document, a sound.
#[derive(Debug)]
pub(super) struct Media<'a> {
    pub(super) kind: Kind,
    /// Empty: not said (a URL's).
    pub(super) mime: Cow<'a, str>,
    pub(super) data: Data<'a>,
    pub(super) name: Option<Cow<'a, str>>,
    /// Where it stood.
    pub(super) at: String,
}

#[derive(Debug)]
pub(super) enum Data<'a> {
    Base64(Cow<'a, str>),
    Url(Cow<'a, str>),
    Text(Cow<'a, str>),
}

/// A tool call of the model's.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    /// A JSON object.
    pub(super) args: Cow<'a, str>,
    /// Gemini's seal on this very call.
    pub(super) seal: Option<Cow<'a, str>>,
}

/// What a tool said.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) id: Cow<'a, str>,
    /// The tool, where the dialect says it; writers that need it look the call up.
    pub(super) name: Option<Cow<'a, str>>,
    /// Texts and media only.
    pub(super) parts: Vec<Part<'a>>,
    pub(super) failed: bool,
    /// Where it stood.
    pub(super) at: String,
}

#[derive(Debug)]
pub(super) struct Tool<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) description: Option<Cow<'a, str>>,
    /// JSON Schema; `None`: takes nothing.
    pub(super) schema: Option<Cow<'a, str>>,
    pub(super) strict: Option<bool>,
}

/// Which tool the model is to call.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Choice<'a> {
    #[default]
    Unsaid,
    Auto,
    None,
    Any,
    One(Cow<'a, str>),
}

/// The answer's shape.
#[derive(Debug, PartialEq)]
pub(super) enum Format<'a> {
    Json,
    Schema { name: Option<Cow<'a, str>>, description: Option<Cow<'a, str>>, schema: Cow<'a, str>, strict: Option<bool> },
}

/// How long the model is to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Think {
    #[default]
    Unsaid,
    Off,
    /// As it sees fit.
    Auto,
    Effort(Effort),
    /// Tokens.
    Budget(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

/// Who will be asked, as far as it changes how.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The model's name there.
    pub model: &'t str,
    /// The provider's name in the catalogue.
    pub provider: &'t str,
    /// The model's most output tokens; 0: unknown.
    pub max_output: u32,
}

impl Effort {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" => Self::XHigh,
            "max" => Self::Max,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Tokens of thought: Google's own table for OpenAI's words, and Anthropic's advice beyond.
    pub(super) fn budget(self) -> u64 {
        match self {
            Self::Minimal | Self::Low => 1024,
            Self::Medium => 8192,
            Self::High => 24_576,
            Self::XHigh | Self::Max => 32_000,
        }
    }

    /// The word next to a number of tokens.
    pub(super) fn of_budget(tokens: u64) -> Self {
        match tokens {
            0..=4096 => Self::Low,
            4097..=16_384 => Self::Medium,
            _ => Self::High,
        }
    }
}

impl<'a> Ask<'a> {
    /// Adds to whoever speaks; a change of speaker begins a turn.
    pub(super) fn say(&mut self, who: Who, part: Part<'a>) {
        match self.turns.last_mut() {
            Some(turn) if turn.who == who => turn.add(part),
            _ => {
                let mut turn = Turn { who, parts: Vec::new() };
                turn.add(part);
                self.turns.push(turn);
            }
        }
    }

    /// The name of the tool that was called as `id`.
    pub(super) fn called(&self, id: &str) -> Option<&str> {
        self.turns.iter().rev().flat_map(|turn| &turn.parts).find_map(|part| match part {
            Part::Call(call) if call.id == id => Some(&*call.name),
            _ => None,
        })
    }

    /// Keeps only tools of these names: what "one of these" means.
    pub(super) fn keep_tools(&mut self, names: &[Cow<'a, str>]) {
        self.tools.retain(|tool| names.contains(&tool.name));
    }
}

impl<'a> Turn<'a> {
    fn add(&mut self, mut part: Part<'a>) {
        // In dialects that hold no seal on a call it travels as a thought before it.
        if let Part::Call(Call { seal: seal @ None, .. }) = &mut part
            && let Some(Part::Thought { text, seal: before }) = self.parts.last_mut()
            && before.as_ref().is_some_and(|before| before.origin == Origin::Gemini)
        {
            *seal = before.take().map(|before| before.data);
            if text.is_empty() {
                self.parts.pop();
            }
        }
        // Streams are sent back piece by piece: an unsealed thought goes on.
        if let (Some(Part::Thought { text, seal: open @ None }), Part::Thought { text: more, seal }) =
            (self.parts.last_mut(), &part)
        {
            if text.is_empty() {
                text.clone_from(more);
            } else if !more.is_empty() {
                text.to_mut().push_str(more);
            }
            open.clone_from(seal);
            return;
        }
        self.parts.push(part);
    }
}

impl<'a> Media<'a> {
    /// What a data URL or any other URL holds.
    pub(super) fn of_url(url: Cow<'a, str>, kind: Kind, at: String) -> Self {
        let split = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
        let Some((mime, data)) = split.map(|(mime, data)| (mime.len(), data.len())) else {
            return Self { kind, mime: Cow::Borrowed(""), data: Data::Url(url), name: None, at };
        };
        let (mime, data) = match url {
            Cow::Borrowed(url) => (
                Cow::Borrowed(url.get(5..5 + mime).unwrap_or_default()),
                Cow::Borrowed(url.get(url.len() - data..).unwrap_or_default()),
            ),
            Cow::Owned(url) => (
                Cow::Owned(url.get(5..5 + mime).unwrap_or_default().to_owned()),
                Cow::Owned(url.get(url.len() - data..).unwrap_or_default().to_owned()),
            ),
        };
        // `data:application/pdf;name=x.pdf;base64,` names its type before the first semicolon.
        let mime = match mime {
            Cow::Borrowed(mime) => Cow::Borrowed(mime.split(';').next().unwrap_or_default()),
            Cow::Owned(mime) => Cow::Owned(mime.split(';').next().unwrap_or_default().to_owned()),
        };
        Self { kind, mime, data: Data::Base64(data), name: None, at }
    }
}

impl Kind {
    pub(super) fn of_mime(mime: &str) -> Self {
        match mime.split('/').next().unwrap_or_default() {
            "image" => Self::Image,
            "audio" => Self::Audio,
            "text" => Self::Document,
            "application" if mime == "application/pdf" => Self::Document,
            _ => Self::Other,
        }
    }
}

/// Parts' texts as one, where a dialect takes nothing but text.
pub(super) fn joined(parts: &[Part<'_>], between: &str) -> String {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) | Part::Media(Media { data: Data::Text(text), .. }) => Some(&**text),
            _ => None,
        })
        .collect();
    texts.join(between)
}

/// A guess at the request's prompt tokens: a quarter of its text's bytes, and what a picture or a page usually costs.
/// For callers who ask for a count where the provider has no such endpoint.
pub(super) fn estimate(ask: &Ask<'_>) -> u64 {
    /// Anthropic's figure for a picture of a megapixel; a page of a document costs about as much.
    const PICTURE: u64 = 1600;
    fn of_parts(parts: &[Part<'_>]) -> (u64, u64) {
        let (mut bytes, mut tokens) = (0, 0);
        for part in parts {
            match part {
                Part::Text(text) | Part::Thought { text, .. } | Part::Media(Media { data: Data::Text(text), .. }) => {
                    bytes += text.len() as u64;
                }
                Part::Media(_) => tokens += PICTURE,
                Part::Call(call) => bytes += (call.name.len() + call.args.len()) as u64,
                Part::Result(outcome) => {
                    let (more, media) = of_parts(&outcome.parts);
                    bytes += more;
                    tokens += media;
                }
            }
        }
        (bytes, tokens)
    }
    let mut bytes: u64 = ask.system.iter().map(|text| text.len() as u64).sum();
    for tool in &ask.tools {
        let length = |text: &Option<Cow<'_, str>>| text.as_ref().map_or(0, |text| text.len());
        bytes += (tool.name.len() + length(&tool.description) + length(&tool.schema)) as u64;
    }
    let mut tokens = 0;
    for turn in &ask.turns {
        let (more, media) = of_parts(&turn.parts);
        bytes += more;
        // A turn's role and marks.
        tokens += media + 4;
    }
    (bytes.div_ceil(4) + tokens).max(1)
}
