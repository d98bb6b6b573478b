//! The arguments, as clap reads them. Their doc comments are the help text.

#![expect(clippy::doc_markdown, reason = "clap shows these texts to people as they stand")]

use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// merido: one endpoint in front of many LLM providers and accounts.
#[derive(Parser, Debug)]
#[command(name = "merido", version, about, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) start: StartArgs,
    /// Settings file (TOML); also MERIDO_CONFIG
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start the gateway (what happens without a command)
    Start(StartArgs),
    /// Accounts with providers
    #[command(subcommand)]
    Providers(Providers),
    /// API keys of callers
    #[command(subcommand)]
    Keys(Keys),
    /// Virtual models
    #[command(subcommand)]
    Models(Models),
    /// Management tokens
    #[command(subcommand)]
    Tokens(Tokens),
    /// Read a password from stdin, print its hash for MERIDO_DASHBOARD_PASSWORD_HASH
    HashPassword,
    /// Look at settings, store and master key; say what is wrong and how to mend it
    Check,
    /// Bring the store up to this version
    Migrate,
    /// Seal the store under a new master key: MERIDO_MASTER_KEY, or one made in the place of the key file
    RotateMasterKey,
    /// Move the embedded store, whole, to an empty PostgreSQL database. Stop the gateway first
    MoveStore {
        /// postgres://user:password@host/database; `-` reads it from stdin
        #[arg(long, value_name = "URL")]
        to: String,
    },
    /// Ask the gateway of these settings whether it is well; for container engines
    #[command(hide = true)]
    Healthcheck,
}

/// How to listen.
#[derive(Args, Debug, Clone, Default, PartialEq, Eq)]
pub struct StartArgs {
    /// Address to listen on; also MERIDO_HOST
    #[arg(long, value_name = "H")]
    pub host: Option<IpAddr>,
    /// Port to listen on; also MERIDO_PORT
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
}

/// `providers …`
#[derive(Subcommand, Debug)]
pub enum Providers {
    /// Add an account with a provider
    Add(AddProvider),
    /// List accounts
    List(Listing),
    /// Remove an account
    Remove {
        /// Its id (acc_…)
        id: String,
    },
}

/// `providers add …`
#[derive(Args, Debug)]
pub struct AddProvider {
    /// The provider: a name of the catalogue, or a new one with --dialect and --base-url
    #[arg(long, value_name = "P")]
    pub provider: String,
    /// Its API key; `-` reads it from stdin, so that it stays out of the shell's history
    #[arg(long, value_name = "K")]
    pub api_key: String,
    /// What the provider's own SDK calls its base URL
    #[arg(long, value_name = "U")]
    pub base_url: Option<String>,
    /// A name for people, unique within the provider
    #[arg(long, value_name = "L")]
    pub label: Option<String>,
    /// Share among the provider's accounts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub weight: u32,
    /// What a provider outside the catalogue speaks
    #[arg(long, value_name = "D", value_parser = ["openai", "anthropic", "gemini"])]
    pub dialect: Option<String>,
}

/// `… list`
#[derive(Args, Debug)]
pub struct Listing {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// `keys …`
#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Make a key; it is printed once
    Create(CreateKey),
    /// List keys
    List(Listing),
    /// Revoke a key
    Revoke {
        /// Its id (key_…)
        id: String,
    },
}

/// `keys create …`
#[derive(Args, Debug)]
pub struct CreateKey {
    /// A name for people
    #[arg(long, value_name = "N")]
    pub name: String,
    /// Seconds it is valid
    #[arg(long, value_name = "S")]
    pub ttl_seconds: Option<u64>,
    /// Requests per minute
    #[arg(long, value_name = "N")]
    pub rpm: Option<u32>,
    /// Requests at once
    #[arg(long, value_name = "N")]
    pub burst: Option<u32>,
    /// Tokens per minute
    #[arg(long, value_name = "N")]
    pub tpm: Option<u32>,
    /// Requests in flight at most
    #[arg(long, value_name = "N")]
    pub max_parallel: Option<u32>,
    /// Models it may ask for, comma-separated; `*` at an end matches the rest
    #[arg(long, value_name = "a,b", value_delimiter = ',')]
    pub models: Option<Vec<String>>,
    /// Dollars it may spend
    #[arg(long, value_name = "X")]
    pub budget_usd: Option<String>,
    /// Print a JSON object {id, name, key}
    #[arg(long)]
    pub json: bool,
}

/// `models …`
#[derive(Subcommand, Debug)]
pub enum Models {
    /// Add a virtual model
    Add(AddModel),
    /// List virtual models
    List(Listing),
    /// Remove a virtual model
    Remove {
        /// Its name
        name: String,
    },
}

/// `models add …`
#[derive(Args, Debug)]
pub struct AddModel {
    /// What clients ask for
    pub name: String,
    /// failover, load_balance, weighted, cost_optimized or latency_based
    #[arg(long, value_name = "S", default_value = "failover")]
    pub strategy: String,
    /// provider/model[@label][=weight]; repeat for more, in order
    #[arg(long = "target", value_name = "T", required = true)]
    pub targets: Vec<String>,
    /// Requests that stay on one target before load_balance moves on
    #[arg(long, value_name = "N")]
    pub sticky: Option<u32>,
}

/// `tokens …`
#[derive(Subcommand, Debug)]
pub enum Tokens {
    /// Make a management token; it is printed once
    Create(CreateToken),
    /// List management tokens
    List(Listing),
    /// Revoke a management token
    Revoke {
        /// Its id (tok_…)
        id: String,
    },
}

/// `tokens create …`
#[derive(Args, Debug)]
pub struct CreateToken {
    /// A name for people
    #[arg(long, value_name = "N")]
    pub name: String,
    /// What it may do
    #[arg(long, value_name = "S", default_value = "admin", value_parser = ["admin", "read"])]
    pub scope: String,
    /// Seconds it is valid
    #[arg(long, value_name = "S")]
    pub ttl_seconds: Option<u64>,
    /// Print a JSON object {id, name, token}
    #[arg(long)]
    pub json: bool,
}
