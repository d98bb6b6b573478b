//! Whose fault it is, whether another try may help, and what the client may read.
//!
//! An [`Error`] becomes HTTP in one place (`server/body`), in the caller's dialect (`dialect/errors`). Its message is
//! written for the client: it never holds a secret, an internal address or another caller's data.

use std::borrow::Cow;
use std::time::Duration;

/// Who can mend it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The caller's: pass it through, rest nobody.
    Client,
    /// The provider's: another account or provider may do better.
    Upstream,
    /// Ours: never reported as the client's.
    Ours,
}

/// The kinds of refusal and failure, one per answer a client can tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorKind {
    /// 400: the request cannot be read as what the endpoint takes.
    Malformed,
    /// 401: key missing or wrong.
    Unauthenticated,
    /// 402: the key's budget is spent.
    BudgetExceeded,
    /// 403: the key may not do this (model not allowed).
    Forbidden,
    /// 404: no such endpoint.
    NotFound,
    /// 404: no such model.
    ModelNotFound,
    /// 405.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    RequestTimeout,
    /// 409.
    Conflict,
    /// 412: it is no longer what the caller saw (`If-Match`).
    Changed,
    /// 413: larger than `MERIDO_MAX_BODY_BYTES`.
    TooLarge,
    /// 415: not JSON where JSON is needed.
    UnsupportedMedia,
    /// 422: understood, but contradicts itself (the same idempotency key with another body).
    Unprocessable,
    /// 429: a limit of ours, or every target rests because of the providers' limits.
    RateLimited,
    /// 500: a fault of ours that has no better name.
    Internal,
    /// 502: the provider answered nonsense, or not at all.
    UpstreamFailed,
    /// 503: nothing available, or a store of ours is gone.
    Unavailable,
    /// 503: we are shutting down or at capacity; try another instance.
    Overloaded,
    /// 504: the provider took too long.
    UpstreamTimeout,
}

/// A refusal or failure on its way to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What kind, and with it status and fault.
    pub kind: ErrorKind,
    /// For the client's eyes.
    pub message: Cow<'static, str>,
    /// The field at fault, in the request's own words (`model`, `stream_options`).
    pub param: Option<Cow<'static, str>>,
    /// When a retry may succeed; becomes `Retry-After`, rounded up to whole seconds.
    pub retry_after: Option<Duration>,
}

impl ErrorKind {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::BudgetExceeded => 402,
            Self::Forbidden => 403,
            Self::NotFound | Self::ModelNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::Changed => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::Unprocessable => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::UpstreamFailed => 502,
            Self::Unavailable | Self::Overloaded => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// Who can mend it.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Internal | Self::Unavailable | Self::Overloaded => Fault::Ours,
            Self::UpstreamFailed | Self::UpstreamTimeout => Fault::Upstream,
            _ => Fault::Client,
        }
    }

    /// A stable, machine-readable name: the `code` of OpenAI-shaped errors and of control-plane errors.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "invalid_request",
            Self::Unauthenticated => "invalid_api_key",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Forbidden => "model_not_allowed",
            Self::NotFound => "not_found",
            Self::ModelNotFound => "model_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::Changed => "precondition_failed",
            Self::TooLarge => "request_too_large",
            Self::UnsupportedMedia => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::RateLimited => "rate_limit_exceeded",
            Self::Internal => "internal_error",
            Self::UpstreamFailed => "upstream_failed",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }
}

impl Error {
    /// An error of `kind` with the client's message.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// 400.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    /// 500. `message` goes to the client: keep the cause for the log.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.kind.status()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.kind.code())
    }
}

impl std::error::Error for Error {}
