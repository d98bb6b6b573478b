//! The Redis that several gateways share: one server, or a Redis Cluster of three. The same tests run on both
//! ([`on_both`]): what holds on one must hold on the other.
//!
//! Stands alone beside `redis` and `redis_cluster`, so that the library's own tests can use it, too.

#![allow(unreachable_pub, dead_code, unused_macros, reason = "each of the two test binaries uses its own part")]

use super::redis::RedisServer;
use super::redis_cluster::RedisCluster;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OneServer,
    ThreeNodes,
}

/// One of them, running.
pub enum Redis {
    One(RedisServer),
    Three(RedisCluster),
}

/// Whatever has a URL that a gateway can share by.
pub trait HasUrl {
    fn redis_url(&self) -> String;
}

impl HasUrl for RedisServer {
    fn redis_url(&self) -> String {
        self.url()
    }
}

impl HasUrl for RedisCluster {
    fn redis_url(&self) -> String {
        self.url()
    }
}

impl HasUrl for Redis {
    fn redis_url(&self) -> String {
        self.url()
    }
}

/// Commands without a key: every node is asked.
const EVERYWHERE: &[&str] =
    &["KEYS", "FLUSHALL", "SCRIPT", "CLIENT", "CONFIG", "ACL", "INFO", "TIME", "DBSIZE", "PING", "REPLICAOF"];

impl Redis {
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::OneServer => Self::One(RedisServer::start()),
            Kind::ThreeNodes => Self::Three(RedisCluster::start()),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    /// The one server; a test that needs it is no test for a cluster.
    #[track_caller]
    pub fn one(&self) -> &RedisServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) => panic!("there are three"),
        }
    }

    fn nodes(&self) -> &[RedisServer] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Three(cluster) => &cluster.nodes,
        }
    }

    fn nodes_mut(&mut self) -> &mut [RedisServer] {
        match self {
            Self::One(server) => std::slice::from_mut(server),
            Self::Three(cluster) => &mut cluster.nodes,
        }
    }

    /// One command where its key is, or everywhere when it has none: lists are then one list, of other replies it is the
    /// first.
    #[track_caller]
    pub fn command(&self, line: &str) -> String {
        let everywhere = EVERYWHERE.contains(&line.split(' ').next().unwrap_or_default());
        let mut replies = Vec::new();
        for node in self.nodes() {
            let reply = node.command(line);
            if !everywhere && !reply.starts_with("-MOVED") {
                return reply;
            }
            replies.push(reply);
        }
        assert!(everywhere, "no node has the key of {line}");
        let lists: Vec<(u32, &str)> = replies.iter().filter_map(|reply| list(reply)).collect();
        if lists.len() == replies.len() && line.starts_with("KEYS") {
            let items: String = lists.iter().map(|(_, items)| *items).collect();
            return format!("*{}\r\n{items}", lists.iter().map(|(count, _)| count).sum::<u32>());
        }
        replies.swap_remove(0)
    }

    /// How often a command ran, over all nodes (its name as `INFO commandstats` spells it).
    pub fn calls(&self, name: &str) -> u64 {
        let of = |node: &RedisServer| {
            let text = node.command("INFO commandstats");
            let found = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
            found.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.nodes().iter().map(of).sum()
    }

    /// Connected clients but the one that asks.
    pub fn clients(&self) -> f64 {
        self.nodes().iter().map(|node| node.info("connected_clients") - 1.0).sum()
    }

    /// All of it.
    pub fn kill(&mut self) {
        self.nodes_mut().iter_mut().for_each(RedisServer::kill);
    }

    /// All of it, empty.
    #[track_caller]
    pub fn revive(&mut self) {
        self.kill();
        self.nodes_mut().iter_mut().for_each(RedisServer::revive);
        if let Self::Three(cluster) = self {
            cluster.settled();
        }
    }

    pub fn freeze(&self) {
        self.nodes().iter().for_each(RedisServer::freeze);
    }

    pub fn thaw(&self) {
        self.nodes().iter().for_each(RedisServer::thaw);
    }
}

/// Count and items of a list.
fn list(reply: &str) -> Option<(u32, &str)> {
    let (count, items) = reply.strip_prefix('*')?.split_once("\r\n")?;
    Some((count.parse().ok()?, items))
}

/// Tests of these functions: each with one server, and with three nodes.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod one_server {
            $(#[test] fn $name() { super::$name($crate::support::shared::Kind::OneServer); })+
        }
        mod three_nodes {
            $(#[test] fn $name() { super::$name($crate::support::shared::Kind::ThreeNodes); })+
        }
    };
}
#[allow(unused_imports, reason = "each of the two test binaries uses its own part")]
pub(crate) use on_both;
