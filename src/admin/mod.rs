//! The control plane: health, metrics, and what an operator sees.

pub mod live;
mod live_json;
