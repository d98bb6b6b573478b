//! Writes an answer as `/v1/responses`: whole, or as the numbered events that OpenAI's SDK expects.
//!
//! Each item is announced, filled, closed and at the end repeated with all others, so a stream's text is kept until
//! then. Thoughts are summaries; their seal is the item's encrypted content.

use super::super::out::{Items, Members, object};
use super::super::seal::{Origin, Seal};
use super::{Event, Facts, Finish, Item, Said};
use crate::base::Error;
use crate::dialect::errors::numbered_error_event;
use crate::dialect::usage::Usage;

/// One stream's writer.
#[derive(Debug)]
pub(in super::super) struct Writer {
    facts: Facts,
    said: Said,
    begun: bool,
    /// Events so far.
    sent: u64,
    /// Items announced; the last of them is open if it is one more than those closed.
    announced: usize,
    closed: usize,
    /// Calls begun.
    calls: usize,
}

/// A whole answer.
pub(in super::super) fn whole(said: &Said, facts: &Facts) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    object(&mut out, |o| response(o, said, facts, true));
    out
}

impl Writer {
    pub(in super::super) fn new(facts: Facts) -> Self {
        Self { facts, said: Said::default(), begun: false, sent: 0, announced: 0, closed: 0, calls: 0 }
    }

    pub(in super::super) fn event(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Event::Call { .. } = &event {
            self.calls += 1;
        }
        if let Event::Args(n, _) = &event
            && (*n + 1 != self.calls || !matches!(self.said.items.last(), Some(Item::Call { .. })))
        {
            return Err(super::super::jumbled());
        }
        // A call's seal is an item of its own before it.
        if let Event::Call { seal: Some(data), .. } = &event {
            let seal = Seal { origin: Origin::Gemini, data: data.to_string().into() };
            self.begin(out);
            self.close(out);
            self.said.items.push(Item::Thought { text: String::new(), seal: Some(seal) });
            self.open(out);
        }
        let event = match event {
            Event::Call { n, id, name, .. } => Event::Call { n, id, name, seal: None },
            event => event,
        };
        if !self.said.take(&self.facts, &event) {
            return Err(super::super::too_long());
        }
        match &event {
            Event::Start(_) => self.begin(out),
            // It made a new item.
            _ if self.said.items.len() > self.announced => {
                self.begin(out);
                self.close_before(out);
                self.open(out);
            }
            _ => {}
        }
        let n = self.announced.saturating_sub(1);
        let id = item_id(&self.facts, self.said.items.get(n), n);
        match event {
            Event::Text(text) => self.send(out, "response.output_text.delta", |o| {
                place(o, &id, n);
                o.put("content_index", 0);
                o.put("delta", text);
                o.array("logprobs", |_| {});
            }),
            Event::Refusal(text) => self.send(out, "response.refusal.delta", |o| {
                place(o, &id, n);
                o.put("content_index", 0);
                o.put("delta", text);
            }),
            Event::Thought(text) => self.send(out, "response.reasoning_summary_text.delta", |o| {
                place(o, &id, n);
                o.put("summary_index", 0);
                o.put("delta", text);
            }),
            Event::Args(_, more) => self.send(out, "response.function_call_arguments.delta", |o| {
                place(o, &id, n);
                o.put("delta", more);
            }),
            _ => {}
        }
        Ok(())
    }

    pub(in super::super) fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.close(out);
        let kind = if incomplete(&self.said).is_some() { "response.incomplete" } else { "response.completed" };
        let said = std::mem::take(&mut self.said);
        let facts = self.facts.clone();
        self.send(out, kind, |o| o.object("response", |o| response(o, &said, &facts, true)));
        self.said = said;
    }

    pub(in super::super) fn error(&mut self, error: &Error, out: &mut Vec<u8>) {
        out.extend_from_slice(&numbered_error_event(error, self.sent));
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (empty, facts) = (Said { model: self.said.model.clone(), ..Said::default() }, self.facts.clone());
        for kind in ["response.created", "response.in_progress"] {
            self.send(out, kind, |o| o.object("response", |o| response(o, &empty, &facts, false)));
        }
    }

    /// Announces the newest item.
    fn open(&mut self, out: &mut Vec<u8>) {
        let n = self.said.items.len().saturating_sub(1);
        self.announced = n + 1;
        let Some(last) = self.said.items.last() else { return };
        let id = item_id(&self.facts, Some(last), n);
        let (kind, empty) = match last {
            Item::Text(_) => (Some("output_text"), Item::Text(String::new())),
            Item::Refusal(_) => (Some("refusal"), Item::Refusal(String::new())),
            Item::Thought { .. } => (None, Item::Thought { text: String::new(), seal: None }),
            Item::Call { id, name, .. } => {
                (None, Item::Call { id: id.clone(), name: name.clone(), args: String::new(), seal: None })
            }
        };
        let summary = matches!(last, Item::Thought { text, .. } if !text.is_empty());
        self.send(out, "response.output_item.added", |o| {
            o.put("output_index", n);
            o.object("item", |o| item(o, &empty, &id, "in_progress"));
        });
        if kind.is_some() {
            self.send(out, "response.content_part.added", |o| {
                place(o, &id, n);
                o.put("content_index", 0);
                o.object("part", |o| content(o, &empty));
            });
        }
        if summary {
            self.send(out, "response.reasoning_summary_part.added", |o| {
                place(o, &id, n);
                o.put("summary_index", 0);
                o.object("part", |o| summary_text(o, ""));
            });
        }
    }

    /// Closes what is open when a new item has just been taken.
    fn close_before(&mut self, out: &mut Vec<u8>) {
        let newest = self.said.items.pop();
        self.close(out);
        self.said.items.extend(newest);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.closed == self.announced {
            return;
        }
        self.closed = self.announced;
        let Some(n) = self.announced.checked_sub(1) else { return };
        let items = std::mem::take(&mut self.said.items);
        if let Some(last) = items.get(n) {
            let id = item_id(&self.facts, Some(last), n);
            match last {
                Item::Text(text) => {
                    self.send(out, "response.output_text.done", |o| {
                        place(o, &id, n);
                        o.put("content_index", 0);
                        o.put("text", text);
                        o.array("logprobs", |_| {});
                    });
                    self.part_done(out, last, &id, n);
                }
                Item::Refusal(text) => {
                    self.send(out, "response.refusal.done", |o| {
                        place(o, &id, n);
                        o.put("content_index", 0);
                        o.put("refusal", text);
                    });
                    self.part_done(out, last, &id, n);
                }
                Item::Thought { text, .. } if !text.is_empty() => {
                    self.send(out, "response.reasoning_summary_text.done", |o| {
                        place(o, &id, n);
                        o.put("summary_index", 0);
                        o.put("text", text);
                    });
                    self.send(out, "response.reasoning_summary_part.done", |o| {
                        place(o, &id, n);
                        o.put("summary_index", 0);
                        o.object("part", |o| summary_text(o, text));
                    });
                }
                Item::Thought { .. } => {}
                Item::Call { name, args, .. } => self.send(out, "response.function_call_arguments.done", |o| {
                    place(o, &id, n);
                    o.put("name", name);
                    o.put("arguments", if args.is_empty() { "{}" } else { args });
                }),
            }
            self.send(out, "response.output_item.done", |o| {
                o.put("output_index", n);
                o.object("item", |o| item(o, last, &id, "completed"));
            });
        }
        self.said.items = items;
    }

    fn part_done(&mut self, out: &mut Vec<u8>, last: &Item, id: &str, n: usize) {
        self.send(out, "response.content_part.done", |o| {
            place(o, id, n);
            o.put("content_index", 0);
            o.object("part", |o| content(o, last));
        });
    }

    fn send(&mut self, out: &mut Vec<u8>, kind: &str, fill: impl FnOnce(&mut Members<'_>)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        object(out, |o| {
            o.put("type", kind);
            o.put("sequence_number", self.sent);
            fill(o);
        });
        out.extend_from_slice(b"\n\n");
        self.sent += 1;
    }
}

fn place(o: &mut Members<'_>, id: &str, n: usize) {
    o.put("item_id", id);
    o.put("output_index", n);
}

fn item_id(facts: &Facts, item: Option<&Item>, n: usize) -> String {
    let prefix = match item {
        Some(Item::Thought { .. }) => "rs",
        Some(Item::Call { .. }) => "fc",
        _ => "msg",
    };
    format!("{prefix}_{}_{n}", facts.id)
}

fn item(o: &mut Members<'_>, item: &Item, id: &str, status: &str) {
    o.put("id", id);
    match item {
        Item::Text(text) | Item::Refusal(text) => {
            o.put("type", "message");
            o.put("status", status);
            o.put("role", "assistant");
            o.array("content", |list| {
                if !text.is_empty() || status == "completed" {
                    list.object(|o| content(o, item));
                }
            });
        }
        Item::Thought { text, seal } => {
            o.put("type", "reasoning");
            o.array("summary", |list| {
                if !text.is_empty() {
                    list.object(|o| summary_text(o, text));
                }
            });
            o.maybe("encrypted_content", seal.as_ref().map(Seal::marked));
        }
        Item::Call { id, name, args, .. } => {
            o.put("type", "function_call");
            o.put("status", status);
            o.put("call_id", id);
            o.put("name", name);
            o.put("arguments", if args.is_empty() && status == "completed" { "{}" } else { args });
        }
    }
}

fn content(o: &mut Members<'_>, item: &Item) {
    match item {
        Item::Refusal(text) => {
            o.put("type", "refusal");
            o.put("refusal", text);
        }
        Item::Text(text) => {
            o.put("type", "output_text");
            o.put("text", text);
            o.array("annotations", |_| {});
            o.array("logprobs", |_| {});
        }
        Item::Thought { .. } | Item::Call { .. } => {}
    }
}

fn summary_text(o: &mut Members<'_>, text: &str) {
    o.put("type", "summary_text");
    o.put("text", text);
}

fn incomplete(said: &Said) -> Option<&'static str> {
    match said.finish() {
        Finish::Length => Some("max_output_tokens"),
        Finish::Filter => Some("content_filter"),
        _ => None,
    }
}

/// The response object; without output and numbers while it is not `done`.
fn response(o: &mut Members<'_>, said: &Said, facts: &Facts, done: bool) {
    let why = incomplete(said).filter(|_| done);
    o.put("id", format!("resp_{}", facts.id));
    o.put("object", "response");
    o.put("created_at", facts.created);
    o.put(
        "status",
        if !done {
            "in_progress"
        } else if why.is_some() {
            "incomplete"
        } else {
            "completed"
        },
    );
    o.put("error", ());
    match why {
        Some(reason) => o.object("incomplete_details", |o| o.put("reason", reason)),
        None => o.put("incomplete_details", ()),
    }
    o.put("instructions", ());
    o.put("max_output_tokens", ());
    o.put("model", said.model.as_ref().unwrap_or(&facts.model));
    o.array("output", |list| output(list, said, facts));
    o.put("parallel_tool_calls", true);
    o.put("previous_response_id", ());
    o.object("reasoning", |o| {
        o.put("effort", ());
        o.put("summary", ());
    });
    o.put("store", false);
    o.put("temperature", ());
    o.object("text", |o| o.object("format", |o| o.put("type", "text")));
    o.put("tool_choice", "auto");
    o.array("tools", |_| {});
    o.put("top_p", ());
    o.put("truncation", "disabled");
    match said.usage.filter(|_| done) {
        Some(used) => o.object("usage", |o| usage(o, &used)),
        None => o.put("usage", ()),
    }
    o.put("user", ());
    o.object("metadata", |_| {});
}

fn output(list: &mut Items<'_>, said: &Said, facts: &Facts) {
    // A call's seal is an item of its own; in a stream it is one already.
    let mut n = 0;
    for one in &said.items {
        if let Item::Call { seal: Some(data), .. } = one {
            let seal = Seal { origin: Origin::Gemini, data: data.clone().into() };
            let thought = Item::Thought { text: String::new(), seal: Some(seal) };
            list.object(|o| item(o, &thought, &item_id(facts, Some(&thought), n), "completed"));
            n += 1;
        }
        list.object(|o| item(o, one, &item_id(facts, Some(one), n), "completed"));
        n += 1;
    }
}

fn usage(o: &mut Members<'_>, usage: &Usage) {
    o.put("input_tokens", usage.prompt);
    o.object("input_tokens_details", |o| o.put("cached_tokens", usage.cache_read));
    o.put("output_tokens", usage.completion);
    o.object("output_tokens_details", |o| o.put("reasoning_tokens", usage.reasoning));
    o.put("total_tokens", usage.prompt.saturating_add(usage.completion));
}
