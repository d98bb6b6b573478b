//! The side of the house that faces clients: listeners, one connection's life, bodies.
//!
//! Each data core has its own listener on the same port (`SO_REUSEPORT`), its own runtime and its own ticker; nothing
//! is shared between cores but the count of permits. When accepting fails (descriptors used up), the core waits and
//! tries again; when permits run out, a small reserve still answers health and control plane.

pub mod body;
pub mod conn;
mod conn_state;
mod gate;
mod h2;
mod incoming;
mod linger;
mod listen;
pub mod peer;
mod stream;
mod tls;
mod tracked;

pub use body::{Body, Source};
pub use conn::ConnTimeouts;
pub use incoming::Incoming;
pub use listen::{Core, Permits, bind, serve, tick};
pub use peer::Peer;
pub use tls::Tls;

use hyper::Request;
use std::sync::Arc;

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one; errors are answers too.
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> body::Answering;
}
