//! `loadtest chaos`: what shared state costs two merido, with Redis well and in every kind of trouble.
//!
//! Three sorts of cells: faults under load ([`faults`]), how soon a rest of one instance is the other's ([`cooldown`]),
//! and what requests cost Redis ([`costs`]). Must never leave a program running, and must not call a run good in which a
//! request failed: that ends with exit code 1.

mod cooldown;
mod costs;
mod faults;
mod pair;
mod redis;

use std::path::PathBuf;

use serde::Serialize;

use crate::compare::{say, until_signalled};
use crate::generate::Stop;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// merido's binary.
    #[arg(long, default_value = "target/release/merido")]
    merido: PathBuf,
    /// Requests per second over both instances: half of one key, half of 10,000 slow ones.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Connections to each instance for each half.
    #[arg(long, default_value_t = 24)]
    connections: usize,
    /// Seconds of each window.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each fault strikes.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only cells whose name holds one of these (`killed`, `cooldown`, `costs`, …); all unless given.
    #[arg(long, value_delimiter = ',')]
    cell: Vec<String>,
    /// Trips of the cooldown cell.
    #[arg(long, default_value_t = 200)]
    trips: usize,
    /// Further settings of both instances, as `NAME=VALUE`.
    #[arg(long)]
    env: Vec<String>,
    /// Write everything here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Everything measured.
#[derive(Debug, Default, Serialize)]
struct Report {
    faults: Vec<faults::Row>,
    cooldown: Option<cooldown::Trips>,
    costs: Vec<costs::Row>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.cell.is_empty() || self.cell.iter().any(|part| name.contains(part.as_str()))
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let stop = Stop::default();
    let mut report = Report::default();
    let done = until_signalled(&stop, || all(options, &stop, &mut report));
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    done?;
    match report.faults.iter().map(|row| row.failed).sum::<u64>()
        + report.costs.iter().map(|row| row.failed).sum::<u64>()
    {
        0 => Ok(()),
        failed => Err(format!("{failed} requests failed")),
    }
}

fn all(options: &Options, stop: &Stop, report: &mut Report) -> Result<(), String> {
    let dir = || tempfile::Builder::new().prefix("chaos-").tempdir().map_err(|error| format!("temp dir: {error}"));
    if faults::names().any(|name| options.wants(name)) {
        faults::run(options, dir()?.path(), stop, &mut report.faults)?;
    }
    if options.wants("cooldown") {
        let trips = cooldown::run(options, dir()?.path(), stop)?;
        say(&trips.table())?;
        report.cooldown = Some(trips);
    }
    if options.wants("costs") {
        costs::run(options, dir()?.path(), stop, &mut report.costs)?;
    }
    if stop.is_set() { Err("stopped by a signal".to_owned()) } else { Ok(()) }
}
