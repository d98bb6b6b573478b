//! A JSON body, field by field: absent, `null` or a value; and whatever is wrong names its field.
//!
//! A derived parser would stop at "invalid type at line 1": here a program reads which field to mend.

use super::asked::wrong;
use crate::base::Error;
use serde_json::{Map, Number, Value};

/// A body's fields; each is taken once.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

/// A field as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Given<T> {
    /// Not at all: leave it as it is.
    Absent,
    /// `null`: back to the default.
    Null,
    Value(T),
}

/// What a field can be read as.
pub(super) trait Field: Sized {
    /// What it must be, in words.
    const MUST: &'static str;
    fn read(value: Value) -> Option<Self>;
}

/// Dollars, in nanodollars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dollars(pub(super) i64);

/// More than anybody spends, and far from where nanodollars overflow.
const MOST_DOLLARS: f64 = 1e9;

impl Fields {
    /// Of a body.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Error::malformed("the body must be a JSON object")),
            Err(e) => Err(Error::malformed(format!("the body can't be read: {e}"))),
        }
    }

    /// Takes one out.
    pub(super) fn take<T: Field>(&mut self, name: &'static str) -> Result<Given<T>, Error> {
        match self.0.remove(name) {
            None => Ok(Given::Absent),
            Some(Value::Null) => Ok(Given::Null),
            Some(value) => T::read(value).map(Given::Value).ok_or_else(|| wrong(name, format!("must be {}", T::MUST))),
        }
    }

    /// Takes one out that must be there.
    pub(super) fn needed<T: Field>(&mut self, name: &'static str) -> Result<T, Error> {
        match self.take(name)? {
            Given::Value(value) => Ok(value),
            Given::Absent | Given::Null => Err(wrong(name, format!("is missing; it must be {}", T::MUST))),
        }
    }

    /// Takes one out whose absence and `null` mean the same.
    pub(super) fn maybe<T: Field>(&mut self, name: &'static str) -> Result<Option<T>, Error> {
        Ok(self.take(name)?.some())
    }

    /// Nothing else may be there: a field that is misspelt must not be ignored.
    pub(super) fn done(self) -> Result<(), Error> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(wrong(name, "is no field of this endpoint"))
            }
        }
    }
}

impl<T> Given<T> {
    /// The value, if there is one.
    pub(super) fn some(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// Puts what was given into `place`.
    pub(super) fn apply(self, place: &mut Option<T>) {
        match self {
            Self::Absent => {}
            Self::Null => *place = None,
            Self::Value(value) => *place = Some(value),
        }
    }

    /// With its value changed.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Given<U> {
        match self {
            Self::Absent => Given::Absent,
            Self::Null => Given::Null,
            Self::Value(value) => Given::Value(change(value)),
        }
    }
}

/// A whole number, however it is written: JSON makes no difference between 1 and 1.0.
fn whole(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        (float >= 0.0 && float.fract() == 0.0 && float < 9_007_199_254_740_992.0).then_some(float as u64)
    })
}

impl Field for u32 {
    const MUST: &'static str = "a whole number of 0 to 4294967295";
    fn read(value: Value) -> Option<Self> {
        whole(value.as_number()?)?.try_into().ok()
    }
}

impl Field for u64 {
    const MUST: &'static str = "a whole number";
    fn read(value: Value) -> Option<Self> {
        whole(value.as_number()?)
    }
}

impl Field for bool {
    const MUST: &'static str = "true or false";
    fn read(value: Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for String {
    const MUST: &'static str = "a string";
    fn read(value: Value) -> Option<Self> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
}

impl<T: Field> Field for Vec<T> {
    const MUST: &'static str = "a list";
    fn read(value: Value) -> Option<Self> {
        if let Value::Array(list) = value { list.into_iter().map(T::read).collect() } else { None }
    }
}

impl Field for Map<String, Value> {
    const MUST: &'static str = "an object";
    fn read(value: Value) -> Option<Self> {
        if let Value::Object(map) = value { Some(map) } else { None }
    }
}

impl Field for Dollars {
    const MUST: &'static str = "a number of dollars, 0 to 1000000000";
    fn read(value: Value) -> Option<Self> {
        let dollars = value.as_f64().filter(|dollars| (0.0..=MOST_DOLLARS).contains(dollars))?;
        // Rounded, so that 0.1 is a hundred million nanodollars and not one less.
        Some(Self((dollars * 1e9).round() as i64))
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        let mut body = fields(r#"{"a":null,"b":3.0,"c":0.1}"#);
        assert_eq!(body.take::<u32>("x").unwrap(), Given::Absent);
        assert_eq!(body.take::<u32>("a").unwrap(), Given::Null);
        assert_eq!(body.take::<u32>("b").unwrap(), Given::Value(3));
        assert_eq!(body.take::<Dollars>("c").unwrap(), Given::Value(Dollars(100_000_000)));
        body.done().unwrap();
        let mut place = Some(1);
        Given::Absent.apply(&mut place);
        assert_eq!(place, Some(1));
        Given::Null.apply(&mut place);
        assert_eq!(place, None);
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        let wrong = |text: &str| {
            let mut body = fields(text);
            let read = body.take::<u32>("rpm").map(drop).and_then(|()| body.take::<Vec<String>>("models").map(drop));
            let error = read.and_then(|()| body.done()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unprocessable);
            error.param.map(std::borrow::Cow::into_owned)
        };
        for (text, field) in [
            (r#"{"rpm":"x"}"#, "rpm"),
            (r#"{"rpm":-1}"#, "rpm"),
            (r#"{"rpm":1.5}"#, "rpm"),
            (r#"{"rpm":4294967296}"#, "rpm"),
            (r#"{"rpm":1e300}"#, "rpm"),
            (r#"{"models":["a",1]}"#, "models"),
            (r#"{"models":{}}"#, "models"),
            (r#"{"rmp":1}"#, "rmp"),
        ] {
            assert_eq!(wrong(text).as_deref(), Some(field), "{text}");
        }
        for text in ["", "[]", "{", "1", "\"x\"", "{\"a\":\"\\ud800\"}"] {
            assert_eq!(Fields::parse(text.as_bytes()).unwrap_err().kind, ErrorKind::Malformed, "{text}");
        }
    }
}
