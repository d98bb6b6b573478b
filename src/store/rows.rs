//! What goes into the store and comes out: plain structs, the same for every engine.

use crate::base::{AccountId, KeyId, RequestId, Secret, TokenId};
use crate::dialect::{Dialect, Endpoint};
use crate::state::catalog::{Auth, Key, KeyHash, VirtualModel};
use crate::state::usage::{LogRow, Tokens, Total};

use super::decode::{MAX_ERROR, MAX_TEXT, cut};

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// With whom.
    pub provider: String,
    /// `None`: `default`, then `default-2`, …
    pub label: Option<String>,
    /// `None`: the provider's own.
    pub base_url: Option<String>,
    /// Share among the provider's accounts, 1 … 1,000,000.
    pub weight: u32,
    /// The credential.
    pub secret: Secret,
    /// The provider's definition, when it is outside the catalogue and not yet known.
    pub define: Option<CustomProvider>,
}

/// An account, without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountInfo {
    /// Its id.
    pub id: AccountId,
    /// With whom.
    pub provider: String,
    /// Unique within the provider.
    pub label: String,
    /// `None`: the provider's own.
    pub base_url: Option<String>,
    /// Share.
    pub weight: u32,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// An account as the catalog needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountRow {
    /// All but the secret.
    pub info: AccountInfo,
    /// The credential.
    pub secret: Secret,
}

/// An account as an engine holds it: the secret is sealed and no engine can open it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SealedAccount {
    pub(crate) info: AccountInfo,
    pub(crate) sealed: Vec<u8>,
}

/// A provider outside the catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustomProvider {
    /// The part of `provider/model` before the slash.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// How its credential travels.
    pub auth: Auth,
    /// Speak HTTP/2 to it.
    pub http2: bool,
    /// For accounts that name none.
    pub base_url: Option<String>,
}

/// What a key may do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeySpec {
    /// For people.
    pub name: String,
    /// Requests per minute; `None`: the deployment's default.
    pub rpm: Option<u32>,
    /// Requests at once; `None`: `rpm`.
    pub burst: Option<u32>,
    /// Tokens per minute.
    pub tpm: Option<u32>,
    /// Requests in flight at most.
    pub max_parallel: Option<u32>,
    /// Models it may ask for; `None`: all.
    pub models: Option<Vec<String>>,
    /// Nanodollars it may spend.
    pub budget_nanos: Option<i64>,
    /// Unix milliseconds after which it is refused.
    pub expires_ms: Option<u64>,
}

/// A key, as listings show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyInfo {
    /// Its id.
    pub id: KeyId,
    /// What it may do.
    pub spec: KeySpec,
    /// Unix milliseconds.
    pub created_ms: u64,
}

/// A key just made or rotated: the only moment at which it can be read.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    /// The key.
    pub info: KeyInfo,
    /// What the caller sends.
    pub plain: Secret,
}

/// A virtual model, as listings show it.
#[derive(Clone, PartialEq, Debug)]
pub struct VirtualModelRow {
    /// What it is.
    pub model: VirtualModel,
    /// Answers requests.
    pub enabled: bool,
    /// Place in listings.
    pub position: u32,
}

/// What a management token may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Everything but making and revoking management tokens: what it was given cannot give itself more.
    Write,
    /// Look, not touch.
    Read,
}

/// A management token, as listings show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRow {
    /// Its id.
    pub id: TokenId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds after which it is refused.
    pub expires_ms: Option<u64>,
}

/// Who may come in to the control plane, whole: small enough to be held and asked in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Admissions {
    /// Sessions sealed under a lower epoch are over.
    pub session_epoch: u64,
    /// Sessions that ended early, by id.
    pub ended: Vec<u64>,
    /// Management tokens by their hash, expired ones included.
    pub tokens: Vec<([u8; 32], TokenRow)>,
}

/// What changed in the catalog after some `seq`, up to `up_to`.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Pass this next time.
    pub up_to: u64,
    /// There is more: call again at once.
    pub more: bool,
    /// Providers defined or redefined.
    pub providers: Vec<CustomProvider>,
    /// Accounts: as they are now, or gone (`None`).
    pub accounts: Vec<(AccountId, Option<AccountRow>)>,
    /// Keys that are new or changed.
    pub keys: Vec<(KeyHash, Key)>,
    /// Hashes that stopped being valid. To be applied before `keys`.
    pub dead_hashes: Vec<KeyHash>,
    /// Virtual models: as they are now, or gone (`None`).
    pub virtual_models: Vec<(u64, Option<VirtualModelRow>)>,
}

/// One transaction's worth of usage.
#[derive(Clone, Debug, Default)]
pub struct UsageBatch {
    /// The writer's process epoch.
    pub writer: u64,
    /// Rises by one with each batch of this writer. A batch that was stored already is not stored again.
    pub number: u64,
    /// Added to what is there.
    pub totals: Vec<Total>,
    /// Inserted unless a row of that id is there.
    pub rows: Vec<LoggedRow>,
}

/// A log row as it is read back.
#[derive(Clone, PartialEq, Debug)]
pub struct LoggedRow {
    /// Internal id.
    pub id: RequestId,
    /// Unix milliseconds.
    pub time_ms: u64,
    /// The client's own id.
    pub client_request_id: Option<String>,
    /// Who asked; `None` = anonymous.
    pub key: Option<(KeyId, String)>,
    /// The caller's dialect.
    pub dialect: String,
    /// `chat`, `messages`, …
    pub endpoint: String,
    /// As the client wrote it.
    pub requested_model: String,
    /// Who served.
    pub provider: Option<String>,
    /// With which account (id, label).
    pub account: Option<(AccountId, String)>,
    /// The provider's model.
    pub model: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// Streamed.
    pub stream: bool,
    /// `miss`, `dedup`, `semantic`.
    pub cache: String,
    /// Calls made to providers.
    pub attempts: u32,
    /// JSON array, one object an attempt.
    pub timeline: Option<String>,
    /// Tokens.
    pub tokens: Tokens,
    /// Nanodollars; negative: no price is known.
    pub cost_nanos: i64,
    /// Milliseconds.
    pub latency_ms: u32,
    /// Milliseconds.
    pub first_byte_ms: Option<u32>,
    /// Microseconds.
    pub overhead_us: u32,
    /// What went wrong.
    pub error: Option<String>,
    /// Tokens are our estimate.
    pub estimated: bool,
    /// How many requests this row stands for.
    pub sampled: u32,
}

/// What a retention pass removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Rows removed.
    pub rows: u64,
    /// More is due: call again.
    pub more: bool,
}

/// As it will be read back: texts cut to what is kept, the id to the 48 bits of its epoch that are printed.
impl From<LogRow> for LoggedRow {
    fn from(row: LogRow) -> Self {
        let short = |text: &str| cut(text, MAX_TEXT).to_owned();
        Self {
            id: RequestId { epoch: row.id.epoch & 0xffff_ffff_ffff, n: row.id.n },
            time_ms: row.time_ms,
            client_request_id: row.client_request_id.as_deref().map(short),
            key: row.key.as_ref().map(|key| (key.id, key.name.to_string())),
            dialect: row.endpoint.dialect().name().to_owned(),
            endpoint: endpoint_name(row.endpoint).to_owned(),
            requested_model: short(&row.requested_model),
            provider: row.account.as_ref().map(|account| account.provider.name.to_string()),
            account: row.account.as_ref().map(|account| (account.id, account.label.to_string())),
            model: row.model.as_deref().map(short),
            status: row.status,
            stream: row.stream,
            cache: row.cache.name().to_owned(),
            attempts: row.attempts,
            timeline: row.timeline.map(String::from),
            tokens: row.tokens,
            cost_nanos: row.cost_nanos.unwrap_or(-1),
            latency_ms: row.latency_ms,
            first_byte_ms: row.first_byte_ms,
            overhead_us: row.overhead_us,
            error: row.error.as_deref().map(|text| cut(text, MAX_ERROR).to_owned()),
            estimated: row.estimated,
            sampled: row.sampled,
        }
    }
}

impl Scope {
    /// As stored and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Write => "write",
            Self::Read => "read",
        }
    }

    /// The scope of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Admin, Self::Write, Self::Read].into_iter().find(|s| s.name() == name)
    }
}

const AUTHS: [(Auth, &str); 5] = [
    (Auth::Bearer, "bearer"),
    (Auth::XApiKey, "x-api-key"),
    (Auth::XGoogApiKey, "x-goog-api-key"),
    (Auth::ApiKey, "api-key"),
    (Auth::None, "none"),
];

/// How an auth is stored and written on the command line.
pub fn auth_name(auth: &Auth) -> &'static str {
    AUTHS.iter().find(|(a, _)| a == auth).map_or("bearer", |(_, n)| n)
}

/// The auth of that name.
pub fn auth_from_name(name: &str) -> Option<Auth> {
    AUTHS.iter().find(|(_, n)| *n == name).map(|(a, _)| a.clone())
}

/// The header a dialect's own servers expect.
pub const fn usual_auth(dialect: Dialect) -> Auth {
    match dialect {
        Dialect::OpenAi => Auth::Bearer,
        Dialect::Anthropic => Auth::XApiKey,
        Dialect::Gemini => Auth::XGoogApiKey,
    }
}

/// An endpoint's name in the log.
pub const fn endpoint_name(endpoint: Endpoint) -> &'static str {
    endpoint.name()
}
