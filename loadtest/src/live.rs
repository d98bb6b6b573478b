//! Progress of a run in the terminal: one line that is written over.
//!
//! Must never write where nobody looks: without a terminal on standard error it is silent. What it reads are counters
//! that the run keeps anyway.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::clock;
use crate::generate::{Load, Outcome};

/// Runs `work`, showing `title`, the time and the rate of `load` meanwhile.
pub(crate) fn watch(work: &dyn Fn() -> Result<Outcome, String>, title: &str, load: &Load) -> Result<Outcome, String> {
    if !io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        let ticker = std::thread::Builder::new().name("progress".to_owned());
        let shown = ticker.spawn_scoped(scope, move || {
            let (start, mut last, mut seen) = (clock::now(), clock::now(), 0);
            while ended.recv_timeout(Duration::from_millis(250)) == Err(RecvTimeoutError::Timeout) {
                let (now, begun) = (clock::now(), load.begun.load(Ordering::Relaxed));
                let rate = begun.saturating_sub(seen) as f64 / (now - last).as_secs_f64().max(1e-3);
                (last, seen) = (now, begun);
                show(&line(title, now - start, load.duration, begun, rate));
            }
            show("");
        });
        let outcome = work();
        drop(done);
        // Without its thread the line is missing, nothing else.
        drop(shown);
        outcome
    })
}

/// Writes over the line; an empty text takes it away.
pub(crate) fn show(text: &str) {
    if io::stderr().is_terminal() {
        let mut out = io::stderr();
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
    }
}

fn line(title: &str, since: Duration, of: Duration, begun: u64, rate: f64) -> String {
    let lead = if title.is_empty() { String::new() } else { format!("{title} · ") };
    format!("{lead}{:.0}/{:.0} s · {begun} requests · {rate:.0}/s", since.as_secs_f64(), of.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let line = line("unary · nginx", Duration::from_secs(2), Duration::from_secs(5), 1200, 601.4);
        assert_eq!(line, "unary · nginx · 2/5 s · 1200 requests · 601/s");
    }
}
