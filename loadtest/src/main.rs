//! The load harness: generator, mock provider, comparison with other proxies.
fn main() {}
