//! Writes an answer as Gemini's `generateContent`: whole, or a chunk for each event.
//!
//! A call goes out once it is whole: Gemini's parts hold objects, not pieces of text. A stream is a list of events or,
//! where the caller did not ask for them, one JSON array.

use super::super::out::{Items, Members, object};
use super::super::seal::{Origin, Seal};
use super::{Event, Facts, Finish, Item, MOST_KEPT, Said, call_id, finish, object_args};
use crate::base::Error;
use crate::dialect::Dialect;
use crate::dialect::errors::error_body;
use crate::dialect::usage::Usage;

/// One stream's writer.
#[derive(Debug)]
pub(in super::super) struct Writer {
    facts: Facts,
    /// A chunk went out.
    begun: bool,
    /// The call whose arguments still come.
    call: Option<(usize, Item)>,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

/// A whole answer.
pub(in super::super) fn whole(said: &Said, facts: &Facts) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    object(&mut out, |o| {
        o.array("candidates", |list| {
            list.object(|o| {
                o.object("content", |o| {
                    o.array("parts", |list| said.items.iter().for_each(|item| part(list, item)));
                    o.put("role", "model");
                });
                o.put("finishReason", word(&said.finish()));
                o.put("index", 0);
            });
        });
        tail(o, facts, said.model.as_deref(), said.usage.as_ref());
    });
    out
}

impl Writer {
    pub(in super::super) fn new(facts: Facts) -> Self {
        Self { facts, begun: false, call: None, finish: None, usage: None }
    }

    pub(in super::super) fn event(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let item = match event {
            Event::Start(model) => {
                if let Some(model) = model {
                    self.facts.model = model.into_owned();
                }
                return Ok(());
            }
            Event::Usage(usage) => {
                self.usage = Some(usage);
                return Ok(());
            }
            Event::Finish(finish) => {
                self.finish = Some(finish);
                return Ok(());
            }
            Event::Args(n, more) => {
                let Some((open, Item::Call { args, .. })) = &mut self.call else { return Err(super::super::jumbled()) };
                if *open != n {
                    return Err(super::super::jumbled());
                }
                args.push_str(&more);
                return if args.len() > MOST_KEPT { Err(super::super::too_long()) } else { Ok(()) };
            }
            Event::Call { n, id, name, seal } => {
                self.close(out);
                let id = call_id(&self.facts, n, id.as_deref());
                let seal = seal.map(std::borrow::Cow::into_owned);
                self.call = Some((n, Item::Call { id, name: name.into_owned(), args: String::new(), seal }));
                return Ok(());
            }
            Event::Text(text) | Event::Refusal(text) => Item::Text(text.into_owned()),
            Event::Thought(text) => Item::Thought { text: text.into_owned(), seal: None },
            Event::Failed(_) | Event::End | Event::Sealed(Seal { origin: Origin::OpenAi, .. }) => return Ok(()),
            Event::Sealed(seal) => {
                let seal = Seal { origin: seal.origin, data: seal.data.into_owned().into() };
                Item::Thought { text: String::new(), seal: Some(seal) }
            }
        };
        self.close(out);
        self.chunk(out, Some(&item), None);
        Ok(())
    }

    pub(in super::super) fn end(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let reason = word(&finish(self.finish.as_ref(), false));
        self.chunk(out, None, Some(reason));
        if self.facts.array {
            out.push(b']');
        }
    }

    pub(in super::super) fn error(&mut self, error: &Error, out: &mut Vec<u8>) {
        let body = error_body(Dialect::Gemini, error, "");
        self.open(out);
        out.extend_from_slice(&body);
        out.extend_from_slice(if self.facts.array { b"]" } else { b"\n\n" });
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        let begun = std::mem::replace(&mut self.begun, true);
        out.extend_from_slice(match (self.facts.array, begun) {
            (true, false) => b"[",
            (true, true) => b",\r\n",
            (false, _) => b"data: ",
        });
    }

    /// The call is whole.
    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((_, item)) = self.call.take() {
            self.chunk(out, Some(&item), None);
        }
    }

    fn chunk(&mut self, out: &mut Vec<u8>, item: Option<&Item>, reason: Option<&str>) {
        self.open(out);
        let used = self.usage.filter(|_| reason.is_some());
        object(out, |o| {
            o.array("candidates", |list| {
                list.object(|o| {
                    o.object("content", |o| {
                        o.array("parts", |list| match item {
                            Some(item) => part(list, item),
                            None => list.object(|o| o.put("text", "")),
                        });
                        o.put("role", "model");
                    });
                    o.maybe("finishReason", reason);
                    o.put("index", 0);
                });
            });
            tail(o, &self.facts, None, used.as_ref());
        });
        if !self.facts.array {
            out.extend_from_slice(b"\n\n");
        }
    }
}

fn part(list: &mut Items<'_>, item: &Item) {
    list.object(|o| match item {
        Item::Text(text) | Item::Refusal(text) => o.put("text", text),
        Item::Thought { text, seal } => {
            o.put("text", text);
            o.put("thought", true);
            o.maybe(
                "thoughtSignature",
                seal.as_ref().filter(|seal| seal.origin != Origin::OpenAi).map(|seal| match seal.origin {
                    Origin::Gemini => seal.data.to_string(),
                    _ => seal.marked_bytes(),
                }),
            );
        }
        Item::Call { id, name, args, seal } => {
            o.object("functionCall", |o| {
                o.put("id", id);
                o.put("name", name);
                o.raw("args", &object_args(args));
            });
            o.maybe("thoughtSignature", seal.as_ref());
        }
    });
}

fn word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Sequence(_) | Finish::Tools => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Filter => "SAFETY",
    }
}

fn tail(o: &mut Members<'_>, facts: &Facts, model: Option<&str>, usage: Option<&Usage>) {
    if let Some(usage) = usage {
        o.object("usageMetadata", |o| {
            o.put("promptTokenCount", usage.prompt);
            o.put("candidatesTokenCount", usage.completion.saturating_sub(usage.reasoning));
            o.put("totalTokenCount", usage.prompt.saturating_add(usage.completion));
            if usage.cache_read > 0 {
                o.put("cachedContentTokenCount", usage.cache_read);
            }
            if usage.reasoning > 0 {
                o.put("thoughtsTokenCount", usage.reasoning);
            }
        });
    }
    o.put("modelVersion", model.unwrap_or(&facts.model));
    o.put("responseId", &facts.id);
}
