//! A real Redis Cluster of a test's own: three servers on loopback with a third of the slots each.
//!
//! Stands alone beside `redis`, so that the library's own tests can use it, too.

#![allow(clippy::disallowed_methods, reason = "a test waits for servers by the wall clock")]
#![allow(unreachable_pub, dead_code, reason = "each of the two test binaries uses its own part")]

use super::redis::RedisServer;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16_384;

/// Three running nodes, no replicas. One that dies takes its slots with it; the others go on.
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts it; every node knows every other when this returns.
    pub fn start() -> Self {
        let nodes: Vec<(RedisServer, u16)> = (0..3).map(|_| node()).collect();
        for (n, (server, bus)) in nodes.iter().enumerate() {
            let (first, last) = (n as u16 * SLOTS / 3, (n as u16 + 1) * SLOTS / 3 - 1);
            assert!(server.command(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).starts_with("+OK"));
            let (addr, to) = (server.addr(), &nodes[0].0);
            assert!(to.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", addr.port())).starts_with("+OK"));
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(server, _)| server).collect() };
        cluster.settled();
        cluster
    }

    /// All nodes, apart by commas.
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        format!("redis://{}", nodes.join(","))
    }

    /// The node that has the slot of `key` by its own word.
    pub fn owner(&self, key: &str) -> usize {
        self.nodes.iter().position(|node| !node.command(&format!("GET {key}")).starts_with("-MOVED")).unwrap()
    }

    /// Begins to move the slot of `key`: what is there stays there, what is new belongs to node `to`.
    pub fn begin_move(&self, key: &str, to: usize) {
        let (slot, from) = (self.slot(key), self.owner(key));
        let (from_id, to_id) = (self.id(from), self.id(to));
        self.ok(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        self.ok(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
    }

    /// Ends the move of the slot of `keys` (all that are in it) from node `from` to node `to`.
    pub fn end_move(&self, keys: &[&str], from: usize, to: usize) {
        let (slot, to_id) = (self.slot(keys[0]), self.id(to));
        for key in keys {
            self.send(key, from, to);
        }
        for node in [to, from] {
            let left = self.nodes[from].command(&format!("CLUSTER GETKEYSINSLOT {slot} 9"));
            assert!(left.starts_with("*0"), "more is in the slot than was named: {left}");
            self.ok(node, &format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        }
    }

    /// Carries over a key whose slot moves; its slot stays where it is.
    #[track_caller]
    pub fn send(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].addr().port();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let reply = self.nodes[from].command(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000 REPLACE"));
            if reply.starts_with("+OK") || reply.starts_with("+NOKEY") {
                return;
            }
            // A connection that it kept from an earlier one may have been closed meanwhile.
            assert!(reply.starts_with("-IOERR") && Instant::now() < until, "{key}: {reply}");
        }
    }

    /// Waits until all nodes agree that all is well.
    #[track_caller]
    pub fn settled(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        let fine = |node: &RedisServer| {
            let info = node.command("CLUSTER INFO");
            info.contains("cluster_state:ok")
                && info.contains("cluster_known_nodes:3")
                && info.contains("cluster_slots_ok:16384")
        };
        while !self.nodes.iter().all(fine) {
            assert!(Instant::now() < until, "the cluster does not come together");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn slot(&self, key: &str) -> u16 {
        self.nodes[0].command(&format!("CLUSTER KEYSLOT {key}")).trim_start_matches(':').trim().parse().unwrap()
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].command("CLUSTER MYID").lines().nth(1).unwrap().to_owned()
    }

    #[track_caller]
    fn ok(&self, node: usize, line: &str) {
        let reply = self.nodes[node].command(line);
        assert!(reply.starts_with("+OK"), "{line}: {reply}");
    }
}

/// A node and its bus port. That is not the usual one (10,000 above), which may not exist.
fn node() -> (RedisServer, u16) {
    let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let extra = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"];
    let more = ["--cluster-require-full-coverage", "no", "--cluster-port", &bus.to_string()];
    (RedisServer::with(&[&extra[..], &more[..]].concat()), bus)
}
