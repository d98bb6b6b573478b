//! For tests of this room: a real Redis of their own.

#[path = "../../tests/it/support/redis.rs"]
mod redis;

#[path = "../../tests/it/support/redis_cluster.rs"]
mod redis_cluster;

pub(super) use redis::RedisServer;
pub(super) use redis_cluster::RedisCluster;
