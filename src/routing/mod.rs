//! Pure decisions: which targets a request may go to, who is next, and what a failure means.
//!
//! No clock, no socket, no lock of its own: `now` and randomness come in, decisions go out as values. Failure is an
//! [`Error`] for the client; nothing here retries anything by itself.

pub mod pick;
pub mod reset;
pub mod verdict;

pub use crate::state::targets::{Leg, ModelRef, Route, Seat, Seats};
pub use pick::{Dice, Pick, Target, Tried, pick};
pub use verdict::{Failure, HeaderView, Judge, Next, Verdict};

use crate::base::{Error, ErrorKind};
use crate::state::catalog::{Catalog, Key};
use std::sync::Arc;

/// Where a request may go: what its `model` stands for.
#[derive(Clone, Debug)]
pub enum Plan {
    /// One model of one provider, on any of its accounts.
    Direct {
        /// The accounts.
        seats: Arc<Seats>,
        /// The model.
        model: ModelRef,
    },
    /// A virtual model.
    Virtual(Arc<Route>),
}

/// Longest piece of a client's model name that an error repeats.
const QUOTED: usize = 128;

/// What `requested` stands for: a virtual model, `provider/model`, or a bare model name that exactly one provider with
/// an account offers.
///
/// 403 when the key may not ask for it (whether it exists or not), 404 when it stands for nothing or for several, 503
/// when it is a virtual model without a usable target. Allocates only for models outside the provider's list.
pub fn resolve(catalog: &Catalog, key: Option<&Key>, requested: &str) -> Result<Plan, Error> {
    if key.is_some_and(|key| !key.allows(requested)) {
        let message = format!("This API key may not use the model '{}'.", quoted(requested));
        return Err(Error::new(ErrorKind::Forbidden, message).param("model"));
    }
    if let Some(route) = catalog.routes.get(requested) {
        if route.legs.is_empty() {
            let message = format!("No target of the virtual model '{requested}' has an account.");
            return Err(Error::new(ErrorKind::Unavailable, message).param("model"));
        }
        return Ok(Plan::Virtual(Arc::clone(route)));
    }
    if let Some((provider, model)) = requested.split_once('/')
        && let Some(seats) = catalog.seats.get(provider)
        && let Some(first) = seats.all.first()
        && !model.is_empty()
    {
        return Ok(Plan::Direct { seats: Arc::clone(seats), model: ModelRef::of(&first.account.provider, model) });
    }
    match catalog.bare.get(requested).map_or(&[][..], Vec::as_slice) {
        [one] if let Some(seats) = catalog.seats.get(&one.name) => {
            Ok(Plan::Direct { seats: Arc::clone(seats), model: ModelRef::of(one, requested) })
        }
        [] | [_] => Err(unknown(requested)),
        several => {
            let mut names: Vec<_> = several.iter().map(|one| format!("{}/{requested}", one.name)).collect();
            names.sort_unstable();
            let message = format!("Several providers offer '{requested}'; ask for one of: {}.", names.join(", "));
            Err(Error::new(ErrorKind::ModelNotFound, message).param("model"))
        }
    }
}

fn unknown(requested: &str) -> Error {
    let name = quoted(requested);
    let message = match name.split_once('/') {
        Some((provider, _)) if !provider.is_empty() => {
            format!(
                "The model '{name}' does not exist: no provider '{provider}' with an account, and no virtual model of that name."
            )
        }
        _ => format!(
            "The model '{name}' does not exist: no provider with an account lists it (write provider/model), and no virtual model has that name."
        ),
    };
    Error::new(ErrorKind::ModelNotFound, message).param("model")
}

fn quoted(name: &str) -> &str {
    let mut end = name.len().min(QUOTED);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
#[path = "testing.rs"]
mod testing;
#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
