//! For tests of this room: a real Redis of their own.

#[path = "../../tests/it/support/redis.rs"]
mod redis;

pub(super) use redis::RedisServer;
