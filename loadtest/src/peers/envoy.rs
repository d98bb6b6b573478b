//! The peer Envoy as a plain reverse proxy: one worker a core, limits raised so that none is met.
//!
//! Must never read or write outside its own directory. What is set stands in the file it writes; access logs and the
//! admin listener are left out, retries and timeouts are off, as in the others.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Peer, Site, Upstream};
use crate::child::{Child, free_port, status};

pub(super) fn start(binary: &Path, site: &Site<'_>) -> Result<Peer, String> {
    let dir = site.room("envoy")?;
    let port = free_port()?;
    let file = dir.join("envoy.json");
    std::fs::write(&file, config(port, &site.upstream).to_string())
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file).args(["--concurrency", &site.cores.to_string()]);
    command.args(["--disable-hot-restart", "--log-level", "error"]);
    let mut child = Child::start("envoy", &mut command, &dir)?;
    child.wait("answer on its port", |_| status(port, "/__mock/stats").filter(|status| *status == 200))?;
    Ok(Peer::plain("envoy", super::version(binary, &["--version"]), port, child))
}

fn config(port: u16, upstream: &Upstream<'_>) -> Value {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "generate_request_id": false,
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}],
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
                "dynamic_stats": false,
            },
        }],
    });
    let many = 100_000;
    let mut cluster = json!({
        "name": "mock",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [
            {"max_connections": many, "max_pending_requests": many, "max_requests": many},
        ]},
        "load_assignment": {"cluster_name": "mock", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(upstream.port)}}]},
        ]},
    });
    if let Some(ca) = upstream.ca {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {"trusted_ca": {"filename": ca.to_string_lossy()}},
                },
            },
        });
    }
    json!({"static_resources": {
        "listeners": [{
            "address": address(port),
            "enable_reuse_port": true,
            "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
            ]}],
        }],
        "clusters": [cluster],
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_says_what_was_asked() {
        let plain = config(1234, &Upstream { port: 4321, ca: None }).to_string();
        assert!(plain.contains("1234") && plain.contains("4321") && !plain.contains("transport_socket"), "{plain}");
        let tls = config(1234, &Upstream { port: 4321, ca: Some(Path::new("/d/ca.pem")) }).to_string();
        assert!(tls.contains("/d/ca.pem"), "{tls}");
    }
}
