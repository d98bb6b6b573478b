//! Every path a file mentions, in `use` trees and inline, made absolute where it begins with `crate`, `self` or `super`.

use crate::lexer::{Kind, Token, matching};

/// `crate::base::Now` as `["crate", "base", "Now"]`.
#[derive(Debug)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) test: bool,
}

/// The module that `path` (`src/a/b.rs`) is: `["a", "b"]`.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] || module == ["main"] {
        module.pop();
    }
    module
}

/// All paths with at least two segments, in order.
pub(crate) fn mentions(tokens: &[Token], module: &[String]) -> Vec<Mention> {
    let mut out = Vec::new();
    // Inline modules open at this point: (name, index of the closing brace).
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        inline.retain(|(_, end)| i <= *end);
        if tokens[i].word() == Some("mod")
            && tokens.get(i + 2).is_some_and(|t| t.is('{'))
            && let Some(name) = tokens[i + 1].word()
        {
            inline.push((name.to_owned(), matching(tokens, i + 2)));
        }
        let follows_path = i > 0 && tokens[i - 1].kind == Kind::Path;
        let starts = tokens[i].word().is_some() && !follows_path;
        if starts && tokens.get(i + 1).is_some_and(|t| t.kind == Kind::Path) {
            let here: Vec<String> = module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect();
            i = walk(tokens, i, &[], &here, &mut out);
        } else {
            i += 1;
        }
    }
    out
}

/// One path or tree from `i` on, below `prefix`; where it ends.
fn walk(tokens: &[Token], mut i: usize, prefix: &[String], here: &[String], out: &mut Vec<Mention>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens[i].line;
    let test = tokens[i].test;
    loop {
        match tokens.get(i).map(|token| &token.kind) {
            Some(Kind::Word(word)) => path.push(word.clone()),
            Some(Kind::Sign('*')) if !path.is_empty() => path.push("*".to_owned()),
            Some(Kind::Sign('{')) => {
                let close = matching(tokens, i);
                let mut n = i + 1;
                while n < close {
                    if tokens[n].word().is_some() || tokens[n].is('{') {
                        n = walk(tokens, n, &path, here, out);
                        // `as name`
                        while n < close && !tokens[n].is(',') {
                            n += 1;
                        }
                    }
                    n += 1;
                }
                return close + 1;
            }
            // A turbofish or something else: the path ends here.
            _ => break,
        }
        i += 1;
        if tokens.get(i).is_some_and(|token| token.kind == Kind::Path) {
            i += 1;
        } else {
            break;
        }
    }
    out.push(Mention { path: absolute(&path, here), line, test });
    i
}

fn absolute(path: &[String], here: &[String]) -> Vec<String> {
    let mut base: Vec<String> = here.to_vec();
    let mut rest = path;
    match rest.first().map(String::as_str) {
        Some("super") => {
            while rest.first().is_some_and(|word| word == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        Some("self") => rest = &rest[1..],
        // The library's own name, as `main` and integration tests see it.
        Some("crate" | "merido") => {
            base.clear();
            rest = &rest[1..];
        }
        _ => return path.to_vec(),
    }
    std::iter::once("crate".to_owned()).chain(base).chain(rest.iter().cloned()).collect()
}
