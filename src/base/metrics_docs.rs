//! Holds `docs/METRICS.md`, the dashboard and the alerts against the metrics there are: a panel over a name that nobody
//! counts shows nothing, and an alert over one never rings.
//!
//! `MERIDO_TEST_BLESS=1 cargo test --lib metrics` writes the table.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const BEGIN: &str = "<!-- table: made from src/base/metrics.rs -->\n";
const END: &str = "<!-- end of table -->\n";
const DASHBOARD: &str = include_str!("../../docs/grafana.json");
const ALERTS: &str = include_str!("../../docs/alerts.yml");

/// Type, help, and the values of each label, by name.
struct Metric {
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn metrics() -> BTreeMap<String, Metric> {
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    let text = METRICS.render();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((found, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            found.clone_into(&mut name);
            all.insert(name.clone(), Metric { kind: String::new(), help: help.to_owned(), labels: BTreeMap::new() });
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut all.get_mut(&name).unwrap().kind);
        } else if let Some(labels) = line.split_once('{').and_then(|(_, rest)| Some(rest.rsplit_once('}')?.0)) {
            for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
                if label != "le" {
                    let values = all.get_mut(&name).unwrap().labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    all
}

/// Every mention of a metric in `text`, with the labels that are asked of it.
fn mentions(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let text = text.replace("\\\"", "\"");
    let mut out = Vec::new();
    for (at, _) in text.match_indices("merido_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let mut labels = Vec::new();
        if let Some(inner) = rest[end..].strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            for pair in inner.0.split(',').filter(|pair| !pair.is_empty()) {
                let (label, value) = pair.split_once('=').unwrap_or((pair, ""));
                let value = value.trim_start_matches('~').trim_matches('"');
                labels.push((label.trim_end_matches('!').trim().to_owned(), value.to_owned()));
            }
        }
        out.push((rest[..end].to_owned(), labels));
    }
    out
}

#[test]
fn every_panel_and_alert_asks_for_what_is_there() {
    let all = metrics();
    for (file, text) in [("grafana.json", DASHBOARD), ("alerts.yml", ALERTS)] {
        let mentions = mentions(text);
        assert!(mentions.len() > 10, "{file}");
        for (name, labels) in mentions {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let histogram = base.and_then(|base| all.get(base)).filter(|metric| metric.kind == "histogram");
            let metric = histogram.or_else(|| all.get(&name)).unwrap_or_else(|| panic!("{file}: no metric {name}"));
            assert!(histogram.is_some() || metric.kind != "histogram", "{file}: {name} needs _bucket, _sum or _count");
            for (label, value) in labels {
                // These two are Prometheus' own.
                if label == "job" || label == "instance" {
                    continue;
                }
                let known = metric.labels.get(&label).unwrap_or_else(|| panic!("{file}: {name} has no label {label}"));
                for one in value.split('|') {
                    assert!(known.contains(one), "{file}: {name} has no {label}={one:?}");
                }
            }
        }
    }
}

#[test]
fn the_dashboard_is_json_and_its_panels_lie_apart() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        let number = |name: &str| place[name].as_u64().unwrap();
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} lies over another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_alert_says_when_how_bad_and_what_to_do() {
    let mut alerts = 0;
    for block in ALERTS.split("- alert: ").skip(1) {
        alerts += 1;
        for needed in ["expr:", "for:", "severity:", "summary:", "description:"] {
            assert!(block.contains(needed), "no {needed} in {}", block.lines().next().unwrap());
        }
    }
    assert!(alerts > 8);
}

#[test]
fn the_table_of_metrics_is_what_is_measured() {
    let mut table = String::from("| metric | type | labels | what |\n|---|---|---|---|\n");
    for (name, metric) in metrics() {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|(label, values)| format!("`{label}`: {}", values.iter().cloned().collect::<Vec<_>>().join(", ")))
            .collect();
        let _ = writeln!(table, "| `{name}` | {} | {} | {} |", metric.kind, labels.join("; "), metric.help);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (there, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("MERIDO_TEST_BLESS").is_some() {
        std::fs::write(path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
    } else {
        assert!(there == table, "docs/METRICS.md is old: MERIDO_TEST_BLESS=1 cargo test --lib metrics");
    }
}
