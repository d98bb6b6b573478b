//! The peer: nginx as a plain reverse proxy, configured the way its manual recommends for speed.
//!
//! Must never read or write outside its own directory. What is set and why stands in the file it writes, so that a
//! result can be judged from the configuration alone.

use std::path::Path;
use std::process::Command;

use super::{Peer, Site};
use crate::child::{Child, free_port, status};

pub(super) fn start(binary: &Path, site: &Site<'_>) -> Result<Peer, String> {
    let dir = site.room("nginx")?;
    let port = free_port()?;
    let file = dir.join("nginx.conf");
    let text = config(port, site, &dir, is_root());
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = Command::new(binary);
    command.arg("-p").arg(&dir).arg("-c").arg(&file).arg("-e").arg(dir.join("error.log"));
    let mut child = Child::start("nginx", &mut command, &dir)?;
    child.wait("answer on its port", |_| status(port, "/__mock/stats").filter(|status| *status == 200))?;
    Ok(Peer::plain("nginx", super::version(binary, &["-v"]), port, child))
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(1) == Some("0"))
}

fn config(port: u16, site: &Site<'_>, dir: &Path, root: bool) -> String {
    let Site { upstream, nginx: table, cores, open_files, .. } = site;
    let dir = dir.display();
    let user = if root { "user root; # so that workers may use this directory\n" } else { "" };
    let (scheme, tls) = match upstream.ca {
        None => ("http", String::new()),
        Some(ca) => (
            "https",
            format!(
                "\n            proxy_ssl_verify on; # as merido does\n            proxy_ssl_trusted_certificate {};\n            \
                 proxy_ssl_name localhost;\n            proxy_ssl_protocols TLSv1.3;",
                ca.display()
            ),
        ),
    };
    let buffering = if table.buffering { "on" } else { "off" };
    let reuseport = if table.reuseport { " reuseport" } else { "" };
    let to = upstream.port;
    format!(
        "{user}worker_processes {cores};
daemon off; # in the foreground, so that its pid is the one we started
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{
    worker_connections {open_files}; # two for each stream
}}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_buffer_size 1m; # a large prompt stays in memory, as in the others, and sees no file
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    tcp_nodelay on;
    keepalive_requests 1000000000; # the default of 1000 would reconnect all through the run
    upstream mock {{
        server 127.0.0.1:{to};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port}{reuseport} backlog=4096;
        location / {{
            proxy_pass {scheme}://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering {buffering};{tls}
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Upstream;
    use super::*;
    use crate::scenario::NginxTable;

    fn text(ca: Option<&Path>, buffering: bool, reuseport: bool) -> String {
        let (dir, table) = (Path::new("/d"), NginxTable { buffering, reuseport });
        let site = Site { upstream: Upstream { port: 4321, ca }, cores: 2, dir, nginx: &table, open_files: 9000 };
        config(1234, &site, dir, ca.is_some())
    }

    #[test]
    fn the_config_says_what_was_asked() {
        let text = text(None, true, true);
        for line in [
            "worker_processes 2;",
            "listen 127.0.0.1:1234 reuseport",
            "server 127.0.0.1:4321;",
            "proxy_pass http://mock;",
            "proxy_buffering on;",
            "access_log off;",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("user ") && !text.contains("ssl"));
    }

    #[test]
    fn a_tls_upstream_is_verified() {
        let text = text(Some(Path::new("/d/ca.pem")), false, false);
        for line in [
            "user root;",
            "listen 127.0.0.1:1234 backlog",
            "proxy_pass https://mock;",
            "proxy_ssl_verify on;",
            "/d/ca.pem;",
            "proxy_buffering off;",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
