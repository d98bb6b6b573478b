//! Answers to similar questions: only the last user message may differ, and only in words that mean the same.
//!
//! Off by default, one instance's own. An entry lies in a [`Scope`]: caller, model and everything of the request but that
//! message must be equal before two vectors are even compared, so an answer never reaches another key. Bounded by bytes
//! and age; when full, the oldest go. A failure here is a miss.

use super::answer::Answer;
use super::shelf::Shelf;
use crate::base::Now;
use crate::base::stripes::Stripes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Questions compared in one scope at most: a lookup stays in the microseconds.
const IN_A_SCOPE: usize = 64;

/// Expired entries removed in one sweep at most.
const SWEEP: usize = 256;

/// A keyed hash of everything that must be equal (see `dedup::Fingerprints::scope`).
pub type Scope = [u8; 32];

/// A direction: what an embedding makes of a text. Of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector(Box<[f32]>);

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Cosine from which two questions count as one.
    pub threshold: f32,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// Bytes of vectors and answers at most.
    pub bytes: usize,
}

/// The cache. Shared by all cores.
#[derive(Debug)]
pub struct Semantic {
    scopes: Stripes<Scope, Vec<Entry>>,
    shelf: Mutex<Shelf<Scope>>,
    serial: AtomicU64,
    limits: Limits,
}

#[derive(Debug)]
struct Entry {
    /// Shared, so that the comparing needs no lock.
    vector: Arc<Vector>,
    answer: Arc<Answer>,
    until: Now,
    serial: u64,
}

impl Vector {
    /// Brings `raw` to length 1; `None` when it points nowhere (all zero, or not numbers).
    pub fn new(mut raw: Vec<f32>) -> Option<Self> {
        let square: f64 = raw.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        if !square.is_finite() || square <= f64::from(f32::MIN_POSITIVE) {
            return None;
        }
        let scale = square.sqrt().recip();
        for x in &mut raw {
            *x = (f64::from(*x) * scale) as f32;
        }
        Some(Self(raw.into()))
    }

    /// The cosine of the angle between the two; 0 when they come from different embeddings.
    pub fn cosine(&self, other: &Self) -> f32 {
        if self.0.len() != other.0.len() {
            return 0.0;
        }
        // Eight sums side by side: the compiler makes vector instructions of them.
        let mut sums = [0.0f32; 8];
        let (a, b) = (self.0.chunks_exact(8), other.0.chunks_exact(8));
        let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in a.zip(b) {
            for n in 0..8 {
                sums[n] += x[n] * y[n];
            }
        }
        sums.iter().sum::<f32>() + rest
    }

    fn bytes(&self) -> usize {
        self.0.len() * size_of::<f32>()
    }
}

impl Semantic {
    /// An empty cache.
    pub fn new(limits: Limits) -> Self {
        let shelf = Mutex::new(Shelf::new(limits.bytes));
        Self { scopes: Stripes::new(64), shelf, serial: AtomicU64::new(0), limits }
    }

    /// The answer to the most similar question of `scope`, if it is similar enough.
    pub fn lookup(&self, scope: &Scope, vector: &Vector, now: Now) -> Option<Arc<Answer>> {
        // Taken out by reference count and compared after the lock: 64 comparisons would hold up the whole stripe.
        let known: Vec<_> = self.scopes.with(scope, |scopes| {
            let entries = scopes.get(scope)?;
            let live = entries.iter().filter(|entry| entry.until > now);
            Some(live.map(|entry| (Arc::clone(&entry.vector), Arc::clone(&entry.answer))).collect())
        })?;
        let scored = known.into_iter().map(|(one, answer)| (one.cosine(vector), answer));
        let (cosine, answer) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (cosine >= self.limits.threshold).then_some(answer)
    }

    /// Keeps a complete 2xx `answer`; the oldest give way. An equal question's older answer is replaced.
    pub fn store(&self, scope: &Scope, vector: Vector, answer: Arc<Answer>, now: Now) {
        let bytes = vector.bytes() + answer.bytes();
        if bytes > self.limits.bytes {
            return;
        }
        let (until, serial) = (now + self.limits.ttl, self.serial.fetch_add(1, Ordering::Relaxed));
        let entry = Entry { vector: Arc::new(vector), answer, until, serial };
        let _freed = self.scopes.with(scope, |scopes| {
            let entries = scopes.entry(*scope).or_default();
            let same = entries.iter().position(|old| old.vector == entry.vector);
            let full = (entries.len() >= IN_A_SCOPE).then_some(0); // They lie by age.
            let gone = same.or(full).map(|index| entries.remove(index));
            entries.push(entry);
            gone
        });
        let victims = self.shelf.lock().put(*scope, serial, bytes, until);
        self.discard(&victims);
    }

    /// Forgets a batch of what has expired. Call it every tick.
    pub fn sweep(&self, now: Now) {
        let expired = self.shelf.lock().expired(now, SWEEP);
        self.discard(&expired);
    }

    /// Bytes counted (those of replaced entries until they expire, too).
    pub fn bytes(&self) -> usize {
        self.shelf.lock().bytes()
    }

    /// Scopes with an entry.
    pub fn scopes(&self) -> usize {
        self.scopes.len()
    }

    fn discard(&self, gone: &[(Scope, u64)]) {
        for (scope, serial) in gone {
            let _freed = self.scopes.with(scope, |scopes| {
                let entries = scopes.get_mut(scope)?;
                let index = entries.iter().position(|entry| entry.serial == *serial)?;
                let entry = entries.remove(index);
                if entries.is_empty() {
                    scopes.remove(scope);
                }
                Some(entry)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::answer::Head;
    use http::{HeaderMap, StatusCode};

    const NOW: Now = Now::from_nanos(1_000);
    const LIMITS: Limits = Limits { threshold: 0.95, ttl: Duration::from_secs(60), bytes: 64 << 10 };

    fn answer(text: &str) -> Arc<Answer> {
        let head = Arc::new(Head { status: StatusCode::OK, headers: HeaderMap::new() });
        Arc::new(Answer { head, body: text.to_owned().into() })
    }

    fn at(degrees: f32) -> Vector {
        let (y, x) = degrees.to_radians().sin_cos();
        Vector::new(vec![x * 7.0, y * 7.0]).unwrap()
    }

    #[test]
    fn the_nearest_question_answers_within_its_scope_and_time() {
        let cache = Semantic::new(LIMITS);
        cache.store(&[1; 32], at(0.0), answer("a"), NOW);
        cache.store(&[1; 32], at(20.0), answer("b"), NOW);
        let asks = |scope: u8, degrees, now| cache.lookup(&[scope; 32], &at(degrees), now).map(|a| a.body.clone());
        assert_eq!(asks(1, 4.0, NOW).unwrap(), "a");
        assert_eq!(asks(1, 16.0, NOW).unwrap(), "b");
        assert_eq!(asks(1, 40.0, NOW), None, "cos 20° is 0.94");
        assert_eq!(asks(2, 0.0, NOW), None, "never across scopes");
        assert_eq!(asks(1, 0.0, NOW + LIMITS.ttl), None);
        assert!(cache.lookup(&[1; 32], &Vector::new(vec![1.0, 0.0, 0.0]).unwrap(), NOW).is_none(), "another embedding");
    }

    #[test]
    fn bytes_and_entries_are_bounded_and_everything_expires() {
        let cache = Semantic::new(LIMITS);
        for n in 0..2_000u32 {
            let scope = [(n % 5) as u8; 32];
            cache.store(&scope, at(n as f32 / 10.0), answer("some answer or other"), NOW);
            assert!(cache.bytes() <= LIMITS.bytes);
        }
        cache.store(&[9; 32], at(0.0), answer(&"x".repeat(LIMITS.bytes)), NOW);
        assert!(cache.lookup(&[9; 32], &at(0.0), NOW).is_none(), "larger than the whole cache");
        assert!(cache.lookup(&[4; 32], &at(199.9), NOW).is_some(), "the newest is there");
        assert!((0..5).all(|n| cache.scopes.with(&[n; 32], |s| s[&[n; 32]].len()) <= IN_A_SCOPE));
        for _ in 0..100 {
            cache.sweep(NOW + LIMITS.ttl);
        }
        assert_eq!((cache.bytes(), cache.scopes()), (0, 0));
    }

    #[test]
    fn what_points_nowhere_is_no_vector() {
        for bad in [vec![], vec![0.0; 4], vec![f32::NAN, 1.0], vec![f32::INFINITY, 1.0]] {
            assert_eq!(Vector::new(bad), None);
        }
        let huge = Vector::new(vec![f32::MAX; 3]).unwrap();
        assert!((huge.cosine(&huge) - 1.0).abs() < 1e-5);
    }
}
