//! How listings look: aligned columns for people, an array of objects for programs.

use super::Stop;
use crate::base::Clock;
use serde_json::Value;
use std::io::Write;

/// A listing: `columns` name what of each object a person sees, in order; a program sees all of it.
pub(super) fn listing(out: &mut dyn Write, json: bool, columns: &[&str], rows: &[Value]) -> Result<(), Stop> {
    if json {
        return object(out, &Value::Array(rows.to_vec()));
    }
    let cell = |row: &Value, column: &str| match row.get(column) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<_> =
                items.iter().map(|item| item.as_str().map_or(item.to_string(), str::to_owned)).collect();
            items.join(",")
        }
        Some(other) => other.to_string(),
    };
    let mut lines = vec![columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()));
    let widths: Vec<usize> =
        (0..columns.len()).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// One JSON value on a line.
pub(super) fn object(out: &mut dyn Write, value: &Value) -> Result<(), Stop> {
    Ok(writeln!(out, "{value}")?)
}

/// Unix milliseconds as RFC 3339, UTC, whole seconds: the form scripts compare and sort.
pub(super) fn time(ms: u64) -> String {
    let whole = Clock::rfc3339(ms);
    // Up to the dot of `….000Z`.
    format!("{}Z", &whole[..whole.len() - 5])
}
