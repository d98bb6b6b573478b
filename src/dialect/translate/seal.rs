//! Seals on a model's thoughts: what a provider must get back untouched, and no other provider may get.
//!
//! A caller's dialect has at most one place for such a thing, so a seal that travels through a foreign dialect says
//! whose it is: `merido.<origin>.<seal>`. One without that word is the caller's own dialect's.

use crate::dialect::Dialect;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// Whose and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal<'a> {
    pub(super) origin: Origin,
    pub(super) data: Cow<'a, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A thinking block's signature.
    Anthropic,
    /// A redacted thinking block's data.
    AnthropicRedacted,
    /// A `thoughtSignature`.
    Gemini,
    /// A thought that came as `reasoning_content`: there is nothing to seal, but it is known whose it is.
    OpenAi,
}

const ORIGINS: [(Origin, &str); 4] = [
    (Origin::Anthropic, "merido.anthropic."),
    (Origin::AnthropicRedacted, "merido.redacted."),
    (Origin::Gemini, "merido.gemini."),
    (Origin::OpenAi, "merido.openai."),
];

impl<'a> Seal<'a> {
    /// What stood in a place for seals of `own`'s.
    pub(super) fn read(text: Cow<'a, str>, own: Dialect) -> Self {
        for (origin, mark) in ORIGINS {
            if let Some(data) = text.strip_prefix(mark) {
                return Self { origin, data: Cow::Owned(data.to_owned()) };
            }
        }
        let origin = match own {
            Dialect::Anthropic => Origin::Anthropic,
            Dialect::Gemini => Origin::Gemini,
            Dialect::OpenAi => Origin::OpenAi,
        };
        Self { origin, data: text }
    }

    /// The same from a place that holds bytes (Gemini's).
    pub(super) fn read_bytes(text: Cow<'a, str>) -> Self {
        // Google's own SDK sends bytes back in the alphabet of URLs.
        let plain = text.replace('-', "+").replace('_', "/");
        let marked = STANDARD.decode(plain).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match marked.filter(|marked| marked.starts_with("merido.")) {
            Some(marked) => Self::read(Cow::Owned(marked), Dialect::Gemini).into_owned(),
            None => Self { origin: Origin::Gemini, data: text },
        }
    }

    /// For a place of a foreign dialect.
    pub(super) fn marked(&self) -> String {
        let mark = ORIGINS.iter().find(|(origin, _)| *origin == self.origin).map_or("", |(_, mark)| mark);
        format!("{mark}{}", self.data)
    }

    /// For a place that holds bytes.
    pub(super) fn marked_bytes(&self) -> String {
        STANDARD.encode(self.marked())
    }

    fn into_owned<'b>(self) -> Seal<'b> {
        Seal { origin: self.origin, data: Cow::Owned(self.data.into_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_finds_its_way_home() {
        for (origin, _) in ORIGINS {
            let seal = Seal { origin, data: Cow::Borrowed("a.b/c=") };
            assert_eq!(Seal::read(seal.marked().into(), Dialect::Gemini), seal);
            assert_eq!(Seal::read_bytes(seal.marked_bytes().into()), seal);
            let odd = Seal { origin, data: Cow::Borrowed("?>?>?>~~~") };
            let sent_back = odd.marked_bytes().replace('+', "-").replace('/', "_");
            assert_eq!(Seal::read_bytes(sent_back.into()), odd);
        }
        assert_eq!(Seal::read("x".into(), Dialect::Anthropic).origin, Origin::Anthropic);
        assert_eq!(Seal::read_bytes("eHg=".into()), Seal { origin: Origin::Gemini, data: "eHg=".into() });
    }
}
