//! Writes JSON straight into bytes, members in the order they are given.
//!
//! Infallible: what serializes here are texts, numbers and flags. Raw JSON is put in as it stands, on one line.

use super::json::one_line;
use serde::Serialize;

/// An object being written.
pub(super) struct Members<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

/// A list being written.
pub(super) struct Items<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

/// Writes an object.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Members<'_>)) {
    out.push(b'{');
    fill(&mut Members { out, first: true });
    out.push(b'}');
}

fn array(out: &mut Vec<u8>, fill: impl FnOnce(&mut Items<'_>)) {
    out.push(b'[');
    fill(&mut Items { out, first: true });
    out.push(b']');
}

fn value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

impl Members<'_> {
    fn key(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        value(self.out, name);
        self.out.push(b':');
    }

    pub(super) fn put(&mut self, name: &str, it: impl Serialize) {
        self.key(name);
        value(self.out, &it);
    }

    /// Nothing where there is nothing.
    pub(super) fn maybe(&mut self, name: &str, it: Option<impl Serialize>) {
        if let Some(it) = it {
            self.put(name, it);
        }
    }

    /// A value that is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.key(name);
        self.out.extend_from_slice(one_line(json).as_bytes());
    }

    pub(super) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Members<'_>)) {
        self.key(name);
        object(self.out, fill);
    }

    pub(super) fn array(&mut self, name: &str, fill: impl FnOnce(&mut Items<'_>)) {
        self.key(name);
        array(self.out, fill);
    }
}

impl Items<'_> {
    fn next(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }

    pub(super) fn object(&mut self, fill: impl FnOnce(&mut Members<'_>)) {
        self.next();
        object(self.out, fill);
    }
}
