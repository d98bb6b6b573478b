//! Words, clock, errors, stripes, tasks, telemetry: what every room may use and no room may change for itself.
//!
//! Nothing here knows what a model or a provider is. `clock` alone reads time, `tasks` alone spawns.

pub mod alarms;
pub mod bell;
pub mod clock;
pub mod dialect;
pub mod error;
pub mod hatch;
pub mod ids;
pub mod metrics;
pub mod pieces;
pub mod seal;
pub mod spare;
pub mod stripes;
pub mod sync;
pub mod tasks;
pub mod telemetry;

pub use clock::{Clock, Now, civil};
pub use dialect::{Dialect, Endpoint};
pub use error::{Error, ErrorKind, Fault};
pub use ids::{AccountId, KeyId, ModelId, RequestId, Secret, TokenId, VirtualModelId};
pub use pieces::Pieces;
