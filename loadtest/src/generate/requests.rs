//! What a load sends: one form of request or several in fixed shares, under one key or many in turn.
//!
//! Must never depend on chance: the nth request of a load is the same in every run. With one form and one key nothing is
//! copied; with many keys the key's bytes are put into a copy, so all keys have one length.

use std::ops::Range;

use super::Ending;

/// One form of request, ready for the wire.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// What a report calls it.
    pub(crate) name: String,
    wire: Vec<u8>,
    pub(crate) ending: Ending,
    /// Its reply's events carry their send time.
    pub(crate) stamped: bool,
}

/// Who decides which form comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Turns {
    /// Each request takes the next form.
    #[default]
    Request,
    /// Each connection has its form for good.
    Connection,
}

/// All that a load sends.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    forms: Vec<Form>,
    /// Indices into `forms`, walked round and round.
    pattern: Vec<usize>,
    turns: Turns,
    /// Where a key stands in each form, when there are several keys.
    key_at: Vec<Range<usize>>,
    keys: Vec<String>,
}

impl Form {
    pub(crate) fn new(name: &str, wire: Vec<u8>, ending: Ending, stamped: bool) -> Self {
        Self { name: name.to_owned(), wire, ending, stamped }
    }
}

impl Requests {
    /// The same request over and over.
    pub(crate) fn one(form: Form) -> Self {
        Self { forms: vec![form], pattern: vec![0], turns: Turns::Request, key_at: Vec::new(), keys: Vec::new() }
    }

    /// Several forms with their shares (whole numbers, any sum). An error when there is nothing to send.
    pub(crate) fn mixed(forms: Vec<(usize, Form)>, turns: Turns) -> Result<Self, String> {
        let total: usize = forms.iter().map(|(share, _)| share).sum();
        if total == 0 || total > 10_000 {
            return Err(format!("shares of a mix add up to 1 to 10000, not {total}"));
        }
        // Whoever is furthest behind its share comes next: even spread, whatever the numbers.
        let mut sent = vec![0usize; forms.len()];
        let pattern = (1..=total)
            .map(|at| {
                // Nobody is ever a whole round ahead, so adding one keeps the difference above zero.
                let behind = |index: usize| forms[index].0 * at + total * total - sent[index] * total;
                let next = (0..forms.len()).rev().max_by_key(|index| behind(*index)).unwrap_or(0);
                sent[next] += 1;
                next
            })
            .collect();
        let forms = forms.into_iter().map(|(_, form)| form).collect();
        Ok(Self { forms, pattern, turns, key_at: Vec::new(), keys: Vec::new() })
    }

    /// Sends under each of `keys` in turn. The forms were built with the first of them.
    pub(crate) fn under(mut self, keys: &[String]) -> Result<Self, String> {
        let Some(first) = keys.first().filter(|_| keys.len() > 1) else { return Ok(self) };
        if let Some(odd) = keys.iter().find(|key| key.len() != first.len()) {
            return Err(format!("keys of several lengths: {} and {}", first.len(), odd.len()));
        }
        let place = |form: &Form| {
            let at = memchr::memmem::find(&form.wire, first.as_bytes());
            at.map(|at| at..at + first.len()).ok_or_else(|| format!("{}: no key in the request", form.name))
        };
        self.key_at = self.forms.iter().map(place).collect::<Result<_, _>>()?;
        self.keys = keys.to_vec();
        Ok(self)
    }

    /// The nth request, on a connection: its form and its bytes. `patched` is the connection's room for a copy.
    pub(crate) fn nth<'a>(&'a self, nth: u64, connection: usize, patched: &'a mut Vec<u8>) -> (usize, &'a [u8]) {
        let turn = match self.turns {
            Turns::Request => nth as usize,
            Turns::Connection => connection,
        };
        let form = self.pattern[turn % self.pattern.len()];
        let wire = &self.forms[form].wire;
        if self.keys.is_empty() {
            return (form, wire);
        }
        patched.clear();
        patched.extend_from_slice(wire);
        patched[self.key_at[form].clone()].copy_from_slice(self.keys[nth as usize % self.keys.len()].as_bytes());
        (form, patched)
    }

    pub(crate) fn form(&self, index: usize) -> &Form {
        &self.forms[index]
    }

    /// Names of all forms, when there are several.
    pub(crate) fn names(&self) -> Vec<String> {
        let several = self.forms.len() > 1;
        self.forms.iter().filter(|_| several).map(|form| form.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str) -> Form {
        Form::new(name, format!("{name} KEY-0 .").into_bytes(), Ending::Framed, false)
    }

    #[test]
    fn shares_are_kept_and_spread() {
        let requests = Requests::mixed(vec![(3, form("a")), (1, form("b"))], Turns::Request).unwrap();
        let order: Vec<usize> = (0..8).map(|n| requests.nth(n, 0, &mut Vec::new()).0).collect();
        assert_eq!(order.iter().filter(|form| **form == 0).count(), 6, "{order:?}");
        assert!(order.windows(2).all(|two| two != [1, 1]), "{order:?}");
        assert!(Requests::mixed(vec![(0, form("a"))], Turns::Request).is_err());
    }

    #[test]
    fn a_connection_keeps_its_form() {
        let requests = Requests::mixed(vec![(1, form("a")), (1, form("b"))], Turns::Connection).unwrap();
        let on = |connection| (0..4).map(|n| requests.nth(n, connection, &mut Vec::new()).0).collect::<Vec<_>>();
        assert_ne!(on(0), on(1));
        assert!(on(0).iter().all(|form| *form == on(0)[0]));
    }

    #[test]
    fn keys_take_turns() {
        let keys: Vec<String> = (0..3).map(|n| format!("KEY-{n}")).collect();
        let requests = Requests::one(form("a")).under(&keys).unwrap();
        let mut room = Vec::new();
        assert_eq!(requests.nth(4, 0, &mut room).1, b"a KEY-1 .");
        assert_eq!(requests.nth(6, 0, &mut room).1, b"a KEY-0 .");
        assert!(Requests::one(form("a")).under(&["KEY-0".to_owned(), "K".to_owned()]).is_err());
    }
}
