//! The hand-built HTTP/1.1 client codec: [`head`] and [`framing`] are pure, [`conn`] does the I/O, [`exchange`] runs one
//! request over a connection, [`body`] hands out an answer's body and gives the connection back.
//!
//! Built for two system calls a request (one send, one recv), no timer, and one piece out for whatever one read brought.

pub(super) mod body;
pub(super) mod conn;
pub(super) mod exchange;
pub mod framing;
pub mod head;

#[cfg(test)]
mod tests_framing;
#[cfg(test)]
pub(super) mod tests_fuzz;
#[cfg(test)]
mod tests_head;
