//! A batch of live events as bytes. Pure.
//!
//! ```text
//! version 1 · epoch u64 · follows · lost · born · instance          what may change until it is sent
//! first · last · base ms · names · events                           what was packed when it happened
//! ```
//! Numbers are varints, names are packed once a batch and then named by their place. An event begins with its length, so
//! that what later builds add at its end is skipped. Another version is skipped as a whole and counted. Bytes from Redis
//! are hostile: whatever they are, reading them ends, allocates no more than they weigh (times a constant) and never panics.

use crate::base::{KeyId, RequestId};
use crate::state::bus::{Entry, FarDone, FarEvent, Item, Tokens, View, What};
use std::collections::HashMap;
use std::sync::Arc;

/// What this build writes, and all it reads.
const VERSION: u8 = 1;

/// Bytes of a name at most; longer ones are cut. A model's name comes from the client, so it may be anything.
const NAME: usize = 512;

/// Events in a batch at most, written or read.
pub(super) const MOST: usize = 256;

/// Bytes of a batch that is read at most.
const LARGEST: usize = 4 << 20;

const DONE: u64 = 1;
const STREAM: u64 = 1 << 1;
const CLIENT_ID: u64 = 1 << 2;
const KEY: u64 = 1 << 3;
const ACCOUNT: u64 = 1 << 4;
const MODEL: u64 = 1 << 5;
const OTHER_EPOCH: u64 = 1 << 6;
const COST: u64 = 1 << 7;
const FIRST_BYTE: u64 = 1 << 8;
const ERROR: u64 = 1 << 9;

/// Packed events, and what may still change about them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Batch {
    /// The number it follows: whatever lies between was left out on purpose.
    pub(super) prev: u64,
    /// Its last number.
    pub(super) last: u64,
    /// Events in it.
    pub(super) count: usize,
    /// Events lost for good between `prev` and its first.
    pub(super) lost: u64,
    /// When the stream first took it, in Redis' ms; 0: not yet.
    pub(super) born: u64,
    /// Does not go on from the batch before it: nothing was sent in between.
    pub(super) fresh: bool,
    body: Box<[u8]>,
}

/// Why a batch is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// A version that is not known here.
    Version,
    /// It can't be read.
    Broken,
}

impl Batch {
    /// Packs events (at least one, at most [`MOST`], numbers rising) that follow number `prev`.
    pub(super) fn pack<'a>(epoch: u64, prev: u64, events: impl Iterator<Item = (u64, View<'a>)>) -> Option<Self> {
        let mut names = Names::default();
        let mut packed = Vec::with_capacity(1024);
        let mut one = Vec::with_capacity(128);
        let (mut first, mut last, mut base_ms, mut count) = (None, prev, 0, 0);
        for (seq, view) in events {
            if first.is_none() {
                (first, last, base_ms) = (Some(seq), seq, view.unix_ms);
            }
            one.clear();
            put(&mut one, seq - last);
            pack_event(&mut one, &mut names, &view, epoch, base_ms);
            put(&mut packed, one.len() as u64);
            packed.extend_from_slice(&one);
            last = seq;
            count += 1;
        }
        let first = first?;
        let mut body = Vec::with_capacity(packed.len() + names.bytes + 32);
        put(&mut body, first);
        put(&mut body, last);
        put(&mut body, base_ms);
        put(&mut body, names.all.len() as u64);
        for name in &names.all {
            text(&mut body, name);
        }
        put(&mut body, count as u64);
        body.extend_from_slice(&packed);
        Some(Self { prev, last, count, lost: 0, born: 0, fresh: false, body: body.into() })
    }

    /// As it is sent. `epoch` and `instance`: who wrote it.
    pub(super) fn bytes(&self, epoch: u64, instance: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 64);
        out.push(VERSION);
        out.extend_from_slice(&epoch.to_le_bytes());
        for number in [self.prev, self.lost, self.born] {
            put(&mut out, number);
        }
        text(&mut out, instance);
        out.extend_from_slice(&self.body);
        out
    }

    /// Bytes it holds.
    pub(super) fn weight(&self) -> usize {
        self.body.len() + size_of::<Self>()
    }
}

/// Reads a batch that the stream took at `ms`. The entries stand in the writer's order.
pub(super) fn read(bytes: &[u8], ms: u64) -> Result<Vec<Entry>, Skip> {
    match bytes.first() {
        Some(&VERSION) if bytes.len() <= LARGEST => {}
        Some(&version) if version != VERSION => return Err(Skip::Version),
        _ => return Err(Skip::Broken),
    }
    unpack(&bytes[1..], ms).ok_or(Skip::Broken)
}

fn unpack(bytes: &[u8], ms: u64) -> Option<Vec<Entry>> {
    let mut from = Reader(bytes);
    let epoch = from.fixed()?;
    let (prev, lost, born) = (from.number()?, from.number()?, from.number()?);
    let instance: Arc<str> = from.text()?.into();
    let (first, last, base_ms) = (from.number()?, from.number()?, from.number()?);
    if epoch == 0 || first <= prev || last < first {
        return None;
    }
    let ms = if born > 0 { born } else { ms };
    let names = from.count()?;
    let names: Vec<Arc<str>> = (0..names).map(|_| from.text().map(Arc::from)).collect::<Option<_>>()?;
    let count = from.count().filter(|count| (1..=MOST).contains(count))?;
    let mut entries = Vec::with_capacity(count + 1);
    let mut before = prev;
    if lost > 0 && first - 1 > prev {
        entries.push(Entry { epoch, prev, seq: first - 1, ms, what: What::Lost(lost) });
        before = first - 1;
    }
    let mut seq = first;
    for n in 0..count {
        let length = from.count()?;
        let mut one = Reader(from.take(length)?);
        let step = one.number()?;
        if (step == 0) != (n == 0) {
            return None;
        }
        seq = seq.checked_add(step)?;
        let event = unpack_event(&mut one, &names, &instance, epoch, base_ms)?;
        entries.push(Entry { epoch, prev: before, seq, ms, what: What::Event(Item::Far(Arc::new(event))) });
        before = seq;
    }
    (seq == last).then_some(entries)
}

fn pack_event<'a>(out: &mut Vec<u8>, names: &mut Names<'a>, event: &View<'a>, epoch: u64, base_ms: u64) {
    let done = event.done.as_ref();
    let flags = [
        (DONE, done.is_some()),
        (STREAM, event.stream),
        (CLIENT_ID, event.client_request_id.is_some()),
        (KEY, event.key.is_some()),
        (ACCOUNT, event.account.is_some()),
        (MODEL, event.model.is_some()),
        (OTHER_EPOCH, event.request.epoch != epoch),
        (COST, done.is_some_and(|done| done.cost_nanos.is_some())),
        (FIRST_BYTE, done.is_some_and(|done| done.first_byte_micros.is_some())),
        (ERROR, done.is_some_and(|done| done.error.is_some())),
    ];
    put(out, flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum());
    if event.request.epoch != epoch {
        out.extend_from_slice(&event.request.epoch.to_le_bytes());
    }
    put(out, event.request.n);
    let later = event.unix_ms.wrapping_sub(base_ms).cast_signed();
    put(out, ((later << 1) ^ (later >> 63)).cast_unsigned());
    if let Some(id) = event.client_request_id {
        text(out, id);
    }
    if let Some((id, name)) = event.key {
        out.extend_from_slice(&id.0.to_le_bytes());
        names.put(out, name);
    }
    names.put(out, event.dialect);
    names.put(out, event.requested_model);
    if let Some((provider, label)) = event.account {
        names.put(out, provider);
        names.put(out, label);
    }
    if let Some(model) = event.model {
        names.put(out, model);
    }
    let Some(done) = done else { return };
    put(out, u64::from(done.status));
    names.put(out, done.cache);
    put(out, u64::from(done.attempts));
    let tokens = done.tokens;
    for count in [tokens.prompt, tokens.completion, tokens.cache_read, tokens.cache_write, tokens.reasoning] {
        put(out, u64::from(count));
    }
    put(out, done.latency_micros);
    put(out, done.overhead_micros);
    done.cost_nanos.into_iter().chain(done.first_byte_micros).for_each(|number| put(out, number));
    if let Some(error) = done.error {
        names.put(out, error);
    }
}

fn unpack_event(
    from: &mut Reader<'_>,
    names: &[Arc<str>],
    instance: &Arc<str>,
    epoch: u64,
    base_ms: u64,
) -> Option<FarEvent> {
    let flags = from.number()?;
    let has = |flag: u64| flags & flag != 0;
    let name = |from: &mut Reader<'_>| names.get(usize::try_from(from.number()?).ok()?).cloned();
    let request = RequestId { epoch: if has(OTHER_EPOCH) { from.fixed()? } else { epoch }, n: from.number()? };
    let later = from.number()?;
    let unix_ms = base_ms.wrapping_add((later >> 1) ^ (later & 1).wrapping_neg());
    Some(FarEvent {
        instance: Arc::clone(instance),
        request,
        unix_ms,
        client_request_id: if has(CLIENT_ID) { Some(from.text()?.into()) } else { None },
        key: if has(KEY) { Some((KeyId(from.fixed()?), name(from)?)) } else { None },
        dialect: name(from)?,
        stream: has(STREAM),
        requested_model: name(from)?,
        account: if has(ACCOUNT) { Some((name(from)?, name(from)?)) } else { None },
        model: if has(MODEL) { Some(name(from)?) } else { None },
        done: if has(DONE) {
            let status = u16::try_from(from.number()?).ok()?;
            let cache = name(from)?;
            let attempts = u16::try_from(from.number()?).ok()?;
            let mut counts = [0; 5];
            for count in &mut counts {
                *count = u32::try_from(from.number()?).ok()?;
            }
            let [prompt, completion, cache_read, cache_write, reasoning] = counts;
            let (latency_micros, overhead_micros) = (from.number()?, from.number()?);
            Some(FarDone {
                status,
                cache,
                attempts,
                tokens: Tokens { prompt, completion, cache_read, cache_write, reasoning },
                cost_nanos: if has(COST) { Some(from.number()?) } else { None },
                latency_micros,
                first_byte_micros: if has(FIRST_BYTE) { Some(from.number()?) } else { None },
                overhead_micros,
                error: if has(ERROR) { Some(name(from)?) } else { None },
            })
        } else {
            None
        },
    })
}

/// Names by their place.
#[derive(Default)]
struct Names<'a> {
    places: HashMap<&'a str, u64, ahash::RandomState>,
    all: Vec<&'a str>,
    bytes: usize,
}

impl<'a> Names<'a> {
    fn put(&mut self, out: &mut Vec<u8>, name: &'a str) {
        let name = cut(name);
        let place = *self.places.entry(name).or_insert_with(|| {
            self.all.push(name);
            self.bytes += name.len() + 2;
            self.all.len() as u64 - 1
        });
        put(out, place);
    }
}

fn cut(name: &str) -> &str {
    let mut end = name.len().min(NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn text(out: &mut Vec<u8>, text: &str) {
    let text = cut(text);
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// LEB128.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.0.split_off_first()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A number of things that follow, each a byte at least: no more than there are bytes.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    fn fixed(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        self.0.split_off(..length)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.count().filter(|length| *length <= NAME)?;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
