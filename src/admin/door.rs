//! The door before a password check: this instance's count of failures, and the cluster's. The stricter one decides.
//!
//! The cluster is asked under a deadline and never waited for beyond it. Without an answer this instance decides alone,
//! by its own count and by the last refusal it heard: making Redis fall silent opens nothing.

use crate::base::metrics::METRICS;
use crate::base::{Clock, Error, ErrorKind};
use crate::state::logins::{Counted, Logins, Said, Verdict};
use crate::state::subject::Net;
use crate::state::throttle::{Attempt, Throttle, Throttled};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Lets attempts in.
#[derive(Debug)]
pub struct Door {
    throttle: Arc<Throttle>,
    logins: Logins,
    deadline: Duration,
}

/// An attempt let in; counted as failed wherever it is counted, until one of its ends is told.
#[must_use = "a right password must be refunded"]
pub(super) struct Entered {
    here: Attempt,
    everywhere: Option<Counted>,
}

impl Door {
    /// Asks through `logins`, each time for `deadline` at most.
    pub fn new(throttle: Arc<Throttle>, logins: Logins, deadline: Duration) -> Self {
        Self { throttle, logins, deadline }
    }

    /// May a password from `net` be looked at?
    pub(super) async fn enter(&self, net: Net) -> Result<Entered, Error> {
        let now = Clock::now();
        let mut here = self.throttle.attempt(net, now);
        if let Err(throttled) = &here
            && !throttled.overall_only
        {
            return Err(refused(*throttled));
        }
        // An address that another instance knows is spared here, too.
        let (everywhere, verdict) = self.ask(net).await;
        let now = Clock::now();
        let elsewhere = match verdict {
            Some(Verdict::Wait(wait)) => {
                self.throttle.heard(net, Some(wait), now);
                Some(Throttled { retry_after: wait.max(Duration::from_secs(1)), overall_only: false })
            }
            Some(Verdict::In { known }) => {
                self.throttle.heard(net, None, now);
                if known {
                    self.throttle.remember(net, now);
                    if here.is_err() {
                        here = self.throttle.attempt(net, now);
                    }
                }
                None
            }
            None => self.throttle.last_heard(net, now),
        };
        match (here, elsewhere) {
            (Ok(here), None) => Ok(Entered { here, everywhere }),
            (here, elsewhere) => {
                let counted_there = !matches!(verdict, Some(Verdict::Wait(_)));
                if let Some(counted) = everywhere.filter(|_| counted_there) {
                    self.logins.say(Said::NotJudged(counted));
                }
                let longest = match here {
                    Ok(attempt) => {
                        self.throttle.not_judged(attempt);
                        elsewhere
                    }
                    Err(throttled) => {
                        elsewhere.filter(|one| one.retry_after > throttled.retry_after).or(Some(throttled))
                    }
                };
                Err(longest.map_or_else(|| Error::internal("this login was not judged"), refused))
            }
        }
    }

    /// The password was right.
    pub(super) fn right(&self, entered: Entered) {
        self.throttle.succeeded(entered.here, Clock::now());
        if let Some(counted) = entered.everywhere {
            self.logins.say(Said::Right(counted));
        }
    }

    /// Nobody looked at it after all.
    pub(super) fn not_judged(&self, entered: Entered) {
        self.throttle.not_judged(entered.here);
        if let Some(counted) = entered.everywhere {
            self.logins.say(Said::NotJudged(counted));
        }
    }

    async fn ask(&self, net: Net) -> (Option<Counted>, Option<Verdict>) {
        let Some((counted, verdict)) = self.logins.attempt(net) else { return (None, None) };
        let verdict = timeout(self.deadline, verdict).await.ok().and_then(Result::ok);
        if verdict.is_none() {
            METRICS.logins_uncounted.inc();
        }
        (Some(counted), verdict)
    }
}

fn refused(throttled: Throttled) -> Error {
    METRICS.logins_throttled.inc();
    Error::new(ErrorKind::RateLimited, "too many wrong passwords; try again later").retry_after(throttled.retry_after)
}
