//! Gemini's schemas (types in capitals, `nullable` beside them) as JSON Schema, members in their order.
//!
//! Its own depth is bounded: deeper ones are refused.

use super::super::json::{At, Obj, list, text};
use crate::base::Error;
use serde_json::value::RawValue;
use std::fmt::Write as _;

/// Deeper than any real schema.
const DEEPEST: u32 = 32;

/// `raw` as JSON Schema.
pub(super) fn from_openapi(raw: &RawValue, at: At<'_>) -> Result<String, Error> {
    let mut out = String::with_capacity(raw.get().len());
    schema(raw, at, 0, &mut out)?;
    Ok(out)
}

fn schema(raw: &RawValue, at: At<'_>, depth: u32, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(at.foreign("it nests too deep"));
    }
    let obj = Obj::read(raw, at)?;
    let nullable = obj.flag("nullable")? == Some(true);
    out.push('{');
    let mut first = true;
    for (name, value) in obj.members() {
        // Order is the members' own here.
        if matches!(&**name, "nullable" | "propertyOrdering" | "property_ordering") || value.get() == "null" {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        let name = match &**name {
            "any_of" => "anyOf",
            "min_items" => "minItems",
            "max_items" => "maxItems",
            name => name,
        };
        // A key is a text that was read, so it can be written.
        let _ = write!(out, "{}:", serde_json::Value::from(name));
        let at = at.key(name);
        match name {
            "type" => {
                let kind = text(value).ok_or_else(|| at.wrong("must be a string"))?.to_ascii_lowercase();
                let kind = serde_json::Value::from(kind);
                let _ = if nullable { write!(out, "[{kind},\"null\"]") } else { write!(out, "{kind}") };
            }
            "items" | "additionalProperties" if value.get().starts_with('{') => schema(value, at, depth + 1, out)?,
            "properties" => {
                let properties = Obj::read(value, at)?;
                out.push('{');
                for (n, (name, value)) in properties.members().iter().enumerate() {
                    let comma = if n > 0 { "," } else { "" };
                    let _ = write!(out, "{comma}{}:", serde_json::Value::from(&**name));
                    schema(value, at.key(name), depth + 1, out)?;
                }
                out.push('}');
            }
            "anyOf" => {
                out.push('[');
                for (n, value) in list(value).ok_or_else(|| at.wrong("must be a list"))?.into_iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { "" });
                    schema(value, at.index(n), depth + 1, out)?;
                }
                out.push(']');
            }
            // 64-bit numbers come as texts.
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
                let digits = text(value).filter(|text| text.parse::<u64>().is_ok());
                out.push_str(digits.as_deref().unwrap_or(value.get()));
            }
            _ => out.push_str(value.get()),
        }
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::json::document;
    use super::*;

    fn turned(text: &str) -> Result<String, Error> {
        from_openapi(document(text.as_bytes()).unwrap(), At::ROOT)
    }

    #[test]
    fn types_are_lower_case_and_order_stays() {
        let openapi = r#"{"type":"OBJECT","properties":{"z":{"type":"STRING","nullable":true,"enum":["A"]},
            "a":{"type":"ARRAY","items":{"type":"INTEGER"},"minItems":"1"}},"required":["z"],"propertyOrdering":["z","a"]}"#;
        assert_eq!(
            turned(openapi).unwrap(),
            r#"{"type":"object","properties":{"z":{"type":["string","null"],"enum":["A"]},"a":{"type":"array","items":{"type":"integer"},"minItems":1}},"required":["z"]}"#
        );
    }

    #[test]
    fn one_that_never_ends_is_refused() {
        let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(5000), "}".repeat(5000));
        assert!(turned(&deep).unwrap_err().message.contains("too deep"));
        assert!(turned(r#"{"type":7}"#).is_err() && turned("[]").is_err());
    }
}
