//! The peers `LiteLLM` and Portkey: gateways for the same purpose, configured for one provider and nothing else.
//!
//! Must never let one reach beyond this machine: what fetches price lists or sends telemetry is switched off. Neither is
//! given limits, logs or more keys than it insists on: what they are compared with has all of them on. Their TLS to a
//! provider is the runtime's own business: they are compared over a plain upstream only.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{MODEL, Peer, Site};
use crate::child::{Child, free_port, status};
use crate::clock;

/// Python's imports take their time on a cold disk.
const SLOW: Duration = Duration::from_secs(120);

pub(super) fn litellm(binary: &Path, site: &Site<'_>) -> Result<Peer, String> {
    let dir = site.room("litellm")?;
    let port = free_port()?;
    let file = dir.join("litellm.yaml");
    let to = site.upstream.port;
    let text = format!(
        "model_list:
  - model_name: {MODEL}
    litellm_params:
      model: openai/{MODEL}
      api_base: http://127.0.0.1:{to}/v1
      api_key: mock
litellm_settings:
  telemetry: false
  num_retries: 0
"
    );
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(&file).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--num_workers", &site.cores.to_string(), "--telemetry", "False"]);
    // It does not start without one; what it checks is that the caller sends the same.
    let key = format!("sk-{:064x}", u128::from(clock::wall_us()) << 64);
    command
        .env("LITELLM_MASTER_KEY", &key)
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_LOG", "ERROR")
        .env("NO_DOCS", "True");
    command.env_remove("DATABASE_URL").env_remove("REDIS_URL").current_dir(&dir);
    let begun = clock::now();
    let mut child = Child::start("litellm", &mut command, &dir)?.patience(SLOW);
    child.wait("answer on its port", |_| status(port, "/health/liveliness").filter(|status| *status == 200))?;
    let version = super::version(binary, &["--version"]);
    let mut peer = Peer::plain("litellm", version, port, child);
    peer.keys = vec![key];
    peer.started_in = Some(clock::now() - begun);
    Ok(peer)
}

pub(super) fn portkey(script: &Path, site: &Site<'_>) -> Result<Peer, String> {
    let dir = site.room("portkey")?;
    let port = free_port()?;
    let node = super::on_path("node").ok_or("portkey needs node, which is not on the PATH")?;
    let mut command = Command::new(&node);
    command.arg(script).args([&format!("--port={port}"), "--headless"]).current_dir(&dir);
    command.env("NODE_ENV", "production").env("TRUSTED_CUSTOM_HOSTS", "127.0.0.1,localhost");
    let begun = clock::now();
    let mut child = Child::start("portkey", &mut command, &dir)?.patience(SLOW);
    child.wait("answer on its port", |_| status(port, "/"))?;
    let manifest = script.parent().and_then(Path::parent).map(|dir| dir.join("package.json"));
    let manifest = manifest.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap_or_default();
    let version =
        format!("{} on node {}", manifest["version"].as_str().unwrap_or("?"), super::version(&node, &["--version"]));
    let mut peer = Peer::plain("portkey", version, port, child);
    peer.started_in = Some(clock::now() - begun);
    peer.keys = vec!["mock".to_owned()];
    let to = format!("http://127.0.0.1:{}/v1", site.upstream.port);
    peer.headers =
        vec![("x-portkey-provider".to_owned(), "openai".to_owned()), ("x-portkey-custom-host".to_owned(), to)];
    Ok(peer)
}
