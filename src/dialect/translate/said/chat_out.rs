//! Writes an answer as `/v1/chat/completions`: whole, or chunk by chunk up to `[DONE]`.
//!
//! Thoughts go out as `reasoning_content`, the name most clients look for; a Gemini call's seal where Google's own
//! OpenAI-compatible endpoint puts it.

use super::super::out::{Members, object};
use super::{Event, Facts, Finish, Item, Said, call_id, finish};
use crate::base::Error;
use crate::dialect::Endpoint;
use crate::dialect::errors::error_event;
use crate::dialect::usage::Usage;

/// One stream's writer.
#[derive(Debug)]
pub(in super::super) struct Writer {
    facts: Facts,
    begun: bool,
    calls: bool,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

/// A whole answer.
pub(in super::super) fn whole(said: &Said, facts: &Facts) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let text = said.joined(|item| if let Item::Text(text) = item { Some(text) } else { None });
    let refusal = said.joined(|item| if let Item::Refusal(text) = item { Some(text) } else { None });
    let thought = said.joined(|item| if let Item::Thought { text, .. } = item { Some(text) } else { None });
    let calls: Vec<&Item> = said.items.iter().filter(|item| matches!(item, Item::Call { .. })).collect();
    object(&mut out, |o| {
        head(o, facts, said.model.as_deref(), "chat.completion");
        o.array("choices", |list| {
            list.object(|o| {
                o.put("index", 0);
                o.object("message", |o| {
                    o.put("role", "assistant");
                    o.put("content", (!text.is_empty() || calls.is_empty() && refusal.is_empty()).then_some(text));
                    o.put("refusal", (!refusal.is_empty()).then_some(refusal));
                    o.maybe("reasoning_content", (!thought.is_empty()).then_some(thought));
                    if calls.is_empty() {
                        return;
                    }
                    o.array("tool_calls", |list| {
                        for item in calls {
                            let Item::Call { id, name, args, seal } = item else { continue };
                            let args = if args.is_empty() { "{}" } else { args };
                            list.object(|o| call(o, id, name, args, seal.as_deref()));
                        }
                    });
                });
                o.put("logprobs", ());
                o.put("finish_reason", word(&said.finish()));
            });
        });
        if let Some(used) = &said.usage {
            o.object("usage", |o| usage(o, used));
        }
    });
    out
}

impl Writer {
    pub(in super::super) fn new(facts: Facts) -> Self {
        Self { facts, begun: false, calls: false, finish: None, usage: None }
    }

    pub(in super::super) fn event(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start(model) => {
                if let Some(model) = model {
                    self.facts.model = model.into_owned();
                }
                self.begin(out);
            }
            Event::Text(text) => self.delta(out, |o| o.put("content", text)),
            Event::Refusal(text) => self.delta(out, |o| o.put("refusal", text)),
            Event::Thought(text) => self.delta(out, |o| o.put("reasoning_content", text)),
            Event::Call { n, id, name, seal } => {
                self.calls = true;
                let id = call_id(&self.facts, n, id.as_deref());
                self.delta(out, |o| {
                    o.array("tool_calls", |list| {
                        list.object(|o| {
                            o.put("index", n);
                            call(o, &id, &name, "", seal.as_deref());
                        });
                    });
                });
            }
            Event::Args(n, more) => self.delta(out, |o| {
                o.array("tool_calls", |list| {
                    list.object(|o| {
                        o.put("index", n);
                        o.object("function", |o| o.put("arguments", more));
                    });
                });
            }),
            Event::Finish(finish) => self.finish = Some(finish),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Sealed(_) | Event::Failed(_) | Event::End => {}
        }
    }

    pub(in super::super) fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        let reason = word(&finish(self.finish.as_ref(), self.calls));
        self.chunk(out, |o| o.object("delta", |_| {}), Some(reason));
        if self.facts.include_usage
            && let Some(used) = self.usage
        {
            out.extend_from_slice(b"data: ");
            object(out, |o| {
                head(o, &self.facts, None, "chat.completion.chunk");
                o.array("choices", |_| {});
                o.object("usage", |o| usage(o, &used));
            });
            out.extend_from_slice(b"\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    #[expect(clippy::unused_self, reason = "every writer has one, and others need it")]
    pub(in super::super) fn error(&mut self, error: &Error, out: &mut Vec<u8>) {
        out.extend_from_slice(&error_event(Endpoint::Chat, error));
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            let first = |o: &mut Members<'_>| {
                o.put("role", "assistant");
                o.put("content", "");
            };
            self.chunk(out, |o| o.object("delta", first), None);
        }
    }

    fn delta(&mut self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Members<'_>)) {
        self.begin(out);
        self.chunk(out, |o| o.object("delta", fill), None);
    }

    fn chunk(&self, out: &mut Vec<u8>, delta: impl FnOnce(&mut Members<'_>), reason: Option<&str>) {
        out.extend_from_slice(b"data: ");
        object(out, |o| {
            head(o, &self.facts, None, "chat.completion.chunk");
            o.array("choices", |list| {
                list.object(|o| {
                    o.put("index", 0);
                    delta(o);
                    o.put("logprobs", ());
                    o.put("finish_reason", reason);
                });
            });
            // Only a stream that was asked for usage has the key at all.
            if self.facts.include_usage {
                o.put("usage", ());
            }
        });
        out.extend_from_slice(b"\n\n");
    }
}

fn head(o: &mut Members<'_>, facts: &Facts, model: Option<&str>, kind: &str) {
    o.put("id", format!("chatcmpl-{}", facts.id));
    o.put("object", kind);
    o.put("created", facts.created);
    o.put("model", model.unwrap_or(&facts.model));
}

fn call(o: &mut Members<'_>, id: &str, name: &str, args: &str, seal: Option<&str>) {
    o.put("id", id);
    o.put("type", "function");
    o.object("function", |o| {
        o.put("name", name);
        o.put("arguments", args);
    });
    if let Some(seal) = seal {
        o.object("extra_content", |o| o.object("google", |o| o.put("thought_signature", seal)));
    }
}

fn word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Sequence(_) => "stop",
        Finish::Length => "length",
        Finish::Tools => "tool_calls",
        Finish::Filter => "content_filter",
    }
}

fn usage(o: &mut Members<'_>, usage: &Usage) {
    o.put("prompt_tokens", usage.prompt);
    o.put("completion_tokens", usage.completion);
    o.put("total_tokens", usage.prompt.saturating_add(usage.completion));
    o.object("prompt_tokens_details", |o| o.put("cached_tokens", usage.cache_read));
    o.object("completion_tokens_details", |o| o.put("reasoning_tokens", usage.reasoning));
}
