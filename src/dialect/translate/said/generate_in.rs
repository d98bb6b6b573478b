//! Reads what Gemini answers to `generateContent`, whole or a stream's chunk: they look the same.
//!
//! A call comes whole and without a mark of its own that it was the reason to stop. A prompt that was blocked has no
//! candidate at all.

use super::super::json::{Obj, one_line};
use super::super::seal::{Origin, Seal};
use super::{Event, Finish, provider_failed};
use crate::dialect::Dialect;
use crate::dialect::usage::Raw;

/// One answer's reader.
#[derive(Debug, Default)]
pub(in super::super) struct Reader {
    started: bool,
    calls: usize,
}

impl Reader {
    /// A whole answer; `None`: it is none.
    pub(in super::super) fn whole<'e>(
        &mut self,
        obj: &Obj<'e, 'static>,
        put: &mut impl FnMut(Event<'e>),
    ) -> Option<()> {
        ["candidates", "promptFeedback", "usageMetadata", "error"].iter().find_map(|name| obj.get(name))?;
        self.chunk(obj, put);
        Some(())
    }

    /// One event's data.
    pub(in super::super) fn chunk<'e>(&mut self, obj: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        if let Some(error) = obj.obj("error") {
            return put(provider_failed(&error.say("status").unwrap_or_default(), error.say("message")));
        }
        if !std::mem::replace(&mut self.started, true) {
            put(Event::Start(obj.say("modelVersion")));
        }
        // First: a writer may have to say it at the answer's beginning.
        if let Some(raw) = obj.get("usageMetadata").and_then(|raw| Raw::read(raw.get().as_bytes(), 0)) {
            put(Event::Usage(raw.settle(Dialect::Gemini)));
        }
        if obj.obj("promptFeedback").is_some_and(|feedback| feedback.get("blockReason").is_some()) {
            put(Event::Finish(Finish::Filter));
        }
        let candidates = obj.items("candidates");
        let Some(candidate) = candidates.first().and_then(|raw| Obj::lax(raw)) else { return };
        for raw in candidate.obj("content").map(|content| content.items("parts")).unwrap_or_default() {
            if let Some(part) = Obj::lax(raw) {
                self.part(&part, put);
            }
        }
        if let Some(reason) = candidate.say("finishReason") {
            put(match &*reason {
                "STOP" => Event::Finish(Finish::Stop),
                "MAX_TOKENS" => Event::Finish(Finish::Length),
                "SAFETY"
                | "RECITATION"
                | "LANGUAGE"
                | "BLOCKLIST"
                | "PROHIBITED_CONTENT"
                | "SPII"
                | "IMAGE_SAFETY"
                | "IMAGE_PROHIBITED_CONTENT"
                | "IMAGE_RECITATION"
                | "MODEL_ARMOR" => Event::Finish(Finish::Filter),
                other => provider_failed("", Some(format!("the provider ended its answer with `{other}`").into())),
            });
        }
    }

    fn part<'e>(&mut self, part: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        let seal = part.say("thoughtSignature");
        if let Some(call) = part.obj("functionCall") {
            let n = self.calls;
            self.calls += 1;
            put(Event::Call { n, id: call.say("id"), name: call.say("name").unwrap_or_default(), seal });
            put(Event::Args(n, call.get("args").map_or("{}".into(), |args| one_line(args.get()))));
            return;
        }
        let text = part.say("text").filter(|text| !text.is_empty());
        if part.get("thought").is_some_and(|flag| flag.get() == "true") {
            if let Some(text) = text {
                put(Event::Thought(text));
            }
            // A seal on text is advice; one on a thought ends it.
            if let Some(data) = seal {
                put(Event::Sealed(Seal { origin: Origin::Gemini, data }));
            }
        } else if let Some(text) = text {
            put(Event::Text(text));
        }
    }
}
