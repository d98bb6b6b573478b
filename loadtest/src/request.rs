//! Builds the request a load sends: head, body of a wanted size, in the caller's dialect.
//!
//! Must never depend on the time or on chance: the same arguments give the same bytes.

use std::fmt::Write as _;

use crate::generate::{Ending, Form};

/// What the request should be.
#[derive(Debug, Clone)]
pub(crate) struct Shape<'a> {
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) model: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Size of the body, bytes; a floor is what the fixed fields need.
    pub(crate) body_bytes: usize,
    /// Further lines of the head.
    pub(crate) headers: &'a [(String, String)],
}

impl Shape<'_> {
    /// Head and body, ready for the wire.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let body = self.body();
        let key = self.key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let mut more = String::new();
        for (name, value) in self.headers {
            let _ = write!(more, "{name}: {value}\r\n");
        }
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\n{key}{more}content-type: application/json\r\naccept: */*\r\n\
             user-agent: loadtest\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.host,
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    /// How a complete reply to it must end.
    pub(crate) fn ending(&self) -> Ending {
        match (self.stream, self.path) {
            (true, "/v1/chat/completions" | "/v1/completions") => Ending::Done,
            (true, "/v1/messages") => Ending::MessageStop,
            _ => Ending::Framed,
        }
    }

    /// The request as one form of a load. `stamped`: a paced mock answers it.
    pub(crate) fn form(&self, name: &str, stamped: bool) -> Form {
        Form::new(name, self.wire(), self.ending(), self.stream && stamped)
    }

    fn body(&self) -> Vec<u8> {
        let bare = self.json("").len();
        let text: String = "Tell me how a relay keeps its costs low. "
            .chars()
            .cycle()
            .take(self.body_bytes.saturating_sub(bare))
            .collect();
        self.json(&text).into_bytes()
    }

    fn json(&self, text: &str) -> String {
        let model = self.model;
        let stream = if self.stream { r#","stream":true"# } else { "" };
        let usage = if self.stream && self.include_usage { r#","stream_options":{"include_usage":true}"# } else { "" };
        match self.path {
            "/v1/embeddings" => format!(r#"{{"model":"{model}","input":"{text}"}}"#),
            "/v1/responses" => format!(r#"{{"model":"{model}"{stream},"input":"{text}"}}"#),
            "/v1/completions" => format!(r#"{{"model":"{model}"{stream}{usage},"prompt":"{text}"}}"#),
            "/v1/messages" => format!(
                r#"{{"model":"{model}","max_tokens":256{stream},"messages":[{{"role":"user","content":"{text}"}}]}}"#
            ),
            _ => format!(
                r#"{{"model":"{model}","temperature":0.7,"max_tokens":256{stream}{usage},"messages":[{{"role":"system","content":"You answer briefly."}},{{"role":"user","content":"{text}"}}]}}"#
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(path: &str, stream: bool) -> Shape<'_> {
        Shape {
            path,
            host: "h",
            model: "m",
            key: Some("k"),
            stream,
            include_usage: true,
            body_bytes: 930,
            headers: &[],
        }
    }

    #[test]
    fn bodies_have_the_size_asked_for_and_are_json() {
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/completions"] {
            for stream in [false, true] {
                let body = shape(path, stream).body();
                assert_eq!(body.len(), 930, "{path}");
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(json["model"], "m");
            }
        }
    }

    #[test]
    fn the_end_mark_follows_the_dialect() {
        assert_eq!(shape("/v1/chat/completions", true).ending(), Ending::Done);
        assert_eq!(shape("/v1/chat/completions", false).ending(), Ending::Framed);
        assert_eq!(shape("/v1/messages", true).ending(), Ending::MessageStop);
    }
}
