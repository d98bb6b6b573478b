//! The peer HAProxy as a plain reverse proxy, one thread a core, connections to the mock shared between threads.
//!
//! Must never read or write outside its own directory. What is set and why stands in the file it writes.

use std::path::Path;
use std::process::Command;

use super::{Peer, Site, Upstream};
use crate::child::{Child, free_port, status};

pub(super) fn start(binary: &Path, site: &Site<'_>) -> Result<Peer, String> {
    let dir = site.room("haproxy")?;
    let port = free_port()?;
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, config(port, &site.upstream, site.cores, site.open_files))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = Command::new(binary);
    command.arg("-db").arg("-f").arg(&file);
    let mut child = Child::start("haproxy", &mut command, &dir)?;
    child.wait("answer on its port", |_| status(port, "/__mock/stats").filter(|status| *status == 200))?;
    Ok(Peer::plain("haproxy", super::version(binary, &["-v"]), port, child))
}

fn config(port: u16, upstream: &Upstream<'_>, cores: usize, open_files: usize) -> String {
    // Two for each connection, and some of its own: it does not start when it could need more than it may open.
    let connections = open_files.saturating_sub(200) / 2;
    let tls = upstream.ca.map_or_else(String::new, |ca| {
        format!(
            " ssl verify required ca-file {} sni str(localhost) verifyhost localhost ssl-min-ver TLSv1.3",
            ca.display()
        )
    });
    let to = upstream.port;
    format!(
        "global
    nbthread {cores}
    maxconn {connections}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always # any request may take any idle connection, as in the others
frontend front
    bind 127.0.0.1:{port} backlog 4096
    default_backend mock
backend mock
    server mock 127.0.0.1:{to} pool-max-conn 1024{tls}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_says_what_was_asked() {
        let text = config(1234, &Upstream { port: 4321, ca: None }, 2, 20_200);
        for line in
            ["nbthread 2", "maxconn 10000", "bind 127.0.0.1:1234", "server mock 127.0.0.1:4321 pool-max-conn 1024\n"]
        {
            assert!(text.contains(line), "{line}");
        }
        let tls = config(1234, &Upstream { port: 4321, ca: Some(Path::new("/d/ca.pem")) }, 2, 1024);
        assert!(tls.contains("ssl verify required ca-file /d/ca.pem"), "{tls}");
    }
}
