//! Whether another instance has the answer already, or is about to.
//!
//! Every wait is bounded, and whatever goes wrong means "make the call": with the cluster a request may cost a deadline
//! more, never its answer. While nobody can be asked it costs one load.

use super::{Proxy, Question};
use crate::base::metrics::METRICS;
use crate::state::dedup::{Claim, Found};
use std::time::Duration;
use tokio::time::timeout;

/// How long another instance's call is waited for. It comes whole, so for a stream this delays the first byte.
const WHOLE: Duration = Duration::from_secs(30);
const STREAM: Duration = Duration::from_secs(10);

/// What there is; never [`Found::Wait`].
pub(super) async fn found(proxy: &Proxy, question: &Question, claim: &Claim) -> Found {
    let settings = &proxy.shared.settings;
    let Some(asked) = proxy.shared.elsewhere.look(claim, settings.dedup_cluster) else { return Found::Nothing };
    let later = match timeout(settings.redis_deadline, asked).await {
        Ok(Ok(Found::Wait(later))) => later,
        Ok(Ok(found)) => return found,
        Ok(Err(_)) | Err(_) => return Found::Nothing,
    };
    METRICS.dedup_claims_waited.inc();
    let Ok(found) = timeout(if question.stream { STREAM } else { WHOLE }, later).await else {
        METRICS.dedup_claims_given_up.inc();
        return Found::Nothing;
    };
    found.unwrap_or(Found::Nothing)
}
