//! Values with the types they go as. Text is made fit first: PostgreSQL takes no zero byte, and a client can send one.

use crate::store::columns::Columns;
use crate::store::error::Result;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// A value that knows its type.
pub(super) trait Typed: ToSql + Sync + Sized {
    const TYPE: Type;
}

macro_rules! typed {
    ($($rust:ty => $sql:ident),* $(,)?) => { $(impl Typed for $rust { const TYPE: Type = Type::$sql; })* };
}

typed! {
    i64 => INT8, Option<i64> => INT8, Vec<i64> => INT8_ARRAY, Vec<Option<i64>> => INT8_ARRAY,
    bool => BOOL, Vec<bool> => BOOL_ARRAY,
    String => TEXT, Option<String> => TEXT, &str => TEXT, Option<&str> => TEXT,
    Vec<String> => TEXT_ARRAY, Vec<Option<String>> => TEXT_ARRAY,
    Vec<u8> => BYTEA, Option<Vec<u8>> => BYTEA, &[u8] => BYTEA,
}

pub(super) fn typed<T: Typed>(value: &T) -> super::Param<'_> {
    (value, T::TYPE)
}

/// The parameters of a statement, in order.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::store::postgres::values::typed(&$value)),*] };
}
pub(super) use params;

/// Text the database takes: without zero bytes.
pub(super) fn fit(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A count that fits a signed number.
pub(super) fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Columns for Row {
    fn int(&self, at: usize) -> Result<i64> {
        Ok(self.try_get(at)?)
    }

    fn some_int(&self, at: usize) -> Result<Option<i64>> {
        Ok(self.try_get(at)?)
    }

    fn text(&self, at: usize) -> Result<String> {
        Ok(self.try_get(at)?)
    }

    fn some_text(&self, at: usize) -> Result<Option<String>> {
        Ok(self.try_get(at)?)
    }

    fn bytes(&self, at: usize) -> Result<Vec<u8>> {
        Ok(self.try_get(at)?)
    }

    fn some_bytes(&self, at: usize) -> Result<Option<Vec<u8>>> {
        Ok(self.try_get(at)?)
    }

    fn flag(&self, at: usize) -> Result<bool> {
        Ok(self.try_get(at)?)
    }
}
