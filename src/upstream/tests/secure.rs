//! TLS with certificates made here, and HTTP/2 with and without it.

use super::*;
use crate::base::Pieces;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::io::Write as _;
use tokio_rustls::TlsAcceptor;

/// A server's TLS for `localhost`, and a client that trusts it.
fn pair(protocol: &[u8]) -> (TlsAcceptor, Client, Arc<Alarms>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.alpn_protocols = vec![protocol.to_vec()];
    let alarms = Arc::new(Alarms::default());
    let config = ClientConfig { tls: tls_config(Some(file.path())).unwrap(), ..config() };
    (TlsAcceptor::from(Arc::new(server)), Client::new(config, Arc::clone(&alarms)), alarms)
}

async fn listen(scheme: &str, host: &str) -> (TcpListener, BaseUrl) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, BaseUrl::parse(&format!("{scheme}://{host}:{port}")).unwrap())
}

#[tokio::test]
async fn over_tls_with_reuse_and_a_burst() {
    let (acceptor, client, _) = pair(b"http/1.1");
    let (listener, base) = listen("https", "localhost").await;
    let serve = async {
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut raw = Vec::new();
        for n in 1..=3 {
            while memchr::memmem::find_iter(&raw, b"[]").count() < n {
                tls.read_buf(&mut raw).await.unwrap();
            }
            // Each event a TLS record of its own.
            tls.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            for _ in 0..20 {
                tls.write_all(b"4\r\nping\r\n").await.unwrap();
            }
            tls.write_all(b"0\r\n\r\n").await.unwrap();
            tls.flush().await.unwrap();
        }
        tls
    };
    let calls = async {
        for n in 0..3 {
            let reply = client.call(call(&base, whole(b"[]"))).await.unwrap();
            assert_eq!(reply.reused, n > 0);
            assert_eq!(all(reply.body).await.unwrap(), b"ping".repeat(20));
        }
    };
    let (_tls, ()) = tokio::join!(serve, calls);
    assert_eq!(client.stats(), Stats { open: 1, idle: 1 });
}

#[tokio::test]
async fn a_large_upload_over_tls_arrives_whole() {
    let (acceptor, client, _) = pair(b"http/1.1");
    let (listener, base) = listen("https", "localhost").await;
    let body: Pieces = [Bytes::from(vec![7; 5_000_000]), Bytes::from_static(b"end")].into_iter().collect();
    let serve = async {
        let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut raw = Vec::new();
        while !raw.ends_with(b"\x07end") {
            assert!(tls.read_buf(&mut raw).await.unwrap() > 0);
        }
        assert!(raw.len() > 5_000_003 && raw.iter().rev().skip(3).take(5_000_000).all(|b| *b == 7));
        tls.write_all(OK).await.unwrap();
        tls
    };
    let (reply, _tls) = tokio::join!(client.call(call(&base, CallBody::Pieces(body))), serve);
    assert_eq!(reply.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn another_hosts_certificate_is_refused_before_anything_is_sent() {
    let (acceptor, client, _) = pair(b"http/1.1");
    let (listener, base) = listen("https", "127.0.0.1").await;
    let serve = async { acceptor.accept(listener.accept().await.unwrap().0).await.map(|_| ()) };
    let (reply, served) = tokio::join!(client.call(call(&base, whole(b"[]"))), serve);
    let error = reply.unwrap_err();
    assert_eq!((error.kind, error.sent), (CallErrorKind::Tls, false));
    assert!(served.is_err());
}

#[tokio::test]
async fn an_unknown_issuer_and_a_server_without_tls_are_refused() {
    let (acceptor, ..) = pair(b"http/1.1");
    let client = Client::new(config(), Arc::default());
    let (listener, base) = listen("https", "localhost").await;
    let serve = async { acceptor.accept(listener.accept().await.unwrap().0).await.map(|_| ()) };
    let (reply, _) = tokio::join!(client.call(call(&base, whole(b"[]"))), serve);
    assert_eq!(reply.unwrap_err().kind, CallErrorKind::Tls);
    let serve = async { listener.accept().await.unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await };
    let (reply, _) = tokio::join!(client.call(call(&base, whole(b"[]"))), serve);
    assert_eq!(reply.unwrap_err().kind, CallErrorKind::Tls);
}

#[test]
fn a_file_that_holds_no_root_is_an_error() {
    assert!(tls_config(Some(std::path::Path::new("/nonexistent/roots.pem"))).unwrap_err().contains("roots.pem"));
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(tls_config(Some(empty.path())).unwrap_err().contains("no certificate"));
}

async fn echo(request: hyper::Request<hyper::body::Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = format!("{:?} {} {}", parts.version, parts.uri.path(), String::from_utf8_lossy(&body));
    Ok(hyper::Response::new(Full::new(text.into())))
}

fn h2(base: &BaseUrl) -> Call<'_> {
    Call { http2: true, ..call(base, whole(b"body")) }
}

/// Serves HTTP/2 on every connection.
fn serve_h2(listener: TcpListener) {
    drop(crate::base::tasks::spawn("test-h2", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            drop(crate::base::tasks::spawn("test-h2-conn", async move {
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = served.serve_connection(TokioIo::new(tcp), service_fn(echo)).await;
            }));
        }
    }));
}

#[tokio::test]
async fn http2_without_tls_shares_one_connection() {
    let client = Client::new(config(), Arc::default());
    let (listener, base) = listen("http", "127.0.0.1").await;
    serve_h2(listener);
    let (a, b) = tokio::join!(client.call(h2(&base)), client.call(h2(&base)));
    for reply in [a, b] {
        assert_eq!(all(reply.unwrap().body).await.unwrap(), b"HTTP/2.0 /chat body");
    }
    assert_eq!(client.stats().open, 1);
    assert!(client.call(h2(&base)).await.unwrap().reused);
    client.sweep(Clock::now() + Duration::from_secs(3600));
    while client.stats().open > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn http2_by_alpn_and_not_without_it() {
    let (acceptor, client, _) = pair(b"h2");
    let (listener, base) = listen("https", "localhost").await;
    let serve = async {
        let tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = served.serve_connection(TokioIo::new(tls), service_fn(echo)).await;
    };
    let calling = async { all(client.call(h2(&base)).await.unwrap().body).await.unwrap() };
    tokio::select! {
        got = calling => assert_eq!(got, b"HTTP/2.0 /chat body"),
        () = serve => panic!("the server ended first"),
    }
    let (acceptor, client, _) = pair(b"http/1.1");
    let serve = async { acceptor.accept(listener.accept().await.unwrap().0).await.map(|_| ()) };
    let (reply, _) = tokio::join!(client.call(h2(&base)), serve);
    assert_eq!(reply.unwrap_err().kind, CallErrorKind::Tls);
}

#[tokio::test]
async fn http2_answers_late() {
    let alarms = Arc::new(Alarms::default());
    let client = Client::new(config(), Arc::clone(&alarms));
    let (listener, base) = listen("http", "127.0.0.1").await;
    let asked = Arc::new(tokio::sync::Notify::new());
    let bell = Arc::clone(&asked);
    let serve = async {
        let tcp = listener.accept().await.unwrap().0;
        let silent = service_fn(move |_| {
            bell.notify_one();
            std::future::pending::<Result<hyper::Response<Full<Bytes>>, Infallible>>()
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = served.serve_connection(TokioIo::new(tcp), silent).await;
    };
    let tick = async {
        asked.notified().await;
        alarms.sweep(Clock::now() + Duration::from_secs(3600));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        reply = client.call(h2(&base)) => {
            assert_eq!(reply.unwrap_err().kind, CallErrorKind::Timeout(Deadline::FirstByte));
        }
        () = serve => panic!("the server ended first"),
        () = tick => unreachable!(),
    }
}
