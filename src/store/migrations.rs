//! Which steps a database still needs: the one rule for every engine. Steps are forward only and compiled in; an engine
//! runs them in one transaction under a lock of its own, so of many instances that start at once one migrates and the
//! others find it done. A database that knows more steps than this binary is refused untouched.

use super::error::{Result, StoreError, StoreErrorKind};

/// One step a file; its number is its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// Declares the steps of one engine, in order.
macro_rules! steps {
    ($dir:literal: $($name:literal),+ $(,)?) => {
        &[$($crate::store::migrations::Step {
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $dir, "/", $name, ".sql")),
        }),+]
    };
}
pub(super) use steps;

/// The steps to run, numbered, on a database at version `done`.
pub(super) fn due(done: u32, steps: &'static [Step]) -> Result<impl Iterator<Item = (u32, Step)> + Send> {
    let known = steps.len();
    if done as usize > known {
        let message = format!(
            "the store was migrated to version {done} by a newer merido; this one knows {known}: run the newer one"
        );
        return Err(StoreError::new(StoreErrorKind::Newer, message));
    }
    Ok((1u32..).zip(steps.iter().copied()).skip(done as usize))
}
