//! The half-open trial of an account: one in the whole cluster.
//!
//! Only an attempt that would be the trial asks, under the Redis deadline; every other request goes by without a look.
//! Nobody to ask, or no answer in time: this instance's own trial it is.

use super::Proxy;
use crate::base::{Clock, Now};
use crate::routing::{Pick, Plan, Tried, pick};
use crate::state::breakers::{Claimed, Claiming};
use crate::state::live::Probe;
use std::time::Duration;

/// For how long nobody here asks again about a trial that another instance makes; its verdict usually comes sooner.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// Trials refused to one request before it leaves the account alone.
const MOST_REFUSALS: u32 = 3;

/// An attempt's leave to be the trial; keep it until the verdict was applied and told.
#[derive(Debug)]
pub(super) struct Trial {
    // Ends first: who hears of the claim's end may claim at once, and then finds the verdict.
    _claim: Option<Claiming>,
    _probe: Probe,
}

/// The next target; as the cluster's one trial, where a trial is what it would be.
pub(super) async fn next(proxy: &Proxy, plan: &Plan, tried: &mut Tried) -> (Pick, Option<Trial>, Now) {
    let mut refused = 0;
    loop {
        let now = Clock::now();
        let mut picked = pick(plan, tried, &mut proxy.dice.lock(), now);
        let Pick::Go(_, probe) = &mut picked else { return (picked, None, now) };
        let Some(probe) = probe.take() else { return (picked, None, now) };
        // Rare, and large beside what every request carries.
        let trial = Box::pin(claim(proxy, probe)).await;
        if trial.is_some() {
            return (picked, trial, now);
        }
        refused += 1;
        // It was not tried: its rest may just have been cleared. One that says so again and again has to wait.
        if refused <= MOST_REFUSALS {
            tried.take_back();
        }
    }
}

/// Makes this instance's probe the cluster's. `None`: it is not to be; pick again.
async fn claim(proxy: &Proxy, probe: Probe) -> Option<Trial> {
    let Some((claim, answer)) = proxy.shared.breakers.claim(probe.account().id()) else {
        return Some(Trial { _claim: None, _probe: probe });
    };
    match tokio::time::timeout(proxy.shared.settings.redis_deadline, answer).await {
        Ok(Ok(Claimed::Elsewhere(left))) => {
            probe.elsewhere(Clock::now() + left.min(ELSEWHERE));
            None
        }
        Ok(Ok(Claimed::Changed)) => None,
        // Granted, or nobody there.
        Ok(Ok(Claimed::Granted) | Err(_)) | Err(_) => Some(Trial { _claim: Some(claim), _probe: probe }),
    }
}
