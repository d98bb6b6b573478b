//! Every metric of the process: name, help and handle in one table. Nothing is measured under a name not listed here.
//!
//! Counters and histograms are striped by thread so that two cores never write one cache line; reading sums them up.
//! Labels are fixed sets known here: nothing a caller sends can become a label.

use crossbeam::utils::CachePadded;
use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

const STRIPES: usize = 16;

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STRIPE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        mine.get()
    })
}

/// A number that only rises.
#[derive(Debug)]
pub struct Counter([CachePadded<AtomicU64>; STRIPES]);

impl Counter {
    const fn new() -> Self {
        Self([const { CachePadded::new(AtomicU64::new(0)) }; STRIPES])
    }

    /// + 1.
    pub fn inc(&self) {
        self.add(1);
    }

    /// + `n`.
    pub fn add(&self, n: u64) {
        self.0[stripe()].fetch_add(n, Ordering::Relaxed);
    }

    /// The sum over all threads.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|one| one.load(Ordering::Relaxed)).sum()
    }
}

/// A number that rises and falls.
#[derive(Debug)]
pub struct Gauge([CachePadded<AtomicI64>; STRIPES]);

impl Gauge {
    const fn new() -> Self {
        Self([const { CachePadded::new(AtomicI64::new(0)) }; STRIPES])
    }

    /// + `n`.
    pub fn add(&self, n: i64) {
        self.0[stripe()].fetch_add(n, Ordering::Relaxed);
    }

    /// The sum over all threads.
    pub fn get(&self) -> i64 {
        self.0.iter().map(|one| one.load(Ordering::Relaxed)).sum()
    }

    /// + 1 now, − 1 when the guard drops.
    pub fn guard(&'static self) -> GaugeGuard {
        self.add(1);
        GaugeGuard(self)
    }
}

/// Gives back what [`Gauge::guard`] took.
#[derive(Debug)]
pub struct GaugeGuard(&'static Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Upper bounds in microseconds, doubling from 16 µs to 1,073 s; the last bucket is +Inf.
const BUCKETS: usize = 27;

/// Durations in powers of two.
#[derive(Debug)]
pub struct Histogram {
    counts: [[AtomicU64; BUCKETS]; STRIPES],
    sums: [CachePadded<AtomicU64>; STRIPES],
}

impl Histogram {
    const fn new() -> Self {
        Self {
            counts: [const { [const { AtomicU64::new(0) }; BUCKETS] }; STRIPES],
            sums: [const { CachePadded::new(AtomicU64::new(0)) }; STRIPES],
        }
    }

    /// One observation, in microseconds.
    pub fn observe_micros(&self, micros: u64) {
        let bucket = (64 - (micros.max(1) - 1).leading_zeros()).saturating_sub(4).min(BUCKETS as u32 - 1) as usize;
        let stripe = stripe();
        self.counts[stripe][bucket].fetch_add(1, Ordering::Relaxed);
        self.sums[stripe].fetch_add(micros, Ordering::Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for bucket in 0..BUCKETS {
            total += self.counts.iter().map(|one| one[bucket].load(Ordering::Relaxed)).sum::<u64>();
            let comma = if labels.is_empty() { "" } else { "," };
            if bucket + 1 == BUCKETS {
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}");
            } else {
                let bound = (16u64 << bucket) as f64 / 1e6;
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
            }
        }
        let sum = self.sums.iter().map(|one| one.load(Ordering::Relaxed)).sum::<u64>() as f64 / 1e6;
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
    }
}

macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $field:ident : $kind:ident = $name:literal $({ $labels:literal })? ; )*) => {
        /// One field a series.
        #[derive(Debug)]
        pub struct Metrics { $( $(#[doc = $help])+ pub $field: $kind, )* }

        /// The process' metrics.
        pub static METRICS: Metrics = Metrics { $( $field: $kind::new(), )* };

        impl Metrics {
            /// Prometheus text format, version 0.0.4.
            pub fn render(&self) -> String {
                let mut out = String::with_capacity(16 * 1024);
                let mut last = "";
                $(
                    if last != $name {
                        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", $name, concat!($($help),+).trim(), $name, $kind::TYPE);
                        last = $name;
                    }
                    self.$field.render_into(&mut out, $name, concat!($($labels)?));
                )*
                let _ = last;
                out
            }

            /// Every series' name, for the documentation's test.
            pub fn names() -> Vec<&'static str> {
                let mut names = vec![$($name),*];
                names.dedup();
                names
            }
        }
    };
}

impl Counter {
    const TYPE: &'static str = "counter";
    fn render_into(&self, out: &mut String, name: &str, labels: &str) {
        render_number(out, name, labels, self.get());
    }
}

impl Gauge {
    const TYPE: &'static str = "gauge";
    fn render_into(&self, out: &mut String, name: &str, labels: &str) {
        render_number(out, name, labels, self.get());
    }
}

impl Histogram {
    const TYPE: &'static str = "histogram";
    fn render_into(&self, out: &mut String, name: &str, labels: &str) {
        self.render(out, name, labels);
    }
}

fn render_number(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

metrics! {
    /// Requests of the data plane answered, by class of status.
    requests_2xx: Counter = "merido_requests_total" {"status=\"2xx\""};
    /// Requests of the data plane answered, by class of status.
    requests_4xx: Counter = "merido_requests_total" {"status=\"4xx\""};
    /// Requests of the data plane answered, by class of status.
    requests_5xx: Counter = "merido_requests_total" {"status=\"5xx\""};
    /// Requests whose client left before the answer was whole.
    requests_abandoned: Counter = "merido_requests_abandoned_total";
    /// Data-plane requests now running.
    requests_running: Gauge = "merido_requests_running";
    /// Time from a request's head to its answer's last byte.
    request_seconds: Histogram = "merido_request_duration_seconds";
    /// Time from a request's head to the provider's first byte.
    first_byte_seconds: Histogram = "merido_first_byte_seconds";
    /// The gateway's own time in a request, by step.
    overhead_before_seconds: Histogram = "merido_overhead_seconds" {"step=\"before_upstream\""};
    /// The gateway's own time in a request, by step.
    overhead_after_seconds: Histogram = "merido_overhead_seconds" {"step=\"after_first_byte\""};
    /// Tokens relayed, by kind.
    tokens_prompt: Counter = "merido_tokens_total" {"kind=\"prompt\""};
    /// Tokens relayed, by kind.
    tokens_completion: Counter = "merido_tokens_total" {"kind=\"completion\""};
    /// Calls to providers, by outcome.
    upstream_ok: Counter = "merido_upstream_attempts_total" {"outcome=\"ok\""};
    /// Calls to providers, by outcome.
    upstream_refused: Counter = "merido_upstream_attempts_total" {"outcome=\"refused\""};
    /// Calls to providers, by outcome.
    upstream_failed: Counter = "merido_upstream_attempts_total" {"outcome=\"failed\""};
    /// Connections opened to providers.
    upstream_connects: Counter = "merido_upstream_connects_total";
    /// Connections to providers, open now.
    upstream_connections: Gauge = "merido_upstream_connections";
    /// Connections of clients, open now.
    client_connections: Gauge = "merido_client_connections";
    /// Connections of clients refused because every permit was taken.
    client_connections_refused: Counter = "merido_client_connections_refused_total";
    /// Accepts that failed (descriptors used up, say); each is followed by a pause.
    accept_errors: Counter = "merido_accept_errors_total";
    /// TLS handshakes of clients that failed or took too long.
    tls_errors: Counter = "merido_tls_handshake_errors_total";
    /// Access lines lost because their queue was full.
    access_lines_dropped: Counter = "merido_access_lines_dropped_total";
    /// Spans of traced requests, by whether the collector took them.
    spans_sent: Counter = "merido_trace_spans_total" {"outcome=\"sent\""};
    /// Spans of traced requests, by whether the collector took them.
    spans_dropped: Counter = "merido_trace_spans_total" {"outcome=\"dropped\""};
    /// Request-log rows written.
    log_rows: Counter = "merido_log_rows_total";
    /// Request-log rows sampled away above `MERIDO_LOG_ROWS_PER_SECOND` (usage totals stay exact).
    log_rows_sampled: Counter = "merido_log_rows_sampled_total";
    /// Request-log rows lost because their queue was full.
    log_rows_dropped: Counter = "merido_log_rows_dropped_total";
    /// Request-log rows written to the spill file because the store was away.
    log_rows_spilled: Counter = "merido_log_rows_spilled_total";
    /// Store transactions that failed.
    store_errors: Counter = "merido_store_errors_total";
    /// Calls of the store by kind; none is made for a request, whose usage is appended in batches.
    store_appends: Counter = "merido_store_calls_total" {"op=\"append\""};
    /// Calls of the store by kind; none is made for a request, whose usage is appended in batches.
    store_looks: Counter = "merido_store_calls_total" {"op=\"look\""};
    /// Calls of the store by kind; none is made for a request, whose usage is appended in batches.
    store_spent: Counter = "merido_store_calls_total" {"op=\"spent\""};
    /// Calls of the store by kind; none is made for a request, whose usage is appended in batches.
    store_prunes: Counter = "merido_store_calls_total" {"op=\"prune\""};
    /// Calls of the store by kind; none is made for a request, whose usage is appended in batches.
    store_reads: Counter = "merido_store_calls_total" {"op=\"read\""};
    /// Calls of the store by kind; none is made for a request, whose usage is appended in batches.
    store_writes: Counter = "merido_store_calls_total" {"op=\"write\""};
    /// Times the catalog was built and published.
    catalog_builds: Counter = "merido_catalog_builds_total";
    /// Live events dropped because their ring was overtaken or full.
    events_dropped: Counter = "merido_events_dropped_total";
    /// Messages of the cluster, by what became of them; `skipped` counts each entry of a kind or form unknown here, `refused` those no instance of this deployment wrote.
    cluster_heard: Counter = "merido_cluster_messages_total" {"result=\"heard\""};
    /// Messages of the cluster, by what became of them; `skipped` counts each entry of a kind or form unknown here, `refused` those no instance of this deployment wrote.
    cluster_own: Counter = "merido_cluster_messages_total" {"result=\"own\""};
    /// Messages of the cluster, by what became of them; `skipped` counts each entry of a kind or form unknown here, `refused` those no instance of this deployment wrote.
    cluster_refused: Counter = "merido_cluster_messages_total" {"result=\"refused\""};
    /// Messages of the cluster, by what became of them; `skipped` counts each entry of a kind or form unknown here, `refused` those no instance of this deployment wrote.
    cluster_skipped: Counter = "merido_cluster_messages_total" {"result=\"skipped\""};
    /// Gaps shown to those who follow the live events.
    events_gaps: Counter = "merido_events_gaps_total";
    /// Live events sent to the other instances, and taken from them.
    events_sent: Counter = "merido_cluster_events_total" {"direction=\"sent\""};
    /// Live events sent to the other instances, and taken from them.
    events_received: Counter = "merido_cluster_events_total" {"direction=\"received\""};
    /// Batches of live events put into the shared stream.
    events_batches: Counter = "merido_cluster_event_batches_total";
    /// Batches put into the shared stream again, because it was emptied or lost its end.
    events_resent: Counter = "merido_cluster_event_batches_resent_total";
    /// `started` events not sent to other instances, above 4,000 events a second.
    events_shed: Counter = "merido_cluster_events_shed_total";
    /// Live events that never reached the other instances: the backlog for Redis was full.
    events_lost: Counter = "merido_cluster_events_lost_total";
    /// Numbers of other instances' live events that the shared stream did not hold when they were looked for.
    events_missing: Counter = "merido_cluster_events_missing_total";
    /// Batches of a version that is not known here.
    events_unknown: Counter = "merido_cluster_event_batches_skipped_total" {"why=\"version\""};
    /// Batches that can't be read.
    events_broken: Counter = "merido_cluster_event_batches_skipped_total" {"why=\"broken\""};
    /// From the shared stream's taking a batch to our reading it.
    events_lag_seconds: Histogram = "merido_cluster_event_lag_seconds";
    /// Answers served from the dedup cache, followers of a call in flight included.
    dedup_hits: Counter = "merido_dedup_hits_total";
    /// Answers of another instance served here.
    dedup_shared_hits: Counter = "merido_dedup_shared_total" {"what=\"hit\""};
    /// Answers of this instance put where others find them.
    dedup_shared_kept: Counter = "merido_dedup_shared_total" {"what=\"kept\""};
    /// Answers too large to be shared.
    dedup_shared_too_large: Counter = "merido_dedup_shared_total" {"what=\"too_large\""};
    /// Shared answers that could not be read: changed, of another form, or under another key. Each was a miss.
    dedup_shared_unreadable: Counter = "merido_dedup_shared_total" {"what=\"unreadable\""};
    /// Shared answers and questions for them that were dropped because their queue was full or Redis away.
    dedup_shared_dropped: Counter = "merido_dedup_shared_total" {"what=\"dropped\""};
    /// Calls this instance made for the whole cluster.
    dedup_claims_led: Counter = "merido_dedup_claims_total" {"what=\"led\""};
    /// Calls this instance waited for another to make.
    dedup_claims_waited: Counter = "merido_dedup_claims_total" {"what=\"waited\""};
    /// Calls that outlasted the wait: this instance made its own.
    dedup_claims_given_up: Counter = "merido_dedup_claims_total" {"what=\"given_up\""};
    /// Answers of Redis' scripts that could not be read (another version wrote there, or somebody else).
    cluster_unreadable: Counter = "merido_redis_unreadable_total";
    /// Login attempts decided without the cluster, because it could not be asked in time.
    logins_uncounted: Counter = "merido_logins_decided_alone_total";
    /// Requests with an API key that is not known here.
    unknown_keys: Counter = "merido_unknown_api_keys_total";
    /// Requests that waited for Redis to decide on their limits.
    limits_waited: Counter = "merido_limits_waited_total";
    /// Requests with limits let in because Redis was away or late.
    limits_fail_open: Counter = "merido_limits_fail_open_total";
    /// Settlements that found no room among those waiting to be told to Redis; each is told with its key's next call.
    limits_unsaid_over: Counter = "merido_limits_settlements_deferred_total";
    /// Calls to Redis on behalf of limits.
    limits_calls: Counter = "merido_limits_calls_total";
    /// Logins to the control plane, by outcome.
    logins_ok: Counter = "merido_logins_total" {"outcome=\"ok\""};
    /// Logins to the control plane, by outcome.
    logins_wrong: Counter = "merido_logins_total" {"outcome=\"wrong\""};
    /// Logins to the control plane, by outcome.
    logins_throttled: Counter = "merido_logins_total" {"outcome=\"throttled\""};
    /// Entries of the control plane's audit that could not be written.
    audit_lost: Counter = "merido_audit_lost_total";
    /// Answers to similar questions served from the semantic cache.
    semantic_hits: Counter = "merido_semantic_hits_total";
    /// Requests refused by a limit of ours.
    rate_limited: Counter = "merido_rate_limited_total";
    /// Round trips to Redis: from sending a batch to its last answer.
    redis_trip_seconds: Histogram = "merido_redis_round_trip_seconds";
    /// How long the first thing in a batch waited before the batch was sent.
    redis_queue_seconds: Histogram = "merido_redis_queue_seconds";
    /// Batches sent to Redis, one a round trip and server.
    redis_batches: Counter = "merido_redis_batches_total";
    /// Commands sent to Redis; by batches: the mean size of one.
    redis_commands: Counter = "merido_redis_commands_total";
    /// Connections opened to Redis, tries that failed included.
    redis_connects: Counter = "merido_redis_connects_total";
    /// Redis servers that answer now (of a Redis Cluster: nodes).
    redis_up: Gauge = "merido_redis_servers_up";
    /// Times a Redis server went down, by cause.
    redis_down_timeout: Counter = "merido_redis_down_total" {"cause=\"timeout\""};
    /// Times a Redis server went down, by cause.
    redis_down_lost: Counter = "merido_redis_down_total" {"cause=\"connection\""};
    /// Times a Redis server went down, by cause.
    redis_down_unfit: Counter = "merido_redis_down_total" {"cause=\"refused\""};
    /// Probes of Redis that failed.
    redis_probes_failed: Counter = "merido_redis_probes_failed_total";
    /// Calls left unanswered because Redis was, or went, down.
    redis_unanswered: Counter = "merido_redis_unanswered_total";
    /// Answers of Redis that were there when our timer fired: it was we who were late.
    redis_late_wakeups: Counter = "merido_redis_late_wakeups_total";
    /// Calls that a node of a Redis Cluster sent elsewhere.
    redis_redirects: Counter = "merido_redis_redirects_total";
    /// Tasks now running: one a client connection, and the background ones.
    tasks: Gauge = "merido_tasks";
    /// Tasks that panicked (each is a defect).
    task_panics: Counter = "merido_task_panics_total";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_puts_each_value_at_or_below_its_bound() {
        static H: Histogram = Histogram::new();
        for micros in [0, 1, 16, 17, 32, 33, 1_000_000, u64::MAX] {
            H.observe_micros(micros);
        }
        let mut out = String::new();
        H.render(&mut out, "h", "");
        assert!(out.contains("h_bucket{le=\"0.000016\"} 3\n"), "{out}");
        assert!(out.contains("h_bucket{le=\"0.000032\"} 5\n"), "{out}");
        assert!(out.contains("h_bucket{le=\"0.000064\"} 6\n"), "{out}");
        assert!(out.contains("h_bucket{le=\"+Inf\"} 8\n"), "{out}");
    }

    #[test]
    fn every_name_is_ours_and_every_series_is_rendered_once() {
        let text = METRICS.render();
        for name in Metrics::names() {
            assert!(name.starts_with("merido_"), "{name}");
        }
        let mut series: Vec<_> =
            text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').map(|(s, _)| s)).collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all);
    }
}

#[cfg(test)]
#[path = "metrics_docs.rs"]
mod docs;
