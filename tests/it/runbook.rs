//! The runbook of `docs/REDIS-HA.md`, run as its reader would: block after block in one shell, output compared.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// The page's blocks: (commands, what they print).
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let kind = match line {
            "```sh" | "```text" => &line[3..],
            _ => continue,
        };
        let mut body = String::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            body.push_str(line);
            body.push('\n');
        }
        match (kind, blocks.last_mut()) {
            ("text", Some((_, printed))) if printed.is_empty() => *printed = body,
            ("text", _) => panic!("an output without commands: {body}"),
            _ => blocks.push((body, String::new())),
        }
    }
    blocks
}

#[test]
fn the_runbook_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let blocks = blocks(&std::fs::read_to_string(root.join("docs/REDIS-HA.md")).unwrap());
    assert!(blocks.len() > 5, "the page lost its blocks");
    // One shell, so that variables and jobs live on; a line of its own parts the blocks' outputs.
    let mut script = "set -eu\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n".to_owned();
    for (commands, _) in &blocks {
        script.push_str(commands);
        script.push_str("echo ==== 'end of block'\n");
    }
    let ports: Vec<u16> = {
        let held: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        held.iter().map(|one| one.local_addr().unwrap().port()).collect()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_merido")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .env_clear()
        .env("PATH", path.unwrap())
        .env("HOME", home.path())
        .env("REDIS_PORT", ports[0].to_string())
        .env("A", format!("127.0.0.1:{}", ports[1]))
        .env("B", format!("127.0.0.1:{}", ports[2]))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (printed, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut parts = printed.split("==== end of block\n");
    for (commands, expected) in &blocks {
        let got = parts.next().unwrap_or_default();
        assert_eq!(got, expected, "block:\n{commands}\nstderr:\n{complaints}");
    }
    assert!(output.status.success(), "stderr:\n{complaints}");
}
