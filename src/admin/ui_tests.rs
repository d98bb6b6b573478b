//! The dashboard's files hang together: all are served, none asks for what is not there, none leads elsewhere.

use super::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Enough for all pages; more would be felt on a slow line.
const MOST: usize = 300 << 10;
/// As for the sources of this house.
const LONGEST: usize = 400;

fn on_disk(dir: &Path, root: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            on_disk(&path, root, into);
        } else {
            into.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().map(|&(path, bytes)| (path, std::str::from_utf8(bytes).unwrap()))
}

/// What stands between `before` and the next quote of the kind that `before` ends with.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let quote = before.chars().last().unwrap();
    text.split(before).skip(1).filter_map(|rest| rest.split(quote).next()).collect()
}

/// The path that `asked`, written in `from`, means.
fn resolved(from: &str, asked: &str) -> String {
    if let Some(path) = asked.strip_prefix("/ui/") {
        return path.to_owned();
    }
    let mut path = PathBuf::from(from).parent().unwrap().to_path_buf();
    for part in asked.split('/') {
        match part {
            "." => {}
            ".." => assert!(path.pop(), "{from} asks for {asked}"),
            part => path.push(part),
        }
    }
    path.to_str().unwrap().to_owned()
}

/// Every file that some file asks for, with who does.
fn asked_for() -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    for (path, text) in texts() {
        let forms: &[&str] = match kind(path).split(';').next().unwrap() {
            "text/html" => &["href=\"", "src=\""],
            "text/css" => &["url(\""],
            "text/javascript" => &[" from '", "import('", "src: '"],
            _ => &[],
        };
        for form in forms {
            out.extend(quoted(text, form).into_iter().map(|asked| (path, resolved(path, asked))));
        }
    }
    out
}

#[test]
fn every_file_is_served_and_every_file_asked_for_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/ui");
    let mut there = BTreeSet::new();
    on_disk(&root, &root, &mut there);
    let served: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(there, served);
    let asked = asked_for();
    assert!(asked.len() > 60, "only {} were found", asked.len());
    for (from, path) in &asked {
        assert!(served.contains(path), "{from} asks for {path}");
    }
    let wanted: BTreeSet<&String> = asked.iter().map(|(_, path)| path).collect();
    for path in &served {
        assert!(path == "index.html" || wanted.contains(path), "nobody asks for {path}");
    }
}

#[test]
fn nothing_leads_elsewhere_runs_text_or_is_large() {
    let mut size = 0;
    for (path, text) in texts() {
        size += text.len();
        assert!(text.lines().count() <= LONGEST, "{path} is longer than {LONGEST} lines");
        // The one URL that is a name and no address.
        let bare = text.replace("http://www.w3.org/2000/svg", "");
        // Nor is a hint in a form, which shows how an address begins.
        let bare = bare.replace("'https://…'", "");
        for bad in ["http://", "https://", "'//", "\"//", "(//", "@import", "data:image", "data:text"] {
            assert!(!bare.contains(bad), "{path} holds {bad}");
        }
        for bad in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "setTimeout('"]
        {
            assert!(!text.contains(bad), "{path} holds {bad}");
        }
        assert!(!text.contains(" style=\"") && !text.contains("onclick=\""), "{path} has something inline");
        if kind(path).starts_with("text/") && !path.ends_with("html") {
            let plate = text.lines().next().unwrap();
            assert!(plate.starts_with("//") || plate.starts_with("/*"), "{path} has no door plate");
        }
    }
    let inline = texts().find(|(path, _)| *path == "index.html").unwrap().1;
    assert!(!inline.contains("<style") && quoted(inline, "<script>").is_empty(), "index.html has something inline");
    assert!(size <= MOST, "{size} bytes in all");
}

#[test]
fn a_file_comes_with_its_policy_type_and_tag_and_is_sent_once() {
    let none = HeaderMap::new();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/ui/app.js", "text/javascript; charset=utf-8"),
        ("/ui/css/base.css", "text/css; charset=utf-8"),
        ("/ui/icon.svg", "image/svg+xml"),
    ] {
        let response = file(path, &none).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), kind);
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!((&*header("x-content-type-options"), &*header("cache-control")), ("nosniff", "no-cache"));
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, HeaderValue::from_str(&format!("\"x\", W/{}", header("etag"))).unwrap());
        let second = file(path, &again).unwrap();
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert!(second.body().as_full().is_none() && second.headers().contains_key(ETAG));
    }
    // By its version a part is kept for good; what another version's page asks for is ours, and kept by nobody.
    let page = file("/", &none).unwrap();
    let page = std::str::from_utf8(page.body().as_full().unwrap()).unwrap().to_owned();
    let parts: Vec<&str> = page.split("\"/ui/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(parts.len() > 10 && parts.iter().all(|part| part.starts_with(&format!("{}/", *VERSION))), "{parts:?}");
    let kept = |path: &str| file(path, &none).unwrap().headers()["cache-control"].to_str().unwrap().to_owned();
    assert_eq!(kept(&format!("/ui/{}", parts[0])), "public, max-age=31536000, immutable");
    assert_eq!(kept("/ui/0123456789abcdef/app.js"), "no-store");
    let same = file("/ui/0123456789abcdef/app.js", &none).unwrap();
    assert_eq!(same.headers()["etag"], file("/ui/app.js", &none).unwrap().headers()["etag"]);
    for path in [
        "/ui/0123456789abcdef/",
        "/ui/0123456789abcdef/nothing.js",
        "/ui/0123456789abcdeg/app.js",
        "/ui",
        "/ui/",
        "/ui/../mod.rs",
        "/ui/nothing.js",
        "/index.html",
        "/favicon.ico",
        "",
        "/ui//app.js",
    ] {
        assert!(file(path, &none).is_none(), "{path}");
    }
}
