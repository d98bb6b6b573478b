//! Allocator, arguments, runtime, exit code.
fn main() {}
