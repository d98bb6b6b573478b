//! What a store can refuse, and why. Messages are for an operator: they name what to do, never a secret.

use crate::base::seal::SealError;
use std::fmt;

/// The kinds a caller acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreErrorKind {
    /// Locked, full, read-only, gone, overloaded: may work later.
    Unavailable,
    /// Something by that name is already there.
    Conflict,
    /// Nothing by that id or name.
    NotFound,
    /// The database was migrated by a newer merido.
    Newer,
    /// The master key does not open this store.
    WrongMasterKey,
    /// The store's content makes no sense.
    Corrupt,
    /// The named field of what was asked is wrong.
    Invalid(&'static str),
}

/// A refusal or failure of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// What kind.
    pub kind: StoreErrorKind,
    /// For people.
    pub message: String,
}

/// What the store's functions return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl StoreError {
    /// An error of `kind`.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// `field` is wrong.
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid(field), message)
    }

    /// Try later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unavailable, message)
    }

    /// No such thing.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StoreErrorKind::NotFound, format!("there is no {what}"))
    }

    /// Content that makes no sense.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, message)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            StoreErrorKind::Invalid(field) => write!(f, "{field}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<SealError> for StoreError {
    fn from(e: SealError) -> Self {
        match e {
            SealError::Random => Self::unavailable(e.to_string()),
            SealError::Unreadable | SealError::BadKey => Self::corrupt(e.to_string()),
        }
    }
}
