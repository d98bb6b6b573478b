//! An answer in nobody's dialect: events as they come, and the whole that they make.
//!
//! Readers turn a provider's words into events, writers turn events into the caller's; a whole answer is the same
//! events at once. What a reader does not know it passes over, as the SDKs do.

pub(super) mod chat_in;
pub(super) mod chat_out;
pub(super) mod generate_in;
pub(super) mod generate_out;
pub(super) mod messages_in;
pub(super) mod messages_out;
pub(super) mod responses_out;

use super::seal::Seal;
use crate::base::{Error, ErrorKind};
use crate::dialect::usage::Usage;
use std::borrow::Cow;

/// Most text of one answer that is kept where a caller's dialect repeats it at its end, or takes calls whole.
pub(super) const MOST_KEPT: usize = 8 << 20;

/// What an item takes beside its text, roughly.
const ITEM: usize = 128;

/// What happens in an answer.
#[derive(Debug)]
pub(super) enum Event<'e> {
    /// It began; the provider's name for its model.
    Start(Option<Cow<'e, str>>),
    Text(Cow<'e, str>),
    Refusal(Cow<'e, str>),
    Thought(Cow<'e, str>),
    /// The thought before is over and sealed.
    Sealed(Seal<'e>),
    /// The `n`-th call began; its seal, if it is Gemini's.
    Call {
        n: usize,
        id: Option<Cow<'e, str>>,
        name: Cow<'e, str>,
        seal: Option<Cow<'e, str>>,
    },
    /// More of that call's arguments.
    Args(usize, Cow<'e, str>),
    /// Why it ended; the stream may still bring usage.
    Finish(Finish),
    Usage(Usage),
    /// The provider gave up.
    Failed(Error),
    /// The provider's last word.
    End,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    /// A stop sequence of the caller's.
    Sequence(Box<str>),
    Length,
    Tools,
    Filter,
}

/// What the caller's dialect wants to know of an answer and the provider does not say.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Unique, free of spaces; ids of all kinds are made of it.
    pub id: String,
    /// The model's name, until the provider says another.
    pub model: String,
    /// Unix seconds.
    pub created: u64,
    /// The caller asked for a stream's usage.
    pub include_usage: bool,
    /// The caller takes Gemini's stream as one array.
    pub array: bool,
}

/// A whole answer.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) model: Option<String>,
    pub(super) items: Vec<Item>,
    pub(super) finish: Option<Finish>,
    pub(super) usage: Option<Usage>,
    pub(super) failed: Option<Error>,
    kept: usize,
}

#[derive(Debug)]
pub(super) enum Item {
    Text(String),
    Refusal(String),
    Thought { text: String, seal: Option<Seal<'static>> },
    Call { id: String, name: String, args: String, seal: Option<String> },
}

impl Said {
    /// Takes one event; false: the answer is longer than is kept.
    pub(super) fn take(&mut self, facts: &Facts, event: &Event<'_>) -> bool {
        let before = self.items.len();
        match event {
            Event::Start(model) => {
                if let Some(model) = model {
                    self.model = Some(model.to_string());
                }
            }
            Event::Text(more) => {
                self.kept += more.len();
                match self.items.last_mut() {
                    Some(Item::Text(text)) => text.push_str(more),
                    _ => self.items.push(Item::Text(more.to_string())),
                }
            }
            Event::Refusal(more) => {
                self.kept += more.len();
                match self.items.last_mut() {
                    Some(Item::Refusal(text)) => text.push_str(more),
                    _ => self.items.push(Item::Refusal(more.to_string())),
                }
            }
            Event::Thought(more) => {
                self.kept += more.len();
                match self.items.last_mut() {
                    Some(Item::Thought { text, seal: None }) => text.push_str(more),
                    _ => self.items.push(Item::Thought { text: more.to_string(), seal: None }),
                }
            }
            Event::Sealed(new) => {
                self.kept += new.data.len();
                let owned = Seal { origin: new.origin, data: Cow::Owned(new.data.to_string()) };
                match self.items.last_mut() {
                    Some(Item::Thought { seal: seal @ None, .. }) => *seal = Some(owned),
                    _ => self.items.push(Item::Thought { text: String::new(), seal: Some(owned) }),
                }
            }
            Event::Call { n, id, name, seal } => {
                let id = call_id(facts, *n, id.as_deref());
                self.kept += id.len() + name.len() + seal.as_ref().map_or(0, |seal| seal.len());
                let seal = seal.as_ref().map(ToString::to_string);
                self.items.push(Item::Call { id, name: name.to_string(), args: String::new(), seal });
            }
            Event::Args(n, more) => {
                self.kept += more.len();
                let mut calls = self.items.iter_mut().filter_map(|item| match item {
                    Item::Call { args, .. } => Some(args),
                    _ => None,
                });
                if let Some(args) = calls.nth(*n) {
                    args.push_str(more);
                }
            }
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Failed(error) => self.failed = Some(error.clone()),
            Event::End => {}
        }
        // An empty item takes room as well.
        self.kept += (self.items.len() - before) * ITEM;
        self.kept <= MOST_KEPT
    }

    /// Why it ended, a call being what it ended with where there is one.
    pub(super) fn finish(&self) -> Finish {
        let calls = self.items.iter().any(|item| matches!(item, Item::Call { .. }));
        finish(self.finish.as_ref(), calls)
    }

    /// All texts of the kind that is told apart by `pick`.
    pub(super) fn joined(&self, pick: impl Fn(&Item) -> Option<&str>) -> String {
        self.items.iter().filter_map(pick).collect()
    }
}

/// Servers say `stop` after a call as well; callers' SDKs go by the word.
pub(super) fn finish(said: Option<&Finish>, calls: bool) -> Finish {
    match said {
        None | Some(Finish::Stop) if calls => Finish::Tools,
        Some(Finish::Tools) if !calls => Finish::Stop,
        said => said.cloned().unwrap_or(Finish::Stop),
    }
}

/// A call's own id, or one that is the same whenever this answer is asked.
pub(super) fn call_id(facts: &Facts, n: usize, own: Option<&str>) -> String {
    match own {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("call_{}_{n}", facts.id),
    }
}

/// Arguments as the object they must be: what a model broke off is shown as it stands.
pub(super) fn object_args(args: &str) -> Cow<'_, str> {
    if args.trim_ascii().is_empty() {
        return Cow::Borrowed("{}");
    }
    if super::json::is_object(args) {
        return Cow::Borrowed(args);
    }
    Cow::Owned(serde_json::json!({ "raw_arguments": args }).to_string())
}

/// The provider's own error within an answer that began well.
pub(super) fn provider_failed(kind: &str, message: Option<Cow<'_, str>>) -> Event<'static> {
    let kind = match kind {
        "overloaded_error" | "UNAVAILABLE" | "server_overloaded" => ErrorKind::Overloaded,
        "rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED" => ErrorKind::RateLimited,
        "timeout_error" | "DEADLINE_EXCEEDED" => ErrorKind::UpstreamTimeout,
        _ => ErrorKind::UpstreamFailed,
    };
    let message = message.map_or("the provider failed in the middle of its answer".into(), Cow::into_owned);
    Event::Failed(Error::new(kind, message))
}
