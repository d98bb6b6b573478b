//! Virtual models as settings and the command line give them: their form, and what is wrong with a list of them.
//!
//! Whether a provider or an account of that name exists is not asked here: the catalog knows, and says so when a
//! request comes.

/// How a virtual model may choose among its targets.
const STRATEGIES: [&str; 5] = ["failover", "load_balance", "weighted", "cost_optimized", "latency_based"];

/// A virtual model as settings and the command line give it.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Its name: what clients ask for.
    pub name: String,
    /// `failover`, `load_balance`, `weighted`, `cost_optimized`, `latency_based`.
    #[serde(default = "failover")]
    pub strategy: String,
    /// Where it may go, in order.
    pub targets: Vec<TargetSpec>,
    /// Requests that stay on one target before `load_balance` moves on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<u32>,
}

/// One target of a virtual model.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// `provider/model`.
    pub model: String,
    /// Label (or id) of the account; any of the provider's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Share under `weighted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Everything wrong with `routes`, each naming the route by its place and name.
pub(super) fn mistakes(routes: &[RouteSpec]) -> Vec<String> {
    let mut all = Vec::new();
    for (n, route) in routes.iter().enumerate() {
        let at = format!("route {} ({:?})", n + 1, route.name);
        if route.name.is_empty() || route.name.len() > 128 || !route.name.bytes().all(|b| b.is_ascii_graphic()) {
            all.push(format!("{at}: a name is 1 to 128 visible ASCII characters without spaces"));
        }
        if routes[..n].iter().any(|other| other.name == route.name) {
            all.push(format!("{at}: an earlier route has the same name"));
        }
        if !STRATEGIES.contains(&&*route.strategy) {
            all.push(format!("{at}: strategy {:?} is none of {}", route.strategy, STRATEGIES.join(", ")));
        }
        if route.sticky == Some(0) {
            all.push(format!("{at}: sticky is at least 1"));
        }
        if route.targets.is_empty() {
            all.push(format!("{at}: needs at least one target"));
        }
        for (m, target) in route.targets.iter().enumerate() {
            let at = format!("{at}, target {}", m + 1);
            if !is_provider_model(&target.model) {
                all.push(format!("{at}: model {:?} is not of the form provider/model", target.model));
            }
            if target.weight == Some(0) {
                all.push(format!("{at}: weight is at least 1"));
            }
            if target.account.as_deref() == Some("") {
                all.push(format!("{at}: account is empty; leave it out for any account of the provider"));
            }
        }
    }
    all
}

/// `provider/model`; the model itself may hold further slashes.
pub(super) fn is_provider_model(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
        && text.split_once('/').is_some_and(|(provider, model)| !provider.is_empty() && !model.is_empty())
}

fn failover() -> String {
    "failover".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<RouteSpec> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_sound_list_has_no_mistakes() {
        let routes = read(
            r#"[{"name":"fast","strategy":"weighted","sticky":3,
                 "targets":[{"model":"groq/llama","weight":3},{"model":"openrouter/meta/llama","account":"b"}]},
                {"name":"plain","targets":[{"model":"demo/echo"}]}]"#,
        );
        assert_eq!(mistakes(&routes), Vec::<String>::new());
        assert_eq!(routes[1].strategy, "failover");
    }

    #[test]
    fn every_mistake_is_named() {
        let routes = read(
            r#"[{"name":"a","strategy":"fastest","targets":[]},
                {"name":"a","targets":[{"model":"gpt"},{"model":"x/y","weight":0},{"model":"/y","account":""}]},
                {"name":"with space","sticky":0,"targets":[{"model":"x/y"}]}]"#,
        );
        let all = mistakes(&routes);
        for (n, part) in [
            "\"fastest\" is none of failover",
            "route 1 (\"a\"): needs at least one target",
            "route 2 (\"a\"): an earlier route",
            "target 1: model \"gpt\"",
            "target 2: weight",
            "target 3: model \"/y\"",
            "target 3: account is empty",
            "without spaces",
            "sticky is at least 1",
        ]
        .iter()
        .enumerate()
        {
            assert!(all[n].contains(part), "{part}: {all:#?}");
        }
        assert_eq!(all.len(), 9, "{all:#?}");
    }
}
