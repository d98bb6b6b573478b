//! The link against a real server: scripts, deadlines, everything that counts as down, and the way back.

use super::*;
use crate::cluster::call::{Script, script};
use crate::cluster::codec::Names;
use crate::cluster::testing::RedisServer;
use redis::Value;

static PROBE: Script = script!("probe.lua");

/// A link that waits up to `deadline`, and where it publishes.
fn link(url: &str, deadline: Duration) -> (Link, Arc<Reach>) {
    let reach = Arc::new(Reach::new());
    let connector = Connector::new(url, None).unwrap();
    (Link::new(connector, "test", Names::new("t").probe(), deadline, Arc::clone(&reach)), reach)
}

/// Drives it until it is as wanted, or ten seconds have passed.
async fn until(link: &mut Link, up: bool) {
    let driven = async {
        while link.is_up() != up {
            tokio::select! {
                _ = link.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => link.beat().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), driven).await.unwrap_or_else(|_| panic!("never up = {up}"));
}

#[tokio::test]
async fn a_script_that_the_server_does_not_know_is_loaded_on_the_way() {
    let server = RedisServer::start();
    let (mut link, reach) = link(&server.url(), Duration::from_secs(5));
    until(&mut link, true).await;
    assert!(reach.is_up());
    let names = Names::new("t");
    let calls =
        [Call::new("SET", b"a").arg("a").arg(1), PROBE.call(&[&names.probe()]), Call::new("GET", b"a").arg("a")];
    for _ in 0..2 {
        let answers = link.round(&calls).await;
        assert_eq!(answers[0], Ok(Value::Okay));
        assert!(matches!(answers[1], Ok(Value::Int(micros)) if micros > 1_600_000_000_000_000), "{answers:?}");
        assert_eq!(answers[2], Ok(Value::BulkString(b"1".to_vec())));
        server.command("SCRIPT FLUSH");
    }
}
