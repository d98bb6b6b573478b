//! `/api/keys`: what callers' keys may do. A key itself is shown once, when it is made or rotated.

use super::Admin;
use super::asked::{Answer, Asked, refused, tag, wrong};
use super::fields::{Dollars, Fields, Given};
use super::query::Query;
use crate::base::{Clock, Error, KeyId};
use crate::store::rows::{CreatedKey, KeyInfo, KeySpec};
use serde_json::{Map, Value, json};

/// A hundred years: more is a slip of the keyboard.
const LONGEST_TTL: u64 = 100 * 366 * 86_400;

/// A PATCH's fields.
struct Change {
    name: Option<String>,
    rpm: Given<u32>,
    burst: Given<u32>,
    tpm: Given<u32>,
    max_parallel: Given<u32>,
    models: Given<Vec<String>>,
    budget: Given<Dollars>,
    expires_ms: Given<u64>,
}

impl Admin {
    pub(super) async fn keys(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let mut query = Query::parse(asked.query)?;
        let (limit, cursor) = (query.limit()?, query.text("cursor"));
        query.done()?;
        let after = cursor.as_deref().map(position).transpose()?;
        let mut rows = self.store.keys_page(after, limit + 1).await.map_err(|e| refused(&e))?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|last| format!("{}.{}", last.created_ms, last.id));
        let keys: Vec<_> = rows.iter().map(|row| self.key_shown(row)).collect();
        Ok(Answer::ok(&json!({ "keys": keys, "next_cursor": next })))
    }

    pub(super) async fn key(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let info = self.store.key(asked.id("key")?).await.map_err(|e| refused(&e))?;
        Ok(Answer::ok(&self.key_shown(&info)).tagged(&key_tag(&info)))
    }

    pub(super) async fn add_key(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let change = Change::read(asked.fields)?;
        if change.name.is_none() {
            return Err(wrong("name", "is missing; it must be a string"));
        }
        let mut spec = KeySpec::default();
        change.apply(&mut spec);
        let made = self.store.create_key(spec).await.map_err(|e| refused(&e))?;
        let mut answer = Answer::created(&self.key_made(&made)).tagged(&key_tag(&made.info));
        answer = answer.noting("key.create", made.info.id, Value::Object(limits(&made.info)));
        Ok(answer)
    }

    pub(super) async fn change_key(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: KeyId = asked.id("key")?;
        let _one_at_a_time = self.writes.lock().await;
        let before = self.store.key(id).await.map_err(|e| refused(&e))?;
        asked.unchanged(&key_tag(&before))?;
        let change = Change::read(asked.fields)?;
        let changed = self.store.update_key(id, move |spec| change.apply(spec));
        let info = changed.await.map_err(|e| refused(&e))?;
        let (was, is) = (limits(&before), limits(&info));
        let detail: Map<_, _> = is.into_iter().filter(|(name, value)| was.get(name) != Some(value)).collect();
        let shown = Answer::ok(&self.key_shown(&info)).tagged(&key_tag(&info));
        Ok(shown.noting("key.change", id, Value::Object(detail)))
    }

    pub(super) async fn remove_key(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let id: KeyId = asked.id("key")?;
        let _one_at_a_time = self.writes.lock().await;
        let info = self.store.key(id).await.map_err(|e| refused(&e))?;
        asked.unchanged(&key_tag(&info))?;
        self.store.revoke_key(id).await.map_err(|e| refused(&e))?;
        Ok(Answer::gone().noting("key.revoke", id, json!({ "name": info.spec.name })))
    }

    pub(super) async fn rotate_key(&self, asked: Asked<'_>) -> Result<Answer, Error> {
        let made = self.store.rotate_key(asked.id("key")?).await.map_err(|e| refused(&e))?;
        let detail = json!({ "name": made.info.spec.name });
        Ok(Answer::ok(&self.key_made(&made)).noting("key.rotate", made.info.id, detail))
    }

    fn key_shown(&self, info: &KeyInfo) -> Value {
        let mut shown = limits(info);
        shown.insert("id".to_owned(), info.id.to_string().into());
        shown.insert("created_at".to_owned(), Clock::rfc3339(info.created_ms).into());
        // Only what has a budget is counted against one; all else is in `/api/usage`.
        let spent = info.spec.budget_nanos.map(|_| dollars(self.budgets.spent(info.id)));
        shown.insert("spent_usd".to_owned(), spent.into());
        Value::Object(shown)
    }

    fn key_made(&self, made: &CreatedKey) -> Value {
        let mut shown = self.key_shown(&made.info);
        shown["key"] = made.plain.reveal().into();
        shown
    }
}

impl Change {
    fn read(mut fields: Fields) -> Result<Self, Error> {
        let now = Clock::unix_ms();
        let ttl = match fields.take::<u64>("ttl_seconds")? {
            Given::Value(seconds) if !(1..=LONGEST_TTL).contains(&seconds) => {
                return Err(wrong("ttl_seconds", "must be 1 second to 100 years; null: it never expires"));
            }
            ttl => ttl,
        };
        let name = match fields.take("name")? {
            Given::Null => return Err(wrong("name", "must be a string")),
            given => given.some(),
        };
        let change = Self {
            name,
            rpm: fields.take("rpm")?,
            burst: fields.take("burst")?,
            tpm: fields.take("tpm")?,
            max_parallel: fields.take("max_parallel")?,
            models: fields.take("models")?,
            budget: fields.take("budget_usd")?,
            expires_ms: ttl.map(|seconds| now + seconds * 1000),
        };
        fields.done()?;
        Ok(change)
    }

    fn apply(self, spec: &mut KeySpec) {
        if let Some(name) = self.name {
            spec.name = name;
        }
        self.rpm.apply(&mut spec.rpm);
        self.burst.apply(&mut spec.burst);
        self.tpm.apply(&mut spec.tpm);
        self.max_parallel.apply(&mut spec.max_parallel);
        self.models.apply(&mut spec.models);
        self.budget.map(|Dollars(nanos)| nanos).apply(&mut spec.budget_nanos);
        self.expires_ms.apply(&mut spec.expires_ms);
    }
}

/// What an operator sets, and what the tag is of.
fn limits(info: &KeyInfo) -> Map<String, Value> {
    let spec = &info.spec;
    let fields = [
        ("name", json!(spec.name)),
        ("rpm", json!(spec.rpm)),
        ("burst", json!(spec.burst)),
        ("tpm", json!(spec.tpm)),
        ("max_parallel", json!(spec.max_parallel)),
        ("models", json!(spec.models)),
        ("budget_usd", json!(spec.budget_nanos.map(dollars))),
        ("expires_at", json!(spec.expires_ms.map(Clock::rfc3339))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn key_tag(info: &KeyInfo) -> String {
    tag(&Value::Object(limits(info)))
}

pub(super) fn dollars(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// A cursor: when the last key was made, and its id.
fn position(cursor: &str) -> Result<(u64, KeyId), Error> {
    let parsed = cursor.split_once('.').and_then(|(made, id)| Some((made.parse().ok()?, id.parse().ok()?)));
    parsed.filter(|(made, _)| *made < 1 << 62).ok_or_else(|| wrong("cursor", "is none that an earlier page gave"))
}
