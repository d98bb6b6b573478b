//! The locks and atomics of `state/`, so that the model checker can put its own in their place.
//!
//! In every build that ships these are `parking_lot`'s and std's, by re-export: no wrapper, no cost. Only unit tests
//! built with the feature `shuttle` get the checker's, and then nothing but the `model_` tests may run (the checker's
//! locks refuse to work outside its scheduler).

#[cfg(not(all(test, feature = "shuttle")))]
pub use self::machine::*;
#[cfg(all(test, feature = "shuttle"))]
pub use self::modelled::*;

#[cfg(not(all(test, feature = "shuttle")))]
mod machine {
    pub use parking_lot::Mutex;
    pub use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
}

#[cfg(all(test, feature = "shuttle"))]
mod modelled {
    pub use shuttle::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

    /// `parking_lot`'s face over the checker's lock.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// Around `value`.
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        /// Waits for it.
        pub fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
