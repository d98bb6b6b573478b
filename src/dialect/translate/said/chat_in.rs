//! Reads what servers of OpenAI's dialect answer to `/v1/chat/completions`.
//!
//! Thoughts come as `reasoning_content` or `reasoning`, calls by index, and some servers give every call index 0 with
//! an id of its own. Only the first choice counts: no more are asked for.

use super::super::json::Obj;
use super::super::seal::{Origin, Seal};
use super::{Event, Finish, provider_failed};
use crate::dialect::Dialect;
use crate::dialect::usage::Raw;
use std::borrow::Cow;

/// Calls in one answer at most.
const MOST_CALLS: usize = 1024;

/// One answer's reader.
#[derive(Debug, Default)]
pub(in super::super) struct Reader {
    started: bool,
    thinking: bool,
    /// The server's index and id of each call, in our order.
    calls: Vec<(u64, Option<Box<str>>)>,
}

impl Reader {
    /// A whole answer; `None`: it is none.
    pub(in super::super) fn whole<'e>(
        &mut self,
        obj: &Obj<'e, 'static>,
        put: &mut impl FnMut(Event<'e>),
    ) -> Option<()> {
        if obj.get("choices").is_none() {
            put(failed(&obj.obj("error")?));
            return Some(());
        }
        let choice = Obj::lax(obj.items("choices").first()?)?;
        put(Event::Start(obj.say("model")));
        self.message(&choice.obj("message")?, put);
        self.rest(obj, &choice, put);
        Some(())
    }

    /// One event's data.
    pub(in super::super) fn chunk<'e>(&mut self, obj: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        if let Some(error) = obj.obj("error") {
            return put(failed(&error));
        }
        if !std::mem::replace(&mut self.started, true) {
            put(Event::Start(obj.say("model")));
        }
        let choices = obj.items("choices");
        let choice = choices.first().and_then(|raw| Obj::lax(raw));
        if let Some(choice) = &choice {
            if choice.get("index").is_some_and(|index| index.get() != "0") {
                return;
            }
            if let Some(delta) = choice.obj("delta") {
                self.message(&delta, put);
            }
            self.rest(obj, choice, put);
        } else {
            self.usage(obj, put);
        }
    }

    fn message<'e>(&mut self, message: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        let some = |text: Option<Cow<'e, str>>| text.filter(|text| !text.is_empty());
        if let Some(text) = some(message.say("reasoning_content")).or_else(|| some(message.say("reasoning"))) {
            self.thinking = true;
            put(Event::Thought(text));
        }
        if let Some(text) = some(message.say("content")) {
            self.thought(put);
            put(Event::Text(text));
        }
        if let Some(text) = some(message.say("refusal")) {
            self.thought(put);
            put(Event::Refusal(text));
        }
        for (place, raw) in message.items("tool_calls").into_iter().enumerate() {
            let Some(call) = Obj::lax(raw) else { continue };
            self.thought(put);
            self.call(place, &call, put);
        }
    }

    /// A thought ends where something else begins.
    fn thought<'e>(&mut self, put: &mut impl FnMut(Event<'e>)) {
        if std::mem::take(&mut self.thinking) {
            put(Event::Sealed(Seal { origin: Origin::OpenAi, data: Cow::Borrowed("") }));
        }
    }

    fn call<'e>(&mut self, place: usize, call: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        let index = call.get("index").and_then(|raw| raw.get().parse().ok()).unwrap_or(place as u64);
        let id = call.say("id").filter(|id| !id.is_empty());
        let function = call.obj("function");
        let known = self.calls.iter().rposition(|(known, own)| {
            *known == index && id.as_deref().is_none_or(|id| own.as_deref().is_none_or(|own| own == id))
        });
        let n = match known {
            Some(n) => n,
            None if self.calls.len() >= MOST_CALLS => return,
            None => {
                self.calls.push((index, id.as_deref().map(Box::from)));
                let name = function.as_ref().and_then(|function| function.say("name")).unwrap_or_default();
                let google = call.obj("extra_content").and_then(|extra| extra.obj("google"));
                let seal = google.and_then(|google| google.say("thought_signature"));
                put(Event::Call { n: self.calls.len() - 1, id, name, seal });
                self.calls.len() - 1
            }
        };
        let args = function.and_then(|function| match function.get("arguments") {
            // Some servers forget to make a text of it.
            Some(raw) if raw.get().starts_with('{') => Some(Cow::Borrowed(raw.get())),
            _ => function.say("arguments"),
        });
        if let Some(args) = args.filter(|args| !args.is_empty()) {
            put(Event::Args(n, args));
        }
    }

    fn rest<'e>(&mut self, obj: &Obj<'e, 'static>, choice: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        if let Some(reason) = choice.say("finish_reason") {
            self.thought(put);
            match &*reason {
                "stop" | "eos" | "end_turn" | "" => put(Event::Finish(Finish::Stop)),
                "length" | "model_length" => put(Event::Finish(Finish::Length)),
                "tool_calls" | "function_call" => put(Event::Finish(Finish::Tools)),
                "content_filter" => put(Event::Finish(Finish::Filter)),
                other => put(provider_failed("", Some(format!("the provider ended its answer with `{other}`").into()))),
            }
        }
        self.usage(obj, put);
    }

    #[expect(clippy::unused_self, reason = "one of the reader's steps")]
    fn usage<'e>(&mut self, obj: &Obj<'e, 'static>, put: &mut impl FnMut(Event<'e>)) {
        let vendor = || obj.obj("x_groq").and_then(|groq| groq.get("usage"));
        if let Some(raw) = obj.get("usage").or_else(vendor).and_then(|raw| Raw::read(raw.get().as_bytes(), 0)) {
            put(Event::Usage(raw.settle(Dialect::OpenAi)));
        }
    }
}

fn failed<'e>(error: &Obj<'_, 'static>) -> Event<'e> {
    let kind = error.say("type").or_else(|| error.say("code")).unwrap_or_default();
    provider_failed(&kind, error.say("message"))
}
