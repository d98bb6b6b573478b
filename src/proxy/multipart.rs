//! Uploads: multipart bodies are relayed as they come, never held whole.
//!
//! The model stands in a form field, which SDKs send before the file; only so much of the body's start is held as it
//! takes to find it ([`LOOK`] at most). What has been sent to one provider can't be sent to another: one attempt.

use super::answer::Answer;
use super::settle::Ticket;
use super::{Proxy, attempt, limit};
use crate::base::Error;
use crate::dialect::estimate;
use crate::server::body::Incoming;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How far into the body the model must stand.
const LOOK: usize = 64 << 10;

impl Proxy {
    pub(super) async fn upload(
        &self,
        parts: Box<Parts>,
        mut incoming: Incoming,
        ticket: &mut Ticket,
    ) -> Result<Answer, Error> {
        let limit = self.shared.settings.max_audio_body_bytes;
        let length = incoming.size_hint().exact();
        if incoming.size_hint().lower() > limit {
            return Err(crate::server::body::too_large(limit));
        }
        let boundary = boundary(&parts)?;
        let mut head = BytesMut::new();
        let range = loop {
            if let Some(range) = model_field(&head, &boundary) {
                break range;
            }
            if head.len() > LOOK {
                return Err(Error::malformed(
                    "the form field `model` must stand before the file, within the first 64 KiB",
                )
                .param("model"));
            }
            let idle = self.shared.settings.timeouts.stream_idle;
            match crate::server::body::frame(&mut incoming, idle).await? {
                Some(data) => head.extend_from_slice(&data),
                None => return Err(Error::malformed("the form field `model` is missing").param("model")),
            }
        };
        let head = head.freeze();
        let model = std::str::from_utf8(&head[range.clone()])
            .ok()
            .filter(|name| !name.is_empty() && name.len() <= 256 && !name.chars().any(char::is_control))
            .ok_or_else(|| Error::malformed("the form field `model` is not a model's name").param("model"))?;
        ticket.requested_model = Arc::from(model);
        ticket.estimate = estimate::prompt_tokens(length.unwrap_or(0).min(1 << 20) as usize);
        limit::take(&self.shared, ticket, ticket.estimate).await?;
        let form = Form { head, range, rest: incoming, length, limit };
        attempt::upload(self, &parts, form, ticket).await
    }
}

/// An upload whose model has been found.
pub(super) struct Form {
    head: Bytes,
    range: Range<usize>,
    rest: Incoming,
    length: Option<u64>,
    limit: u64,
}

impl Form {
    /// The body with `model` in the place of the client's, and its length where the client told its own.
    pub(super) fn for_model(self, model: &str) -> (Upload, Option<u64>) {
        let before = self.head.slice(..self.range.start);
        let after = self.head.slice(self.range.end..);
        let length = self.length.map(|n| n - self.range.len() as u64 + model.len() as u64);
        let taken = self.head.len() as u64;
        let parts = [after, Bytes::copy_from_slice(model.as_bytes()), before];
        (Upload { parts: parts.to_vec(), rest: self.rest, taken, limit: self.limit }, length)
    }
}

/// The form on its way to the provider.
pub(super) struct Upload {
    /// Held back parts, last first.
    parts: Vec<Bytes>,
    rest: Incoming,
    taken: u64,
    limit: u64,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while let Some(part) = self.parts.pop() {
            if !part.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
        }
        let frame = std::task::ready!(Pin::new(&mut self.rest).poll_frame(cx));
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(error.into())),
            Some(Ok(frame)) => {
                self.taken += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.taken > self.limit { Some(Err("the upload is too large".into())) } else { Some(Ok(frame)) }
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

fn boundary(parts: &Parts) -> Result<Vec<u8>, Error> {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let value = kind.split(';').skip(1).find_map(|param| {
        let (name, value) = param.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
    });
    match value {
        Some(value) if !value.is_empty() && value.len() <= 200 => Ok([b"--", value.as_bytes()].concat()),
        _ => Err(Error::malformed("the content type names no multipart boundary")),
    }
}

/// The value of the form field `model` in the part of the body that is here, if it is here whole.
fn model_field(body: &[u8], boundary: &[u8]) -> Option<Range<usize>> {
    let mut at = memchr::memmem::find(body, boundary)?;
    loop {
        let headers_start = at + boundary.len();
        let headers_len = memchr::memmem::find(&body[headers_start..], b"\r\n\r\n")?;
        let headers = &body[headers_start..headers_start + headers_len];
        let value_start = headers_start + headers_len + 4;
        let next = memchr::memmem::find(&body[value_start..], boundary)? + value_start;
        if names_model(headers) {
            return Some(value_start..next.checked_sub(2).filter(|end| *end >= value_start)?);
        }
        at = next;
    }
}

fn names_model(headers: &[u8]) -> bool {
    let Ok(headers) = std::str::from_utf8(headers) else { return false };
    headers.lines().any(|line| {
        let Some((name, value)) = line.split_once(':') else { return false };
        name.eq_ignore_ascii_case("content-disposition")
            && value.split(';').any(|param| matches!(param.trim(), "name=\"model\"" | "name=model"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_as_soon_as_its_part_is_whole() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nen\r\n--b\r\n\
            content-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\nrest";
        let range = model_field(body, b"--b").unwrap();
        assert_eq!(&body[range.clone()], b"whisper-1");
        for cut in 0..range.end + 5 {
            assert_eq!(model_field(&body[..cut], b"--b"), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_files_content_is_not_taken_for_the_model() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"name=model\"\r\n\r\nx\r\n--b--";
        assert_eq!(model_field(body, b"--b"), None);
    }
}
