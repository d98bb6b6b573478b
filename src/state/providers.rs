//! The built-in catalogue of providers (a stand-in with the few facts the store's tests need).

use super::catalog::{Auth, BaseUrl, Provider};
use crate::dialect::Dialect;
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of a provider before anyone has an account with it.
#[derive(Debug, Clone)]
pub struct ProviderSpec {
    /// Name, dialect, auth, models.
    pub provider: Arc<Provider>,
    /// Where it listens when nobody says otherwise.
    pub default_base: Option<BaseUrl>,
    /// Environment variables that hold its API key.
    pub env: Vec<String>,
}

/// All of them.
pub fn builtin() -> Result<Vec<ProviderSpec>, String> {
    use Dialect::{Anthropic, Gemini, OpenAi};
    [
        ("openai", OpenAi, Auth::Bearer, "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("anthropic", Anthropic, Auth::XApiKey, "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
        ("gemini", Gemini, Auth::XGoogApiKey, "https://generativelanguage.googleapis.com", "GEMINI_API_KEY"),
        ("openrouter", OpenAi, Auth::Bearer, "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        ("groq", OpenAi, Auth::Bearer, "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        ("deepseek", OpenAi, Auth::Bearer, "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        ("mistral", OpenAi, Auth::Bearer, "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
        ("xai", OpenAi, Auth::Bearer, "https://api.x.ai/v1", "XAI_API_KEY"),
    ]
    .into_iter()
    .map(|(name, dialect, auth, base, env)| {
        let provider = Provider { name: name.into(), dialect, auth, http2: false, models: HashMap::default() };
        let base = BaseUrl::parse(base).map_err(|e| format!("{name}: base_url {e}"))?;
        Ok(ProviderSpec { provider: Arc::new(provider), default_base: Some(base), env: vec![env.to_owned()] })
    })
    .collect()
}
