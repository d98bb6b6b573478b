//! What a purse and Redis say to each other: one call under way, everything in it absolute or cumulative.

use super::{ASKS, Ask, Flying, LEASE_HERE, REMEMBERED, SLOTS_HERE, Turn};
use crate::base::Now;
use crate::state::buckets::{Bucket, Purse, Which};
use crate::state::desk::{LimitCall, LimitReply};

impl Purse {
    /// What Redis is to be told and asked, if anything. The call counts as under way from here on.
    pub(crate) fn call(&mut self, turn: Turn, now: Now) -> Option<LimitCall> {
        let limits = self.limits;
        self.refresh(&limits, now);
        let seed = |limit: u32, bucket: &Bucket| if limit == 0 { i64::MAX } else { bucket.for_redis() };
        let seed = (seed(limits.rpm, &self.requests), seed(limits.tpm, &self.tokens));
        let running = self.running;
        let lease = self.lease.as_deref_mut()?;
        // Each queue has a purse once: only its own turn there ends that.
        lease.on.listed &= turn != Turn::Listed;
        lease.on.later &= turn != Turn::Later;
        lease.on.beating &= turn != Turn::Beat;
        // Who no longer waits is not asked for: that would be a debit for nothing.
        lease.asks.retain(|ask| !ask.reply.is_closed());
        // A lease renewed since has another end, and a look of its own.
        let renewed = matches!(turn, Turn::Lapse(until) if until != lease.until);
        if lease.flying.is_some() || renewed {
            return None;
        }
        let held = lease.in_hand(now);
        let ((want_requests, want_tokens), least) =
            if turn == Turn::Close { ((0, 0), 0) } else { lease.wanted(&limits, now) };
        // Twice as much as is needed: the rest is for others.
        let excess = |have: u64, want: u64| if have > 2 * want { have - want } else { 0 };
        let back = (excess(held.0, want_requests), excess(held.1, want_tokens));
        let spare = if turn == Turn::Close { 0 } else { lease.spare_slots(&limits, running, now) };
        let had = lease.slots(now);
        lease.slots = had;
        let keep = if limits.max_parallel == 0 { 0 } else { running + had.saturating_sub(running).min(spare) };
        let speaks = !lease.asks.is_empty()
            || back != (0, 0)
            || lease.used != lease.acked
            || keep != had
            || match turn {
                Turn::Listed | Turn::Later => lease.runs_low(&limits, running, now),
                Turn::Lapse(_) => held != (0, 0),
                Turn::Beat => had > 0,
                Turn::Close => false,
            };
        if !speaks {
            return None;
        }
        lease.seq = (lease.seq + 1).max(now.as_nanos() / 1_000);
        (lease.requests, lease.tokens) = (held.0 - back.0, held.1 - back.1);
        (lease.slots, lease.spare) = (keep, spare);
        let half = |limit: u32, wanted: u64| if limit > 0 { wanted.div_ceil(2) } else { 0 };
        lease.marks = (half(limits.rpm, want_requests), half(limits.tpm, want_tokens));
        let asks: Vec<Ask> = lease.asks.drain(..lease.asks.len().min(ASKS)).collect();
        // Redis may have forgotten us since. What was said to it then is taken to have arrived: it must not be charged
        // twice, and a bucket that was spared it fills up no further than its burst.
        if let Some((_, said)) = lease.doubt.take_if(|(since, _)| now.since(*since) >= REMEMBERED) {
            lease.taken = Some(said);
        }
        lease.doubt = Some((lease.doubt.map_or(now, |(since, _)| since), lease.used));
        let call = LimitCall {
            subject: lease.subject,
            id: lease.id,
            seq: lease.seq,
            answered: lease.answered,
            limits,
            held,
            back,
            want: (want_requests.saturating_sub(lease.requests), want_tokens.saturating_sub(lease.tokens)),
            least,
            used: lease.used,
            acked: lease.taken.unwrap_or(lease.acked),
            seed: if lease.heard.is_some() { seed } else { (i64::MAX, i64::MAX) },
            keep,
            spare: spare.saturating_sub(keep.saturating_sub(running)),
            asks: asks.iter().map(|ask| ask.tokens).collect(),
        };
        lease.flying = Some(Flying { sent: now, used: lease.used, asks, spent: (0, 0) });
        Some(call)
    }

    /// What came of the call. Each ask of it with its verdict (`Ok`: tokens set aside), and what headers say then.
    pub(crate) fn answered(
        &mut self,
        reply: Option<&LimitReply>,
        now: Now,
    ) -> Vec<(Ask, Result<Option<u64>, Which>, Bucket, Bucket)> {
        let limits = self.limits;
        self.refresh(&limits, now);
        let Self { requests, tokens, running, lease: Some(lease), .. } = self else { return Vec::new() };
        let Some(flying) = lease.flying.take() else { return Vec::new() };
        // Its fate is unknown: what is in hand stays good until it lapses, and all else is said again next time.
        let Some(reply) = reply else { return Vec::new() };
        (lease.acked, lease.answered) = (flying.used, lease.seq);
        (lease.doubt, lease.taken) = (None, None);
        lease.heard = Some(now);
        lease.share = None;
        let (kept, leased) = ((reply.kept.0.cast_signed(), reply.kept.1.cast_signed()), reply.leased);
        requests.set_from_redis(reply.start.0);
        tokens.set_from_redis(reply.start.1);
        let mut done = Vec::with_capacity(flying.asks.len());
        for (n, ask) in flying.asks.into_iter().enumerate() {
            let verdict = match reply.verdicts.get(n) {
                Some(b'0') => {
                    if limits.rpm > 0 {
                        requests.charge(1);
                    }
                    *running += 1;
                    Ok((limits.tpm > 0).then(|| tokens.charge(ask.tokens)))
                }
                Some(b'4') => Err(Which::Parallel),
                Some(b'2') => Err(Which::Tokens),
                Some(b'3') if tokens.time_to_cover(ask.tokens) > requests.time_to_cover(1) => Err(Which::Tokens),
                _ => Err(Which::Requests),
            };
            let shown = (requests.plus(Bucket::parts(kept.0)), tokens.plus(Bucket::parts(kept.1)));
            done.push((ask, verdict, shown.0, shown.1));
        }
        lease.refused = done.iter().any(|(_, verdict, ..)| matches!(verdict, Err(Which::Requests | Which::Tokens)));
        lease.shown = (
            requests.plus(Bucket::parts(kept.0 - flying.spent.0.cast_signed())).balance(),
            tokens.plus(Bucket::parts(kept.1 - flying.spent.1.cast_signed())).balance(),
        );
        *requests = requests.plus(-Bucket::parts(leased.0.cast_signed()));
        *tokens = tokens.plus(-Bucket::parts(leased.1.cast_signed()));
        // What Redis has booked for us, less what went from it while the call was under way.
        lease.requests = (reply.kept.0 + leased.0).saturating_sub(flying.spent.0);
        lease.tokens = (reply.kept.1 + leased.1).saturating_sub(flying.spent.1);
        lease.until = flying.sent + LEASE_HERE;
        lease.slots = reply.slots;
        lease.slots_until = flying.sent + SLOTS_HERE;
        done
    }
}
