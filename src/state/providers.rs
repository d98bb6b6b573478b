//! The provider catalogue: `config/providers.toml`, compiled in.
//!
//! Data, not code: a provider is added there. A mistake in it is found by the tests below, and otherwise refuses to
//! start rather than call the wrong place.

use super::catalog::{Auth, BaseUrl, Model, Price, Provider};
use crate::base::Dialect;
use crate::base::ModelId;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

const CATALOGUE: &str = include_str!("../../config/providers.toml");

/// A provider as the catalogue describes it.
#[derive(Clone, Debug)]
pub struct ProviderSpec {
    /// The provider itself.
    pub provider: Arc<Provider>,
    /// Where it listens unless an account says otherwise; `None`: an account must say.
    pub default_base: Option<BaseUrl>,
    /// Environment variables that hold a key; the first one set counts.
    pub env: Vec<String>,
}

/// All built-in providers, in the catalogue's order; what is wrong with it otherwise.
pub fn builtin() -> Result<Vec<ProviderSpec>, String> {
    parse(CATALOGUE)
}

fn parse(text: &str) -> Result<Vec<ProviderSpec>, String> {
    let file: File = toml::from_str(text).map_err(|e| format!("providers.toml: {e}"))?;
    let mut specs: Vec<ProviderSpec> = Vec::with_capacity(file.provider.len());
    for entry in file.provider {
        let name = entry.name.clone();
        let spec = entry.build().map_err(|what| format!("providers.toml: provider `{name}`: {what}"))?;
        if specs.iter().any(|other| other.provider.name == spec.provider.name) {
            return Err(format!("providers.toml: provider `{name}` is there twice"));
        }
        specs.push(spec);
    }
    Ok(specs)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    provider: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    base_url: Option<String>,
    dialect: String,
    auth: String,
    #[serde(default)]
    http2: bool,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    models: Vec<ModelEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    name: String,
    #[serde(default)]
    context: u32,
    #[serde(default)]
    max_output: u32,
    input: Option<f64>,
    output: Option<f64>,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
}

impl Entry {
    fn build(self) -> Result<ProviderSpec, String> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || !self.name.bytes().all(good) {
            return Err("its name must be of a-z, 0-9 and -".to_owned());
        }
        let default_base = match &self.base_url {
            Some(url) => Some(BaseUrl::parse(url).map_err(|what| format!("base_url {what}"))?),
            None => None,
        };
        let dialect = Dialect::from_name(&self.dialect).ok_or_else(|| format!("no dialect `{}`", self.dialect))?;
        let auth = match self.auth.as_str() {
            "bearer" => Auth::Bearer,
            "x-api-key" => Auth::XApiKey,
            "x-goog-api-key" => Auth::XGoogApiKey,
            "api-key" => Auth::ApiKey,
            "none" => Auth::None,
            other => return Err(format!("no auth `{other}`")),
        };
        let mut models: HashMap<Box<str>, Arc<Model>, ahash::RandomState> = HashMap::default();
        for entry in self.models {
            let model = entry.build()?;
            if let Some(twice) = models.insert(Box::from(&*model.name), Arc::new(model)) {
                return Err(format!("model `{}` is there twice", twice.name));
            }
        }
        let provider = Provider { name: self.name.into(), dialect, auth, http2: self.http2, models };
        Ok(ProviderSpec { provider: Arc::new(provider), default_base, env: self.env })
    }
}

impl ModelEntry {
    fn build(self) -> Result<Model, String> {
        let price = match (self.input, self.output) {
            (Some(input), Some(output)) => Some(Price {
                input: picodollars(input)?,
                output: picodollars(output)?,
                cache_read: picodollars(self.cache_read.unwrap_or(input))?,
                cache_write: picodollars(self.cache_write.unwrap_or(input))?,
            }),
            (None, None) if self.cache_read.is_none() && self.cache_write.is_none() => None,
            _ => return Err(format!("model `{}`: input and output prices come together", self.name)),
        };
        if self.name.is_empty() {
            return Err("a model has no name".to_owned());
        }
        let id = ModelId::of(&self.name);
        Ok(Model { name: self.name.into(), id, context: self.context, max_output: self.max_output, price })
    }
}

/// Dollars per million tokens to picodollars per token.
fn picodollars(dollars: f64) -> Result<u64, String> {
    if !(0.0..=10_000.0).contains(&dollars) {
        return Err(format!("a price of {dollars} dollars per million tokens cannot be right"));
    }
    Ok((dollars * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(specs: &'a [ProviderSpec], name: &str) -> &'a ProviderSpec {
        specs.iter().find(|s| &*s.provider.name == name).unwrap()
    }

    #[test]
    fn the_catalogue_is_sound() {
        let specs = builtin().unwrap();
        assert!(specs.len() >= 30, "{}", specs.len());
        for spec in &specs {
            let name = &*spec.provider.name;
            assert!(spec.default_base.is_some() || ["azure", "demo"].contains(&name), "{name}");
            if let Some(base) = &spec.default_base {
                assert!(base.tls || &*base.host == "127.0.0.1", "{name}: a key would travel in the clear");
                let versioned = base.path.rsplit('/').any(|part| part.starts_with('v'));
                assert!(spec.provider.dialect == Dialect::OpenAi || !versioned, "{name}: its paths bring the version");
            }
            for model in spec.provider.models.values() {
                let Some(price) = model.price else { continue };
                assert!(price.cache_read <= price.input, "{name}/{}", model.name);
                assert!(price.output >= price.input || price.output == 0, "{name}/{}", model.name);
                assert!(price.input <= 100_000_000, "{name}/{}", model.name);
            }
        }
    }

    #[test]
    fn the_promised_variables_are_there() {
        let specs = builtin().unwrap();
        for name in ["openai", "anthropic", "gemini", "openrouter", "groq", "deepseek", "mistral", "xai"] {
            let variable = format!("{}_API_KEY", name.to_uppercase());
            assert_eq!(named(&specs, name).env.first(), Some(&variable));
        }
    }

    #[test]
    fn prices_are_picodollars_a_token() {
        let specs = builtin().unwrap();
        let model = &named(&specs, "anthropic").provider.models["claude-sonnet-4-5"];
        let want = Price { input: 3_000_000, output: 15_000_000, cache_read: 300_000, cache_write: 3_750_000 };
        assert_eq!((model.price, model.context), (Some(want), 200_000));
        assert_eq!(named(&specs, "anthropic").provider.auth, Auth::XApiKey);
        let demo = named(&specs, "demo");
        assert_eq!((demo.provider.models["echo"].price, demo.default_base.is_none()), (Some(Price::default()), true));
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        let entry = |rest: &str| format!("[[provider]]\nname = \"x\"\ndialect = \"openai\"\nauth = \"bearer\"\n{rest}");
        assert!(parse(&entry("")).is_ok());
        for (bad, hint) in [
            (entry("typo = 1"), "typo"),
            (entry("base_url = \"x.com\""), "base_url"),
            (entry("models = [{ name = \"m\", input = 1 }]"), "together"),
            (entry("models = [{ name = \"m\", input = -1, output = 1 }]"), "cannot be right"),
            (entry("models = [{ name = \"m\" }, { name = \"m\" }]"), "twice"),
            (entry("") + &entry(""), "twice"),
            (entry("").replace("openai", "latin"), "latin"),
            (entry("").replace("bearer", "smile"), "smile"),
            (entry("").replace("\"x\"", "\"X/y\""), "name"),
        ] {
            let e = parse(&bad).unwrap_err();
            assert!(e.contains(hint), "{e}");
        }
    }
}
