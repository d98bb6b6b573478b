//! Rust source as words: comments gone, strings kept apart, each with its line and whether it is test code.
//!
//! Not a parser: just enough that a rule is not fooled by a comment, a string or a line break.

/// One word.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    /// Identifier or keyword.
    Word(String),
    /// `::`.
    Path,
    /// A string's content, escapes as written.
    Text(String),
    /// Any other sign.
    Sign(char),
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
    /// Within an item marked `#[cfg(test)]` or `#[test]`.
    pub(crate) test: bool,
}

impl Token {
    pub(crate) fn word(&self) -> Option<&str> {
        if let Kind::Word(word) = &self.kind { Some(word) } else { None }
    }

    pub(crate) fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = words(text);
    mark_tests(&mut tokens);
    tokens
}

fn words(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i, mut line) = (Vec::new(), 0, 1);
    while i < chars.len() {
        let c = chars[i];
        let (start, start_line) = (i, line);
        let kind = match c {
            '\n' => {
                line += 1;
                i += 1;
                continue;
            }
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
                continue;
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (chars[i], at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => {
                            line += usize::from(chars[i] == '\n');
                            i += 1;
                        }
                    }
                    if depth == 0 {
                        break;
                    }
                }
                continue;
            }
            c if c.is_whitespace() => {
                i += 1;
                continue;
            }
            '"' => Kind::Text(string(&chars, &mut i, &mut line, None)),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && chars[i] != '\'' {
                    i += 1;
                }
                i += 1;
                continue;
            }
            ':' if at(i + 1) == ':' => {
                i += 2;
                Kind::Path
            }
            c if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
                match word.as_str() {
                    "r" | "br" | "cr" if at(i + hashes) == '"' => {
                        i += hashes;
                        Kind::Text(string(&chars, &mut i, &mut line, Some(hashes)))
                    }
                    "b" | "c" if at(i) == '"' => Kind::Text(string(&chars, &mut i, &mut line, None)),
                    "b" if at(i) == '\'' => continue,
                    _ => Kind::Word(word),
                }
            }
            other => {
                i += 1;
                Kind::Sign(other)
            }
        };
        out.push(Token { kind, line: start_line, test: false });
    }
    out
}

/// From the opening quote; `raw` is the number of `#` around a raw string.
fn string(chars: &[char], i: &mut usize, line: &mut usize, raw: Option<usize>) -> String {
    *i += 1;
    let start = *i;
    while *i < chars.len() {
        match chars[*i] {
            '\\' if raw.is_none() => {
                *line += usize::from(chars.get(*i + 1) == Some(&'\n'));
                *i += 2;
                continue;
            }
            '"' if chars[*i + 1..].iter().take_while(|c| **c == '#').count() >= raw.unwrap_or(0) => break,
            '\n' => *line += 1,
            _ => {}
        }
        *i += 1;
    }
    let content = chars[start..(*i).min(chars.len())].iter().collect();
    *i += 1 + raw.unwrap_or(0);
    content
}

/// An attribute with `test` in it (`#[test]`, `#[cfg(test)]`, `#[cfg(all(test, unix))]`) marks the item after it.
fn mark_tests(tokens: &mut [Token]) {
    let mut i = 0;
    while i + 1 < tokens.len() {
        if !(tokens[i].is('#') && tokens[i + 1].is('[')) {
            i += 1;
            continue;
        }
        let close = matching(tokens, i + 1);
        let words: Vec<_> = tokens[i + 1..close].iter().filter_map(Token::word).collect();
        let marks = match words.first() {
            Some(&"test") => true,
            Some(&"cfg") => words.contains(&"test") && !words.contains(&"not"),
            _ => false,
        };
        if !marks {
            i = close;
            continue;
        }
        let mut end = close + 1;
        while end < tokens.len() && !tokens[end].is(';') && !tokens[end].is('{') {
            // Over attributes, argument lists and array types, in which a `;` ends nothing.
            end = if tokens[end].is('(') || tokens[end].is('[') { matching(tokens, end) + 1 } else { end + 1 };
        }
        let end = if end < tokens.len() && tokens[end].is('{') { matching(tokens, end) } else { end };
        let last = end.min(tokens.len() - 1);
        for token in &mut tokens[i..=last] {
            token.test = true;
        }
        i = last + 1;
    }
}

/// Where the bracket at `open` closes.
pub(crate) fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (n, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => {
                depth -= 1;
                if depth == 0 {
                    return n;
                }
            }
            _ => {}
        }
    }
    tokens.len().saturating_sub(1)
}
