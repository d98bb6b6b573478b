//! Query strings: parameters by name, each taken once; one that is misspelt is refused rather than ignored, since a
//! filter that does not filter shows too much.

use super::asked::wrong;
use super::input::decode_form;
use crate::base::Error;
use std::str::FromStr;

/// Rows in a page unless asked otherwise.
pub(super) const PAGE: u32 = 100;
/// And at most.
pub(super) const LARGEST_PAGE: u32 = 1000;

/// A query's parameters.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Of what follows the question mark.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut all: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode_form(name)?, decode_form(value)?);
            if value.chars().any(char::is_control) {
                return Err(wrong(name, "must hold no control characters"));
            }
            if all.iter().any(|(other, _)| *other == name) {
                return Err(wrong(name, "is there twice"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// Takes one out. Empty is the same as absent: that is what an empty form field sends.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_empty())
    }

    /// Takes one out as a `T`.
    pub(super) fn read<T: FromStr>(&mut self, name: &'static str, must: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(name, format!("must be {must}")))
    }

    /// `limit`.
    pub(super) fn limit(&mut self) -> Result<u32, Error> {
        let limit = self.read::<u32>("limit", "a number of 1 to 1000")?.unwrap_or(PAGE);
        if (1..=LARGEST_PAGE).contains(&limit) { Ok(limit) } else { Err(wrong("limit", "must be 1 to 1000")) }
    }

    /// Nothing else may be there.
    pub(super) fn done(self) -> Result<(), Error> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(wrong(name, "is no parameter of this endpoint"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_each_is_taken_once() {
        let mut query = Query::parse("q=a+b%26&limit=5&provider=").unwrap();
        assert_eq!(query.text("q").as_deref(), Some("a b&"));
        assert_eq!(query.text("q"), None);
        assert_eq!(query.limit().unwrap(), 5);
        assert_eq!(query.text("provider"), None);
        query.done().unwrap();
    }

    #[test]
    fn what_is_wrong_names_its_parameter() {
        for (text, name) in
            [("limit=0", "limit"), ("limit=x", "limit"), ("a=1&a=2", "a"), ("lmit=1", "lmit"), ("q=%00", "q")]
        {
            let error = Query::parse(text).and_then(|mut query| query.limit().and_then(|_| query.done())).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{text}");
        }
        assert!(Query::parse("%zz=1").is_err());
    }
}
