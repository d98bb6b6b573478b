//! Reads JSON by hand, one level at a time: what is not looked at stays the text it was.
//!
//! Numbers keep their digits and objects their order, which matters to schemas and to tool calls' arguments. Every
//! complaint is a 400 that names its field in the request's own words (`messages[3].content[0].type`). No recursion of
//! ours follows the document's depth, so hostile input costs an error, never a stack.

use crate::base::Error;
use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Where in the request something stands; a path to the root along the stack.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    parent: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

/// An object's members in their order.
pub(super) struct Obj<'a, 'p> {
    pub(super) at: At<'p>,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl At<'static> {
    pub(super) const ROOT: Self = Self { parent: None, step: Step::Root };
}

impl<'p> At<'p> {
    pub(super) fn key(&'p self, name: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Key(name) }
    }

    pub(super) fn index(&'p self, n: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(n) }
    }

    /// What stands here is wrong.
    #[cold]
    pub(super) fn wrong(&self, complaint: &str) -> Error {
        let path = self.to_string();
        Error::malformed(format!("`{path}` {complaint}.")).param(path)
    }

    /// What stands here has no counterpart in the provider's dialect.
    #[cold]
    pub(super) fn foreign(&self, why: &str) -> Error {
        foreign(self.to_string(), why)
    }
}

/// What stands at `path` has no counterpart in the provider's dialect.
#[cold]
pub(super) fn foreign(path: impl Into<Cow<'static, str>>, why: &str) -> Error {
    let path = path.into();
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    Error::malformed(format!("`{path}` can't be translated for the provider that serves this model{why}.")).param(path)
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(n) => write!(f, "[{n}]"),
            Step::Key(name) if self.parent.is_none_or(|parent| matches!(parent.step, Step::Root)) => f.write_str(name),
            Step::Key(name) => write!(f, ".{name}"),
        }
    }
}

/// The whole document, if it is one.
pub(super) fn document(body: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(body).ok()
}

/// A text; `None`: not a string, or one no Unicode text can be.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw.get()).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A list's items; `None`: not a list.
pub(super) fn list(raw: &RawValue) -> Option<Vec<&RawValue>> {
    struct Items;
    impl<'de> Visitor<'de> for Items {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                items.push(item);
            }
            Ok(items)
        }
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Items).ok()
}

/// An object's members; `None`: not an object.
pub(super) fn members(raw: &RawValue) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                // A key no text can be names nothing we look for.
                members.push((text(key).unwrap_or_default(), value));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_map(Members).ok()
}

/// Whether `text` is one JSON object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// `text` without white space between its tokens, if it holds line ends: what goes into one line of an event.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut quoted, mut escaped) = (String::with_capacity(text.len()), false, false);
    for c in text.chars() {
        if quoted {
            quoted = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            quoted = c == '"';
        }
        out.push(c);
    }
    Cow::Owned(out)
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

impl<'a, 'p> Obj<'a, 'p> {
    /// The object that stands there.
    pub(super) fn read(raw: &'a RawValue, at: At<'p>) -> Result<Self, Error> {
        match members(raw) {
            Some(members) => Ok(Self { at, members }),
            None => Err(at.wrong("must be an object")),
        }
    }

    /// The same where nobody is told what is wrong: in what a provider says.
    pub(super) fn lax(raw: &'a RawValue) -> Option<Obj<'a, 'static>> {
        Some(Obj { at: At::ROOT, members: members(raw)? })
    }

    /// All of it, in order.
    pub(super) fn members(&self) -> &[(Cow<'a, str>, &'a RawValue)] {
        &self.members
    }

    /// A member's value; `null` counts as absent. Of a name given twice the last counts, as everywhere.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value).filter(|raw| !is_null(raw))
    }

    /// The same under either of two spellings.
    pub(super) fn either(&self, camel: &'static str, snake: &'static str) -> Option<(&'static str, &'a RawValue)> {
        self.get(camel).map(|raw| (camel, raw)).or_else(|| self.get(snake).map(|raw| (snake, raw)))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Error> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        text(raw).map(Some).ok_or_else(|| self.at.key(name).wrong("must be a string"))
    }

    pub(super) fn need_text(&self, name: &str) -> Result<Cow<'a, str>, Error> {
        self.text(name)?.ok_or_else(|| self.at.key(name).wrong("is missing"))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.get(name).map(RawValue::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.at.key(name).wrong("must be true or false")),
        }
    }

    /// A number's own digits.
    pub(super) fn number(&self, name: &str) -> Result<Option<&'a str>, Error> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        let is_number = raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if is_number { Ok(Some(raw.get())) } else { Err(self.at.key(name).wrong("must be a number")) }
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        raw.get().parse().map(Some).map_err(|_| self.at.key(name).wrong("must be a whole number, not negative"))
    }

    /// A list's items; none when it is absent.
    pub(super) fn list(&self, name: &str) -> Result<Vec<&'a RawValue>, Error> {
        let Some(raw) = self.get(name) else { return Ok(Vec::new()) };
        list(raw).ok_or_else(|| self.at.key(name).wrong("must be a list"))
    }

    /// Refuses a field that says something: anything but `null`, `false`, and what is empty.
    pub(super) fn refuse(&self, name: &str, why: &str) -> Result<(), Error> {
        match self.get(name).map(RawValue::get) {
            None | Some("false" | "\"\"" | "0" | "0.0") => Ok(()),
            Some(given) if matches!(&*one_space(given), "[]" | "{}") => Ok(()),
            Some(_) => Err(self.at.key(name).foreign(why)),
        }
    }
}

/// A short value without white space.
fn one_space(text: &str) -> Cow<'_, str> {
    if text.len() > 16 { Cow::Borrowed(text) } else { Cow::Owned(text.split_ascii_whitespace().collect()) }
}

/// Members as far as a provider's words have them: nothing is complained of.
impl<'a> Obj<'a, 'static> {
    pub(super) fn say(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    pub(super) fn obj(&self, name: &str) -> Option<Obj<'a, 'static>> {
        Obj::lax(self.get(name)?)
    }

    pub(super) fn items(&self, name: &str) -> Vec<&'a RawValue> {
        self.get(name).and_then(list).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_the_request_does() {
        let root = At::ROOT;
        let (list, name) = (root.key("messages"), "type");
        let (item, part) = (list.index(3), "content");
        let content = item.key(part);
        assert_eq!(content.key(name).to_string(), "messages[3].content.type");
        assert_eq!(root.key("x").wrong("is bad").param.as_deref(), Some("x"));
    }

    #[test]
    fn values_stay_the_text_they_were() {
        let raw = document(br#" {"z":1e400, "a": {"k" : [1 ]},"s":"a\u0041","s":"b", "n":null} "#).unwrap();
        let obj = Obj::read(raw, At::ROOT).unwrap();
        assert_eq!(obj.number("z").unwrap(), Some("1e400"));
        assert_eq!(obj.get("a").unwrap().get(), r#"{"k" : [1 ]}"#);
        assert_eq!((obj.text("s").unwrap().as_deref(), obj.text("n").unwrap()), (Some("b"), None));
        assert_eq!(obj.number("s").unwrap_err().param.as_deref(), Some("s"));
        assert!(document(b"{").is_none() && document(b"{} x").is_none() && document(b"\"\xff\"").is_none());
        assert!(list(document(b"[1,[2]]").unwrap()).unwrap().len() == 2 && list(raw).is_none());
    }

    #[test]
    fn one_line_keeps_what_is_in_quotes() {
        assert_eq!(one_line("{\n \"a b\" :\r\n \"\\\" x\\\\\" }"), r#"{"a b":"\" x\\"}"#);
        assert_eq!(one_line(r#"{ "a": 1 }"#), r#"{ "a": 1 }"#);
        assert!(is_object(" {}") && !is_object("{") && !is_object("[]"));
    }
}
