//! Heartbeats: who is there, of which version, and whether they are of this deployment at all.
//!
//! A prefix belongs to one deployment. The script that beats looks first whose it is: an instance of another one is
//! never listed, hears whose the prefix is, and keeps away from everything else in it until that deployment is gone. So
//! nobody who set a wrong prefix harms those who were there before. Times are Redis' own.
//!
//! While Redis is away the last count of instances stands: limits divided by it must not open.

use super::call::{Answer, Fault, Script, script};
use super::codec::Names;
use super::connector::Connector;
use super::{ClusterConfig, Part, Round};
use crate::base::Now;
use crate::base::metrics::METRICS;
use crate::state::catalog::Directory;
use crate::state::peers::{PeerInstance, Peers};
use redis::Value;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

static BEAT: Script = script!("beat.lua");
static BYE: Script = script!("bye.lua");

/// Between two heartbeats: also how soon an outage is noticed that no request notices.
const EVERY: Duration = Duration::from_millis(500);
/// Who has not beaten for so long is gone.
const TTL_MS: u64 = 5_000;
/// At start, connecting and the first beat have so long each: a Redis that is away must not delay it noticeably.
const FIRST: Duration = Duration::from_millis(500);

/// What two instances of one deployment have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The deployment's id, from its store.
    pub deployment: u64,
    /// Fingerprint of its data key; a new master key does not change it.
    pub data_key: [u8; 8],
}

/// What is needed to say hello.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Whose we are.
    pub identity: Identity,
    /// This process' epoch.
    pub epoch: u64,
    /// When it started, Unix milliseconds.
    pub started_ms: u64,
    /// The prefix was found to be ours, at start.
    pub met: bool,
}

/// Where what is known of the others is read and published.
pub(super) struct View {
    pub(super) directory: Arc<Directory>,
    pub(super) peers: Arc<Peers>,
    /// See [`super::Shared::instances`].
    pub(super) instances: Arc<AtomicU32>,
}

/// Beats, and keeps the list of those who do.
pub(super) struct Heartbeat {
    keys: [Vec<u8>; 3],
    hello: Hello,
    view: View,
    /// For those with connections of their own: Redis must not be used.
    alone: Arc<AtomicBool>,
    standing: Standing,
    next: Now,
    /// It said goodbye: what that is answered is no beat.
    gone: bool,
    prefix: Box<str>,
    /// The greatest count of a whole time of silence, and when that is over: who is missing for less may only be late, and
    /// before that has passed nobody has been counted at all, whatever was expected or known before.
    greatest: (u32, Now),
}

/// Whether the prefix is ours.
#[derive(Debug)]
enum Standing {
    /// Not asked since Redis was last reached.
    Unknown,
    Ours,
    Theirs(Box<str>),
}

/// What an instance says of itself. Fields are added, never renamed: old and new versions read each other.
#[derive(Serialize, Deserialize)]
struct Word {
    /// Of the program.
    version: Box<str>,
    started_ms: u64,
    catalog: u64,
    digest: u64,
}

/// Says hello once, before serving: whether the prefix is ours. An error names what differs from the deployment whose it
/// is. A Redis that is away, slow or broken is no error; a mismatch is then found later.
pub async fn meet(config: &ClusterConfig, hello: &Hello) -> Result<bool, String> {
    let connector =
        Connector::new(config.url.reveal(), config.extra_roots.as_deref()).map_err(|e| format!("redis_url: {e}"))?;
    let keys = Names::new(&config.prefix).peers();
    let word = Word { version: env!("CARGO_PKG_VERSION").into(), started_ms: hello.started_ms, catalog: 0, digest: 0 };
    let mut way = connector.way("start");
    let Ok(mut conn) = tokio::time::timeout(FIRST, way.connection(&keys[0])).await else { return Ok(false) };
    let Ok(answers) = conn.round(&[beat(&keys, hello, &word)], FIRST).await else { return Ok(false) };
    match answers.into_iter().next().and_then(Result::ok).and_then(Heard::read) {
        Some(Heard::Owner(owner)) => Err(differs(&config.prefix, &hello.identity, &owner)),
        Some(Heard::Instances(_)) => Ok(true),
        None => Ok(false),
    }
}

impl Heartbeat {
    pub(super) fn new(names: &Names, hello: Hello, view: View, alone: Arc<AtomicBool>) -> Self {
        Self {
            keys: names.peers(),
            hello,
            view,
            alone,
            standing: Standing::Unknown,
            next: Now::default(),
            gone: false,
            prefix: names.prefix().into(),
            greatest: (0, Now::default()),
        }
    }

    fn stands(&mut self, standing: Standing) {
        match (&self.standing, &standing) {
            (Standing::Theirs(_), Standing::Theirs(_)) => {}
            (_, Standing::Theirs(why)) => tracing::error!(%why, "redis is not used: this instance serves alone"),
            (Standing::Theirs(_), Standing::Ours) => tracing::info!("the redis prefix is free: redis is used again"),
            _ => {}
        }
        match standing {
            Standing::Ours => self.alone.store(false, Ordering::Release),
            Standing::Theirs(_) => self.alone.store(true, Ordering::Release),
            // A lost connection is no reason to give up the others' connections.
            Standing::Unknown => {}
        }
        self.standing = standing;
    }

    fn count(&mut self, seen: &[(u64, Duration, Option<Word>)], now: Now) {
        let count = u32::try_from(seen.len()).unwrap_or(u32::MAX).max(1);
        let (greatest, until) = self.greatest;
        if count >= greatest || now >= until {
            self.greatest = (count, now + Duration::from_millis(TTL_MS));
        }
        self.view.instances.store(self.greatest.0, Ordering::Release);
        let others = seen.iter().filter(|(epoch, ..)| *epoch != self.hello.epoch).map(|(epoch, age, word)| {
            let word = word.as_ref();
            PeerInstance {
                epoch: *epoch,
                version: word.map_or_else(|| "?".into(), |word| word.version.clone()),
                started_ms: word.map_or(0, |word| word.started_ms),
                catalog_version: word.map_or(0, |word| word.catalog),
                catalog_digest: word.map_or(0, |word| word.digest),
                last_seen: now - *age,
            }
        });
        let others: Vec<PeerInstance> = others.collect();
        self.view.peers.change(|view| view.others = others);
    }
}

impl Part for Heartbeat {
    fn gather(&mut self, round: &mut Round<'_>) {
        if !round.up {
            self.stands(Standing::Unknown);
            self.next = round.now + EVERY;
            return;
        }
        if round.now < self.next {
            return;
        }
        self.next = round.now + EVERY;
        let catalog = self.view.directory.catalog();
        let word = Word {
            version: env!("CARGO_PKG_VERSION").into(),
            started_ms: self.hello.started_ms,
            catalog: catalog.version,
            digest: catalog.digest,
        };
        round.push(beat(&self.keys, &self.hello, &word));
    }

    fn settle(&mut self, answers: &mut dyn Iterator<Item = Answer>, now: Now) {
        if self.gone {
            return;
        }
        let heard = match answers.next() {
            Some(Ok(answer)) => Heard::read(answer),
            Some(Err(Fault::Refused(why))) => {
                METRICS.cluster_unreadable.inc();
                return self.stands(Standing::Theirs(format!("heartbeats are refused: {why}").into()));
            }
            // Not known whether it arrived; it is repeated.
            Some(Err(Fault::Down)) | None => return,
        };
        match heard {
            Some(Heard::Instances(seen)) => {
                if !matches!(self.standing, Standing::Ours) {
                    // Others come (back) as we do: they are not gone because they have not beaten yet.
                    let known = self.view.instances.load(Ordering::Acquire);
                    self.greatest = (known, now + Duration::from_millis(TTL_MS));
                }
                self.stands(Standing::Ours);
                self.count(&seen, now);
            }
            Some(Heard::Owner(owner)) => {
                self.stands(Standing::Theirs(differs(&self.prefix, &self.hello.identity, &owner).into()));
            }
            None => {
                METRICS.cluster_unreadable.inc();
                self.stands(Standing::Theirs("something else than heartbeats lies under the Redis prefix".into()));
            }
        }
    }

    fn due(&self) -> Option<Now> {
        Some(self.next)
    }

    fn returned(&mut self, now: Now) {
        // Of a Redis Cluster another node may be back: no reason to doubt.
        self.next = now;
    }

    fn objects(&self) -> Option<Box<str>> {
        match &self.standing {
            Standing::Ours => None,
            Standing::Unknown => Some("whose the Redis prefix is, is not known yet".into()),
            Standing::Theirs(why) => Some(why.clone()),
        }
    }

    fn close(&mut self, round: &mut Round<'_>) {
        if matches!(self.standing, Standing::Ours) {
            let [owner, beats, words] = &self.keys;
            let call = BYE.call(&[owner, beats, words]);
            round.push(call.arg(self.hello.identity.text()).arg(instance(self.hello.epoch)));
            self.gone = true;
        }
    }
}

/// What a beat is answered.
enum Heard {
    /// Each with the age of its last beat, and what it said if that can be read.
    Instances(Vec<(u64, Duration, Option<Word>)>),
    /// Another deployment's identity.
    Owner(String),
}

impl Heard {
    fn read(answer: Value) -> Option<Self> {
        let mut items = answer.into_sequence().ok()?.into_iter();
        match items.next()? {
            Value::Int(1) => {
                let mut seen = Vec::new();
                while let (Some(epoch), Some(age), Some(word)) = (items.next(), items.next(), items.next()) {
                    let epoch: String = redis::from_owned_redis_value(epoch).ok()?;
                    let age: u64 = redis::from_owned_redis_value(age).ok()?;
                    let word: Vec<u8> = redis::from_owned_redis_value(word).ok()?;
                    let Ok(epoch) = u64::from_str_radix(&epoch, 16) else { continue };
                    seen.push((epoch, Duration::from_millis(age), serde_json::from_slice(&word).ok()));
                }
                Some(Self::Instances(seen))
            }
            Value::Int(0) => redis::from_owned_redis_value(items.next()?).ok().map(Self::Owner),
            _ => None,
        }
    }
}

impl Identity {
    fn text(&self) -> String {
        format!("1 {:016x} {:016x}", self.deployment, u64::from_be_bytes(self.data_key))
    }
}

fn instance(epoch: u64) -> String {
    format!("{epoch:016x}")
}

fn beat(keys: &[Vec<u8>; 3], hello: &Hello, word: &Word) -> super::Call {
    let [owner, beats, words] = keys;
    let word = serde_json::to_string(word).unwrap_or_default();
    BEAT.call(&[owner, beats, words]).arg(hello.identity.text()).arg(instance(hello.epoch)).arg(TTL_MS).arg(word)
}

/// What differs from `owner`, and what to do about it.
fn differs(prefix: &str, ours: &Identity, owner: &str) -> String {
    let mine = ours.text();
    let (mine, theirs): (Vec<&str>, Vec<&str>) = (mine.split(' ').collect(), owner.split(' ').collect());
    let mut what = Vec::new();
    if let ([form, our_id, our_key], [their_form, id, key]) = (&mine[..], &theirs[..])
        && form == their_form
    {
        if our_id != id {
            what.push(format!("the deployment id (theirs {id}, ours {our_id})"));
        }
        if our_key != key {
            what.push(format!("the data key (fingerprint theirs {key}, ours {our_key})"));
        }
    } else {
        what.push("the form of its mark (a version that this one can't read)".to_owned());
    }
    format!(
        "the Redis prefix `{prefix}` belongs to another live deployment: {} differs. Instances of one deployment share their store \
         (MERIDO_DATABASE_URL) and MERIDO_MASTER_KEY; separate deployments need a MERIDO_REDIS_PREFIX each",
        what.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_is_told_which_of_the_two_differs() {
        let ours = Identity { deployment: 1, data_key: [7; 8] };
        let id = Identity { deployment: 2, ..ours };
        let key = Identity { data_key: [8; 8], ..ours };
        let said = |owner: &str| differs("p", &ours, owner);
        assert!(
            said(&id.text()).contains("the deployment id (theirs 0000000000000002")
                && !said(&id.text()).contains("data key")
        );
        assert!(
            said(&key.text()).contains("the data key (fingerprint theirs 08")
                && !said(&key.text()).contains("deployment id (")
        );
        assert!(said("2 something new").contains("the form of its mark"));
    }

    #[test]
    fn a_count_that_limits_are_divided_by_falls_only_after_a_whole_time_of_silence() {
        let instances = Arc::new(AtomicU32::new(4));
        let view = View { directory: Arc::default(), peers: Arc::default(), instances: Arc::clone(&instances) };
        let identity = Identity { deployment: 1, data_key: [7; 8] };
        let hello = Hello { identity, epoch: 1, started_ms: 0, met: true };
        let mut part = Heartbeat::new(&Names::new("t"), hello, view, Arc::default());
        let mut beat = |at: u64, live: u64| {
            let now = Now::from_nanos(3_600_000_000_000) + Duration::from_millis(at);
            let text = |text: String| Value::BulkString(text.into_bytes());
            let seen = (0..live).flat_map(|n| [text(instance(n)), Value::Int(0), text("{}".to_owned())]);
            let answer = Value::Array(std::iter::once(Value::Int(1)).chain(seen).collect());
            if live == 0 {
                part.gather(&mut Round::new(&mut Vec::new(), now, false));
            } else {
                part.settle(&mut std::iter::once(Ok(answer)), now);
            }
            instances.load(Ordering::Acquire)
        };
        assert_eq!(beat(0, 1), 4, "as many were expected, and all start at once");
        assert_eq!((beat(500, 2), beat(4_900, 2)), (4, 4));
        assert_eq!(beat(5_000, 2), 2, "whoever has not beaten by now is not there");
        assert_eq!((beat(5_500, 3), beat(6_000, 2), beat(10_400, 2)), (3, 3, 3));
        assert_eq!(beat(10_500, 2), 2);
        // An outage; the first to come back sees nobody else yet.
        assert_eq!((beat(20_000, 0), beat(30_000, 1), beat(30_500, 1)), (2, 2, 2));
        assert_eq!(beat(35_000, 1), 1);
    }

    #[test]
    fn a_beats_answer_is_read_or_left_and_never_trusted() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let word = r#"{"version":"9","started_ms":5,"catalog":3,"digest":4,"added_later":true}"#;
        let answer = [Value::Int(1), text("000000000000000a"), Value::Int(20), text(word)];
        let odd = [text("not hex"), Value::Int(1), text(""), text("0b"), Value::Int(1), text("{}")];
        let Some(Heard::Instances(seen)) = Heard::read(Value::Array([answer.to_vec(), odd.to_vec()].concat())) else {
            panic!("not read");
        };
        assert_eq!(seen.len(), 2, "one has no name, one has a word that can't be read");
        assert_eq!(
            (seen[0].0, seen[0].1, seen[0].2.as_ref().map(|word| word.digest)),
            (10, Duration::from_millis(20), Some(4))
        );
        assert!(seen[1].2.is_none());
        for nonsense in
            [Value::Nil, Value::Array(vec![]), Value::Array(vec![Value::Int(7)]), Value::Array(vec![Value::Int(0)])]
        {
            assert!(Heard::read(nonsense).is_none());
        }
    }
}
