//! Reads what Anthropic's dialect answers to `/v1/messages`.
//!
//! Blocks come one after the other, each with an index; usage in two pieces that complete each other.

use super::super::json::{Obj, one_line};
use super::super::seal::{Origin, Seal};
use super::{Event, Finish, provider_failed};
use crate::dialect::Dialect;
use crate::dialect::usage::Raw;

/// One answer's reader.
#[derive(Debug, Default)]
pub(in super::super) struct Reader {
    raw: Option<Raw>,
    calls: usize,
    /// The block that is open is a call.
    in_call: bool,
    /// Of which no argument has come yet.
    no_args: bool,
}

impl Reader {
    /// A whole answer; `None`: it is none.
    pub(in super::super) fn whole<'e>(
        &mut self,
        obj: &Obj<'e, 'static>,
        put: &mut impl FnMut(Event<'e>),
    ) -> Option<()> {
        if obj.say("type").as_deref() == Some("error") {
            put(failed(&obj.obj("error")?));
            return Some(());
        }
        obj.get("content").filter(|raw| raw.get().starts_with('['))?;
        put(Event::Start(obj.say("model")));
        for raw in obj.items("content") {
            let Some(block) = Obj::lax(raw) else { continue };
            self.begin(&block, put);
            if let Some(input) = block.get("input").filter(|_| self.in_call) {
                put(Event::Args(self.calls - 1, one_line(input.get())));
            }
            if let Some(signature) = block.say("signature").filter(|signature| !signature.is_empty()) {
                put(Event::Sealed(Seal { origin: Origin::Anthropic, data: signature }));
            }
        }
        self.usage(obj, put);
        self.finish(obj, put);
        Some(())
    }

    /// One event's data.
    pub(in super::super) fn chunk<'e>(&mut self, obj: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        match obj.say("type").as_deref() {
            Some("message_start") => {
                let Some(message) = obj.obj("message") else { return };
                put(Event::Start(message.say("model")));
                self.usage(&message, put);
            }
            Some("content_block_start") => {
                if let Some(block) = obj.obj("content_block") {
                    self.begin(&block, put);
                }
            }
            Some("content_block_delta") => {
                let Some(delta) = obj.obj("delta") else { return };
                match delta.say("type").as_deref() {
                    Some("text_delta") => delta.say("text").into_iter().for_each(|text| put(Event::Text(text))),
                    Some("thinking_delta") => {
                        delta.say("thinking").into_iter().for_each(|text| put(Event::Thought(text)));
                    }
                    Some("signature_delta") => delta
                        .say("signature")
                        .into_iter()
                        .for_each(|data| put(Event::Sealed(Seal { origin: Origin::Anthropic, data }))),
                    Some("input_json_delta") if self.in_call => {
                        let json = delta.say("partial_json").filter(|json| !json.is_empty());
                        if let Some(json) = json {
                            self.no_args = false;
                            put(Event::Args(self.calls - 1, json));
                        }
                    }
                    _ => {}
                }
            }
            // Elsewhere a call without arguments is a call with an empty object.
            Some("content_block_stop") if self.in_call => {
                self.in_call = false;
                if self.no_args {
                    put(Event::Args(self.calls - 1, "{}".into()));
                }
            }
            Some("message_delta") => {
                self.usage(obj, put);
                if let Some(delta) = obj.obj("delta") {
                    self.finish(&delta, put);
                }
            }
            Some("message_stop") => put(Event::End),
            Some("error") => {
                if let Some(error) = obj.obj("error") {
                    put(failed(&error));
                }
            }
            _ => {}
        }
    }

    fn begin<'e>(&mut self, block: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        self.in_call = false;
        match block.say("type").as_deref() {
            Some("text") => block.say("text").filter(|t| !t.is_empty()).into_iter().for_each(|t| put(Event::Text(t))),
            Some("thinking") => {
                block.say("thinking").filter(|t| !t.is_empty()).into_iter().for_each(|t| put(Event::Thought(t)));
            }
            Some("redacted_thinking") => {
                if let Some(data) = block.say("data") {
                    put(Event::Sealed(Seal { origin: Origin::AnthropicRedacted, data }));
                }
            }
            Some("tool_use") => {
                self.in_call = true;
                self.no_args = true;
                self.calls += 1;
                let name = block.say("name").unwrap_or_default();
                put(Event::Call { n: self.calls - 1, id: block.say("id"), name, seal: None });
            }
            _ => {}
        }
    }

    fn usage<'e>(&mut self, obj: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        if let Some(found) = obj.get("usage").and_then(|raw| Raw::read(raw.get().as_bytes(), 0)) {
            let raw = self.raw.get_or_insert_default();
            raw.grow(found);
            put(Event::Usage(raw.settle(Dialect::Anthropic)));
        }
    }

    #[expect(clippy::unused_self, reason = "one of the reader's steps")]
    fn finish<'e>(&mut self, obj: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        let Some(reason) = obj.say("stop_reason") else { return };
        put(match &*reason {
            "end_turn" => Event::Finish(Finish::Stop),
            "stop_sequence" => {
                let sequence = obj.say("stop_sequence").unwrap_or_default();
                Event::Finish(Finish::Sequence(sequence.into()))
            }
            "max_tokens" | "model_context_window_exceeded" => Event::Finish(Finish::Length),
            "tool_use" => Event::Finish(Finish::Tools),
            "refusal" => Event::Finish(Finish::Filter),
            other => provider_failed("", Some(format!("the provider ended its answer with `{other}`").into())),
        });
    }
}

fn failed<'e>(error: &Obj<'_, 'static>) -> Event<'e> {
    provider_failed(&error.say("type").unwrap_or_default(), error.say("message"))
}
