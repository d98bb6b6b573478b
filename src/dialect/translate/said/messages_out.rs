//! Writes an answer as `/v1/messages`: whole, or as the events that Anthropic's SDKs expect in their order.
//!
//! A stream has one block open at a time; what belongs to another one closes it. Numbers that a provider tells only at
//! its end stand in the last `message_delta`, where they replace those of the beginning.

use super::super::out::{Members, object};
use super::super::seal::{Origin, Seal};
use super::{Event, Facts, Finish, Item, Said, call_id, finish, object_args};
use crate::base::Error;
use crate::dialect::Endpoint;
use crate::dialect::errors::error_event;
use crate::dialect::usage::Usage;

/// One stream's writer.
#[derive(Debug)]
pub(in super::super) struct Writer {
    facts: Facts,
    begun: bool,
    /// The block that is open.
    open: Open,
    /// Blocks begun.
    blocks: usize,
    calls: bool,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    None,
    Text,
    Thinking,
    Call(usize),
}

/// A whole answer.
pub(in super::super) fn whole(said: &Said, facts: &Facts) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    object(&mut out, |o| {
        head(o, facts, said.model.as_deref());
        o.array("content", |list| {
            for item in &said.items {
                match item {
                    Item::Text(text) | Item::Refusal(text) => list.object(|o| {
                        o.put("type", "text");
                        o.put("text", text);
                    }),
                    Item::Thought { text, seal } => {
                        list.object(|o| thought(o, text, seal.as_ref()));
                    }
                    Item::Call { id, name, args, seal } => {
                        if let Some(data) = seal {
                            let seal = Seal { origin: Origin::Gemini, data: data.into() };
                            list.object(|o| thought(o, "", Some(&seal)));
                        }
                        list.object(|o| {
                            o.put("type", "tool_use");
                            o.put("id", id);
                            o.put("name", name);
                            o.raw("input", &object_args(args));
                        });
                    }
                }
            }
        });
        let refused = said.items.iter().any(|item| matches!(item, Item::Refusal(_)));
        reason(o, if refused { &Finish::Filter } else { &Finish::Stop }, said.finish());
        o.object("usage", |o| usage(o, &said.usage.unwrap_or_default()));
    });
    out
}

fn thought(o: &mut Members<'_>, text: &str, seal: Option<&Seal<'_>>) {
    if let Some(Seal { origin: Origin::AnthropicRedacted, data }) = seal {
        o.put("type", "redacted_thinking");
        return o.put("data", data);
    }
    o.put("type", "thinking");
    o.put("thinking", text);
    o.put("signature", seal.map_or_else(String::new, signature));
}

fn signature(seal: &Seal<'_>) -> String {
    if seal.origin == Origin::Anthropic { seal.data.to_string() } else { seal.marked() }
}

/// `refused`: what takes the place of an ordinary end.
fn reason(o: &mut Members<'_>, ordinary: &Finish, said: Finish) {
    let finish = if said == Finish::Stop { ordinary.clone() } else { said };
    o.put(
        "stop_reason",
        match finish {
            Finish::Stop => "end_turn",
            Finish::Sequence(_) => "stop_sequence",
            Finish::Length => "max_tokens",
            Finish::Tools => "tool_use",
            Finish::Filter => "refusal",
        },
    );
    o.put("stop_sequence", if let Finish::Sequence(sequence) = &finish { Some(sequence) } else { None });
}

impl Writer {
    pub(in super::super) fn new(facts: Facts) -> Self {
        Self { facts, begun: false, open: Open::None, blocks: 0, calls: false, finish: None, usage: None }
    }

    pub(in super::super) fn event(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        match event {
            Event::Start(model) => {
                if let Some(model) = model {
                    self.facts.model = model.into_owned();
                }
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Finish(finish) => self.finish = Some(finish),
            Event::Text(text) | Event::Refusal(text) => {
                self.enter(Open::Text, out, |o| {
                    o.put("type", "text");
                    o.put("text", "");
                });
                self.delta(out, "text_delta", "text", &text);
            }
            Event::Thought(text) => {
                self.thinking(out);
                self.delta(out, "thinking_delta", "thinking", &text);
            }
            Event::Sealed(seal) => self.sealed(&seal, out),
            Event::Call { n, id, name, seal } => {
                self.calls = true;
                if let Some(data) = seal {
                    self.close(out);
                    self.sealed(&Seal { origin: Origin::Gemini, data }, out);
                }
                let id = call_id(&self.facts, n, id.as_deref());
                self.enter(Open::Call(n), out, |o| {
                    o.put("type", "tool_use");
                    o.put("id", id);
                    o.put("name", name);
                    o.object("input", |_| {});
                });
            }
            Event::Args(n, more) => {
                if self.open != Open::Call(n) {
                    return Err(super::super::jumbled());
                }
                self.delta(out, "input_json_delta", "partial_json", &more);
            }
            Event::Failed(_) | Event::End => {}
        }
        Ok(())
    }

    pub(in super::super) fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.close(out);
        let (said, used) = (finish(self.finish.as_ref(), self.calls), self.usage.unwrap_or_default());
        named(out, "message_delta", |o| {
            o.object("delta", |o| reason(o, &Finish::Stop, said));
            o.object("usage", |o| usage(o, &used));
        });
        named(out, "message_stop", |_| {});
    }

    #[expect(clippy::unused_self, reason = "every writer has one, and others need it")]
    pub(in super::super) fn error(&mut self, error: &Error, out: &mut Vec<u8>) {
        out.extend_from_slice(&error_event(Endpoint::Messages, error));
    }

    /// Once there is something to say: by then a provider may have told its first numbers.
    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let used = self.usage.unwrap_or_default();
        named(out, "message_start", |o| {
            o.object("message", |o| {
                head(o, &self.facts, None);
                o.array("content", |_| {});
                o.put("stop_reason", ());
                o.put("stop_sequence", ());
                o.object("usage", |o| usage(o, &Usage { completion: 0, reasoning: 0, ..used }));
            });
        });
    }

    fn enter(&mut self, open: Open, out: &mut Vec<u8>, block: impl FnOnce(&mut Members<'_>)) {
        if self.open == open {
            return;
        }
        self.begin(out);
        self.close(out);
        self.open = open;
        named(out, "content_block_start", |o| {
            o.put("index", self.blocks);
            o.object("content_block", block);
        });
        self.blocks += 1;
    }

    fn thinking(&mut self, out: &mut Vec<u8>) {
        self.enter(Open::Thinking, out, |o| {
            o.put("type", "thinking");
            o.put("thinking", "");
            o.put("signature", "");
        });
    }

    fn sealed(&mut self, seal: &Seal<'_>, out: &mut Vec<u8>) {
        if seal.origin == Origin::AnthropicRedacted {
            self.close(out);
            self.enter(Open::Thinking, out, |o| thought(o, "", Some(seal)));
        } else {
            self.thinking(out);
            self.delta(out, "signature_delta", "signature", &signature(seal));
        }
        self.close(out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.open, Open::None) != Open::None {
            named(out, "content_block_stop", |o| o.put("index", self.blocks - 1));
        }
    }

    fn delta(&self, out: &mut Vec<u8>, kind: &str, name: &str, text: &str) {
        named(out, "content_block_delta", |o| {
            o.put("index", self.blocks.saturating_sub(1));
            o.object("delta", |o| {
                o.put("type", kind);
                o.put(name, text);
            });
        });
    }
}

/// An event whose name is its data's `type`.
fn named(out: &mut Vec<u8>, kind: &str, fill: impl FnOnce(&mut Members<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    object(out, |o| {
        o.put("type", kind);
        fill(o);
    });
    out.extend_from_slice(b"\n\n");
}

fn head(o: &mut Members<'_>, facts: &Facts, model: Option<&str>) {
    o.put("id", format!("msg_{}", facts.id));
    o.put("type", "message");
    o.put("role", "assistant");
    o.put("model", model.unwrap_or(&facts.model));
}

/// Anthropic counts what was read from and written to the cache beside the rest.
fn usage(o: &mut Members<'_>, usage: &Usage) {
    o.put("input_tokens", usage.prompt.saturating_sub(usage.cache_read).saturating_sub(usage.cache_write));
    o.put("cache_creation_input_tokens", usage.cache_write);
    o.put("cache_read_input_tokens", usage.cache_read);
    o.put("output_tokens", usage.completion);
}
