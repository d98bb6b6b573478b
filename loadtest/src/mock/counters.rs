//! What the mock has seen, counted per core and summed when asked (`GET /__mock/stats`).
//!
//! Must never be shared between cores on the hot path: each core writes its own line of memory.
//! Counters wrap after 2^64; nothing else can go wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// One core's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    connections: AtomicU64,
    calls: AtomicU64,
    streams: AtomicU64,
    refused: AtomicU64,
    aborted: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

/// The sum over all cores, as the stats endpoint answers it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Connections accepted.
    pub(crate) connections: u64,
    /// Calls received whole, refused ones included; the stats endpoint's own are not counted.
    pub(crate) calls: u64,
    /// Of those, answered as event streams.
    pub(crate) streams: u64,
    /// Of those, answered with `--status` or as unknown paths.
    pub(crate) refused: u64,
    /// Calls whose client left before the reply was written whole.
    pub(crate) aborted: u64,
    /// Prompt tokens reported in replies written whole. A stream not asked for its usage reports none.
    pub(crate) prompt_tokens: u64,
    /// Completion tokens reported, likewise.
    pub(crate) completion_tokens: u64,
}

impl Counters {
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn aborted(&self) {
        self.aborted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reported(&self, tokens: super::book::Tokens) {
        self.prompt_tokens.fetch_add(tokens.prompt, Ordering::Relaxed);
        self.completion_tokens.fetch_add(tokens.completion, Ordering::Relaxed);
    }

    /// Takes back what a reply would have reported had it been written whole.
    pub(crate) fn unreported(&self, tokens: super::book::Tokens) {
        self.prompt_tokens.fetch_sub(tokens.prompt, Ordering::Relaxed);
        self.completion_tokens.fetch_sub(tokens.completion, Ordering::Relaxed);
    }
}

/// Adds up all cores. Not a snapshot of one moment: read it when the load has ended.
pub(crate) fn sum(all: &[Counters]) -> Stats {
    let mut stats = Stats::default();
    for core in all {
        stats.connections += core.connections.load(Ordering::Relaxed);
        stats.calls += core.calls.load(Ordering::Relaxed);
        stats.streams += core.streams.load(Ordering::Relaxed);
        stats.refused += core.refused.load(Ordering::Relaxed);
        stats.aborted += core.aborted.load(Ordering::Relaxed);
        stats.prompt_tokens += core.prompt_tokens.load(Ordering::Relaxed);
        stats.completion_tokens += core.completion_tokens.load(Ordering::Relaxed);
    }
    stats
}
