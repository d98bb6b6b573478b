//! The accept loop's end.

use super::*;
use crate::base::tasks::DrainSwitch;
use crate::server::body::{Answering, answered};
use crate::server::{Body, Incoming};
use hyper::{Request, Response};
use std::io::{Read as _, Write as _};

struct Hello;

impl Handler for Hello {
    fn handle(self: Arc<Self>, _: Request<Incoming>, _: Peer) -> Answering {
        answered(Response::new(Body::full("hello")))
    }
}

fn core(drain: Drain, max: usize) -> Core<Hello> {
    let second = Duration::from_secs(1);
    Core {
        handler: Arc::new(Hello),
        alarms: Arc::default(),
        permits: Arc::new(Permits::new(max)),
        timeouts: ConnTimeouts { head: second, idle: second, write: second },
        drain,
        tls: None,
    }
}

#[tokio::test]
async fn what_the_kernel_accepted_before_the_end_is_still_answered() {
    let (addr, mut listeners) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let mut clients: Vec<_> = (0..32)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(addr).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            client
        })
        .collect();
    let switch = DrainSwitch::new();
    switch.advance(Phase::Finish);
    serve(listeners.pop().unwrap(), core(switch.drain(), 100)).await.unwrap();
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    }
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn permits_run_out_twice_and_come_back() {
    let permits = Arc::new(Permits::new(1));
    let first = permits.take().unwrap();
    assert!(!first.control_only);
    let reserve: Vec<_> = (0..RESERVE).map(|_| permits.take().unwrap()).collect();
    assert!(reserve.iter().all(|permit| permit.control_only));
    assert!(permits.take().is_none());
    drop((first, reserve));
    assert_eq!(permits.open(), 0);
    assert!(!permits.take().unwrap().control_only);
}
