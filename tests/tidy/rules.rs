//! The rules themselves. Each looks at one file and adds its violations; none stops at the first.

use crate::Source;
use crate::lexer::{Kind, Token, tokens};
use crate::paths::{Mention, mentions, module_of};

/// Who lives on which floor. Imports point down; neighbours do not see each other; `app` sees all.
pub(crate) const FLOORS: &[(usize, &[&str])] = &[
    (6, &["app"]),
    (5, &["urls", "cli"]),
    (4, &["proxy", "admin"]),
    (3, &["server", "upstream", "store", "cluster"]),
    (2, &["routing"]),
    (1, &["config", "dialect", "state"]),
    (0, &["base"]),
];

/// Narrower than the floors say: of floor 3 (and 4) only these, each a path below `crate`.
const NARROWER: &[(&str, &[&str])] = &[
    ("proxy", &["upstream", "server::body", "server::Body", "server::Source", "server::Peer", "server::peer"]),
    ("admin", &["store", "server::body", "server::Body", "server::Peer", "server::peer"]),
    ("cli", &["store", "!routing", "!dialect"]),
];

/// Memory, decisions, formats: no socket, no file, no spawn, no clock.
const PURE: &[&str] = &["state", "routing", "dialect"];

/// Where an error response may be spelled.
const ERRORS: &[&str] = &["src/dialect/errors", "src/server/body"];

const ONE_SPAWNER: &str = "only base/tasks.rs spawns: it names tasks and waits for them";
const ONE_CLOCK: &str = "only base/clock.rs reads time";
const ONE_MOUTH: &str = "an error response is spelled in dialect/errors (server/body for the control plane) only";
const LONGEST: usize = 500;

/// All violations, as `file:line: what`.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let test_files = test_files(sources);
    let mut out = Vec::new();
    for source in sources {
        let mut say = |line: usize, what: String| out.push((source.path.clone(), line, what));
        plates_and_length(source, &mut say);
        if !source.path.starts_with("src/") {
            continue;
        }
        let mut tokens = tokens(&source.text);
        if test_files.iter().any(|prefix| source.path.starts_with(prefix.as_str())) {
            for token in &mut tokens {
                token.test = true;
            }
        }
        let module = module_of(&source.path);
        let room = module.first().map_or("", String::as_str);
        let mentions = mentions(&tokens, &module);
        layers(room, &mentions, &mut say);
        spawners(&source.path, &tokens, &mentions, &mut say);
        clocks(&source.path, &tokens, &mentions, &mut say);
        if PURE.contains(&room) {
            purity(room, &tokens, &mentions, &mut say);
        }
        if !ERRORS.iter().any(|place| source.path.starts_with(place)) {
            error_responses(&tokens, &mut say);
        }
    }
    out.sort();
    out.dedup();
    out.into_iter().map(|(path, line, what)| format!("{path}:{line}: {what}")).collect()
}

/// What `#[cfg(test)] mod name;` makes test code: path prefixes.
fn test_files(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let tokens = tokens(&source.text);
        for (n, _) in tokens.iter().enumerate().filter(|(_, token)| token.test && token.word() == Some("mod")) {
            let [name, end] = &tokens[n + 1..(n + 3).min(tokens.len())] else { continue };
            if !end.is(';') {
                continue;
            }
            let (dir, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
            // `#[path = "…"]` names a file beside this one, whatever this one is called.
            if let [.., word, equals, Token { kind: Kind::Text(beside), .. }, close] = &tokens[..n]
                && (word.word(), equals.is('='), close.is(']')) == (Some("path"), true, true)
            {
                found.push(format!("{dir}/{beside}"));
                continue;
            }
            let inside = match file {
                "mod.rs" | "lib.rs" | "main.rs" => dir.to_owned(),
                other => format!("{dir}/{}", other.trim_end_matches(".rs")),
            };
            let name = name.word().unwrap_or_default();
            found.extend([format!("{inside}/{name}.rs"), format!("{inside}/{name}/")]);
        }
    }
    found
}

fn plates_and_length(source: &Source, say: &mut impl FnMut(usize, String)) {
    let plate = source.text.lines().next().and_then(|line| line.strip_prefix("//!")).unwrap_or_default();
    if plate.trim().len() < 10 {
        say(1, "no door plate: the first line is `//! what lives here …`".to_owned());
    }
    let lines = source.text.lines().count();
    if lines > LONGEST {
        say(lines, format!("{lines} lines, more than {LONGEST}: split it by subject"));
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

fn layers(room: &str, mentions: &[Mention], say: &mut impl FnMut(usize, String)) {
    if room.is_empty() || room == "app" {
        return;
    }
    let Some(mine) = floor(room) else {
        return say(1, format!("room `{room}` stands on no floor: add it to src/lib.rs and tests/tidy/rules.rs"));
    };
    for mention in mentions.iter().filter(|mention| mention.path.first().is_some_and(|root| root == "crate")) {
        let Some(theirs) = mention.path.get(1) else { continue };
        let Some(below) = floor(theirs).filter(|_| theirs != room) else { continue };
        let path = mention.path[1..].join("::");
        let wrong = if below > mine {
            Some("imports point down")
        } else if below == mine {
            Some("rooms on one floor do not see each other")
        } else if !narrowly_allowed(room, below, &path) {
            Some("this room sees less of the floors below (see NARROWER in tests/tidy/rules.rs)")
        } else {
            None
        };
        if let Some(why) = wrong {
            say(mention.line, format!("`{room}` must not see `crate::{path}`: {why}"));
        }
    }
}

fn narrowly_allowed(room: &str, floor: usize, path: &str) -> bool {
    let Some((_, allowed)) = NARROWER.iter().find(|(narrow, _)| *narrow == room) else { return true };
    let under = |place: &str| path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with("::"));
    if allowed.iter().any(|entry| entry.strip_prefix('!').is_some_and(under)) {
        return false;
    }
    floor < 3 || allowed.iter().any(|entry| under(entry))
}

fn spawners(path: &str, tokens: &[Token], mentions: &[Mention], say: &mut impl FnMut(usize, String)) {
    if path == "src/base/tasks.rs" {
        return;
    }
    for mention in mentions.iter().filter(|mention| !mention.test) {
        let [.., owner, last] = &mention.path[..] else { continue };
        let spawns = matches!(last.as_str(), "spawn" | "spawn_local" | "spawn_blocking" | "spawn_on");
        if spawns && owner != "tasks" && owner != "Tasks" {
            say(mention.line, format!("`{}`: {ONE_SPAWNER}", mention.path.join("::")));
        }
    }
    for n in 1..tokens.len().saturating_sub(1) {
        let Some(word @ ("spawn" | "spawn_local" | "spawn_blocking" | "spawn_scoped")) = tokens[n].word() else {
            continue;
        };
        let called = tokens[n - 1].is('.') && (tokens[n + 1].is('(') || tokens[n + 1].kind == Kind::Path);
        let receiver = n.checked_sub(2).and_then(|before| tokens[before].word());
        if called
            && !tokens[n].test
            && !(word == "spawn" && receiver.is_some_and(|name| name == "tasks" || name.ends_with("_tasks")))
        {
            say(tokens[n].line, format!("`.{word}(…)` on something not called `tasks` or `…_tasks`: {ONE_SPAWNER}"));
        }
    }
}

fn clocks(path: &str, tokens: &[Token], mentions: &[Mention], say: &mut impl FnMut(usize, String)) {
    if path == "src/base/clock.rs" {
        return;
    }
    for mention in mentions.iter().filter(|mention| !mention.test) {
        let [.., owner, last] = &mention.path[..] else { continue };
        let reads = last == "now" && matches!(owner.as_str(), "Instant" | "SystemTime" | "Utc" | "Local")
            || matches!(last.as_str(), "now_utc" | "now_local");
        // A runtime's timer takes its own kind of instant, and only tasks waits for a deadline shared by many.
        let timer = path == "src/base/tasks.rs" && mention.path.starts_with(&["tokio".into(), "time".into()]);
        if reads && !timer {
            say(mention.line, format!("`{}`: {ONE_CLOCK}", mention.path.join("::")));
        }
    }
    for three in tokens.windows(3) {
        let [one, dot, method] = three else { continue };
        if one.word() == Some("UNIX_EPOCH") && dot.is('.') && method.word() == Some("elapsed") && !one.test {
            say(one.line, format!("`UNIX_EPOCH.elapsed()`: {ONE_CLOCK}"));
        }
    }
}

/// What pure rooms must not name, as paths.
const WORLDS: &[&str] = &[
    "tokio::net",
    "tokio::fs",
    "tokio::time",
    "tokio::process",
    "tokio::spawn",
    "tokio::task",
    "tokio::runtime",
    "std::fs",
    "std::process",
    "std::os::unix::net",
    "std::thread::spawn",
    "std::thread::Builder",
    "std::thread::sleep",
    "thread::sleep",
    "crate::base::tasks",
    "crate::base::clock::Clock",
    "crate::base::Clock",
    "crate::base::alarms",
    "socket2",
    "hyper",
    "fs::read",
    "fs::write",
    "fs::File",
];

/// And as single words, however they were imported.
const NAMES: &[&str] = &["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "Clock", "OpenOptions"];

fn purity(room: &str, tokens: &[Token], mentions: &[Mention], say: &mut impl FnMut(usize, String)) {
    for mention in mentions.iter().filter(|mention| !mention.test) {
        let path = mention.path.join("::");
        let under = |world: &&&str| path == **world || path.strip_prefix(**world).is_some_and(|r| r.starts_with("::"));
        if let Some(world) = WORLDS.iter().find(under) {
            say(mention.line, format!("`{path}`: `{room}` is pure, {world} is the world"));
        }
    }
    for token in tokens.iter().filter(|token| !token.test) {
        if let Some(word) = token.word().filter(|word| NAMES.contains(word)) {
            say(token.line, format!("`{word}`: `{room}` is pure; take `now: Now` or plain data instead"));
        }
    }
}

/// A JSON object that begins with `error`, or says `"type":"error"`, as text or in `json!`.
fn error_responses(tokens: &[Token], say: &mut impl FnMut(usize, String)) {
    for (n, token) in tokens.iter().enumerate().filter(|(_, token)| !token.test) {
        let Kind::Text(text) = &token.kind else { continue };
        let bare: String = text.chars().filter(|c| !c.is_whitespace() && *c != '\\').collect();
        let spelled = bare.contains("{\"error\":") || bare.contains("\"type\":\"error\"");
        let next_is = |sign| tokens.get(n + 1).is_some_and(|next| next.is(sign));
        let in_json = bare == "error" && next_is(':') && n > 0 && tokens[n - 1].is('{');
        let typed = bare == "type"
            && next_is(':')
            && tokens.get(n + 2).is_some_and(|value| value.kind == Kind::Text("error".to_owned()));
        if spelled || in_json || typed {
            say(token.line, ONE_MOUTH.to_owned());
        }
    }
}
