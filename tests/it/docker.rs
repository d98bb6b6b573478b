//! The image without an engine: the Dockerfile's own commands build it, and what it promises agrees with the settings.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Dockerfile as (instruction, arguments), read by other means than the script's.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let squeezed = joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    squeezed
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.to_owned())).unwrap())
        .collect()
}

fn last(word: &str) -> String {
    let found = instructions().into_iter().rev().find(|(name, _)| name == word);
    found.unwrap_or_else(|| panic!("the Dockerfile has no {word}")).1
}

fn script(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(root().join("scripts/docker-stages.sh")).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[test]
fn the_script_reads_the_dockerfile_as_it_is() {
    let (ok, printed) = script(&["--print"]);
    assert!(ok, "{printed}");
    let printed: Vec<_> = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected: Vec<_> = instructions().into_iter().map(|(word, rest)| format!("{word} {rest}")).collect();
    assert_eq!(printed, expected);
    assert!(expected.iter().filter(|line| line.starts_with("RUN ")).count() >= 2);
}

#[test]
fn the_stages_run_and_the_image_holds_what_it_needs() {
    // Kept between runs: the dependencies are compiled once.
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docker");
    let (ok, printed) = script(&["--profile", "dev", "--dir", dir.to_str().unwrap()]);
    assert!(ok, "{printed}");
    for (word, rest) in instructions() {
        if word == "RUN" {
            assert!(
                printed
                    .lines()
                    .any(|line| line.split_whitespace().eq(["---", "RUN"].into_iter().chain(rest.split(' '))))
            );
        }
    }
    let version = Command::new(dir.join("image/usr/local/bin/merido")).arg("--version").output().unwrap();
    assert!(version.status.success());
    assert!(dir.join("image/etc/ssl/certs/ca-certificates.crt").is_file());
    assert!(dir.join("image/data").is_dir());
    assert!(!dir.join("work/tests").exists(), "the context is a short list");
}

#[test]
fn the_image_runs_as_nobody_and_says_where_it_listens() {
    let user = last("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{user}");
    let settings = merido::config::Settings::default();
    assert_eq!(last("EXPOSE"), settings.port.to_string());
    assert!(last("HEALTHCHECK").contains(r#"CMD ["merido", "healthcheck"]"#));
    assert_eq!((last("ENTRYPOINT").as_str(), last("CMD").as_str()), (r#"["merido"]"#, r#"["start"]"#));
}

#[test]
fn its_environment_is_one_the_loader_takes() {
    let volume = last("VOLUME");
    let env: Vec<(std::ffi::OsString, std::ffi::OsString)> =
        last("ENV").split(' ').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    assert!(env.len() >= 2);
    let load = |env: &[_]| merido::config::load(&merido::config::Inputs { env, ..Default::default() });
    let refused = load(&env).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].message.contains("merido hash-password"), "without a password it does not start open");
    let open = env.into_iter().chain([("MERIDO_ALLOW_OPEN_ADMIN".into(), "true".into())]).collect::<Vec<_>>();
    let settings = load(&open).unwrap().settings;
    assert!(settings.host.is_unspecified());
    assert_eq!(settings.data_dir, Path::new(&volume));
}
