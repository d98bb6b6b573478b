//! From one dialect to another: a request on its way out, an answer on its way back.
//!
//! Everything goes through a neutral form (`ask`, `said`), so that each dialect is read in one place and written in one.
//! Pure: ids and the time come in. What changes an answer's meaning and has no counterpart is refused with a 400 that
//! names the field; what changes nothing is left out (docs/DIALECTS.md lists both). Only requests whose caller and
//! provider differ come here: the same-dialect path never touches a body.

mod ask;
mod json;
mod out;
mod said;
mod seal;
mod stream;

pub use ask::Target;
pub use said::Facts;
pub use stream::StreamTranslator;

use super::{Dialect, Endpoint};
use crate::base::{Error, ErrorKind};
use ask::{Ask, Who};
use bytes::Bytes;
use json::Obj;
use said::Said;

/// Which endpoint of a provider of `dialect` answers what `endpoint` is asked. The same one where they agree; `None`:
/// there is none, the request can only be refused.
pub fn counterpart(endpoint: Endpoint, dialect: Dialect, stream: bool) -> Option<Endpoint> {
    if endpoint.dialect() == dialect {
        return Some(endpoint);
    }
    match endpoint {
        Endpoint::Chat | Endpoint::Responses | Endpoint::Messages | Endpoint::Generate | Endpoint::StreamGenerate => {}
        _ => return None,
    }
    Some(match dialect {
        Dialect::OpenAi => Endpoint::Chat,
        Dialect::Anthropic => Endpoint::Messages,
        Dialect::Gemini if stream => Endpoint::StreamGenerate,
        Dialect::Gemini => Endpoint::Generate,
    })
}

/// `body`, as a caller sent it to `from`, for the provider's endpoint `to`. `usage`: a stream of OpenAI's dialect is
/// asked for its usage.
pub fn request(
    from: Endpoint,
    body: &[u8],
    to: Endpoint,
    target: &Target<'_>,
    stream: bool,
    usage: bool,
) -> Result<Bytes, Error> {
    let ask = read(from, body)?;
    if ask.turns.is_empty() {
        return Err(Error::malformed("The request holds no message."));
    }
    if from == Endpoint::Messages && ask.turns.last().is_some_and(|turn| turn.who == Who::Model) {
        return Err(json::foreign(
            "messages",
            "it ends with the assistant's own words, which only Anthropic continues",
        ));
    }
    let body = match to.dialect() {
        Dialect::OpenAi => ask::chat_out::write(&ask, target, stream, usage)?,
        Dialect::Anthropic => ask::messages_out::write(&ask, target, stream)?,
        Dialect::Gemini => ask::generate_out::write(&ask, target)?,
    };
    Ok(body.into())
}

/// A guess at the prompt tokens of a `count_tokens` request, for providers that can't be asked.
pub fn count_tokens(body: &[u8]) -> Result<Bytes, Error> {
    let tokens = ask::estimate(&read(Endpoint::Messages, body)?);
    let mut out = Vec::new();
    out::object(&mut out, |o| o.put("input_tokens", tokens));
    Ok(out.into())
}

/// The provider's whole answer at `from`, for a caller of `to`.
pub fn answer(from: Endpoint, body: &[u8], to: Endpoint, facts: &Facts) -> Result<Bytes, Error> {
    let unreadable = || Error::new(ErrorKind::UpstreamFailed, "the provider's answer can't be read");
    let obj = json::document(body).and_then(Obj::lax).ok_or_else(unreadable)?;
    let mut said = Said::default();
    let mut fits = true;
    let mut put = |event: said::Event<'_>| fits &= said.take(facts, &event);
    match from.dialect() {
        Dialect::OpenAi => said::chat_in::Reader::default().whole(&obj, &mut put),
        Dialect::Anthropic => said::messages_in::Reader::default().whole(&obj, &mut put),
        Dialect::Gemini => said::generate_in::Reader::default().whole(&obj, &mut put),
    }
    .ok_or_else(unreadable)?;
    if !fits {
        return Err(too_long());
    }
    if let Some(failed) = said.failed {
        return Err(failed);
    }
    Ok(match to {
        Endpoint::Responses => said::responses_out::whole(&said, facts),
        _ => match to.dialect() {
            Dialect::OpenAi => said::chat_out::whole(&said, facts),
            Dialect::Anthropic => said::messages_out::whole(&said, facts),
            Dialect::Gemini => said::generate_out::whole(&said, facts),
        },
    }
    .into())
}

fn read(from: Endpoint, body: &[u8]) -> Result<Ask<'_>, Error> {
    match from {
        Endpoint::Responses => ask::responses_in::read(body),
        _ => match from.dialect() {
            Dialect::OpenAi => ask::chat_in::read(body),
            Dialect::Anthropic => ask::messages_in::read(body),
            Dialect::Gemini => ask::generate_in::read(body),
        },
    }
}

#[cold]
fn too_long() -> Error {
    Error::new(ErrorKind::UpstreamFailed, "the provider's answer is too long to be translated")
}

#[cold]
fn jumbled() -> Error {
    Error::new(ErrorKind::UpstreamFailed, "the provider's stream mixes tool calls in a way that can't be translated")
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hostile_tests;
