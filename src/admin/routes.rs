//! Every endpoint of `/api/`, once: the switchboard looks it up here, and the published document is made of it.
//!
//! So no endpoint can be routed and not documented, or the other way round.

use Body::{Fields, Maybe, Nothing};

/// One endpoint.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Literal segments and `{names}`.
    pub(super) path: &'static str,
    pub(super) op: Op,
    pub(super) summary: &'static str,
    pub(super) body: Body,
    /// Its answer when all goes well.
    pub(super) status: u16,
    /// The schema of that answer; empty: it has no body, or is no JSON.
    pub(super) answer: &'static str,
    /// Parameters of its query, by name in [`super::openapi`]'s list.
    pub(super) query: &'static [&'static str],
    /// `Idempotency-Key` is honoured.
    pub(super) repeatable: bool,
    /// Changes the catalog: answered once this instance goes by it.
    pub(super) catalog: bool,
    /// `If-Match` is honoured, and the answer carries an `ETag`.
    pub(super) tagged: bool,
    /// Statuses it may answer with besides those that all may.
    pub(super) also: &'static [u16],
}

/// What an endpoint takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// No body.
    Nothing,
    /// A JSON object of that schema.
    Fields(&'static str),
    /// The same, or nothing at all.
    Maybe(&'static str),
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Login,
    Logout,
    Me,
    Keys,
    KeyAdd,
    Key,
    KeyChange,
    KeyRemove,
    KeyRotate,
    Accounts,
    AccountAdd,
    Account,
    AccountChange,
    AccountRemove,
    AccountTest,
    VirtualModels,
    VirtualModelAdd,
    VirtualModel,
    VirtualModelReplace,
    VirtualModelRemove,
    VirtualModelToggle,
    VirtualModelsReorder,
    Tokens,
    TokenAdd,
    TokenRemove,
    Events,
    Cooldowns,
    Unlock,
    UnlockModel,
    Models,
    Providers,
    Cluster,
    Logs,
    Log,
    Usage,
    Audit,
    OpenApi,
}

/// What a path and method lead to.
#[derive(Debug)]
pub(super) enum Found {
    Route(&'static Route, Vec<String>),
    /// Another method would: these.
    Methods(Vec<&'static str>),
    Nothing,
}

const PAGED: &[&str] = &["limit", "cursor"];

/// All of them. Literal paths stand before those whose braces would take them in.
pub(super) const ROUTES: &[Route] = &[
    route("POST", "/api/login", Op::Login, "Log in").takes(Fields("Login")).gives("Session").also(&[401, 409]),
    route("POST", "/api/logout", Op::Logout, "End this session, or all of them")
        .takes(Maybe("Logout"))
        .gives("LoggedOut"),
    route("GET", "/api/me", Op::Me, "Who asks, and what they may do").gives("Me"),
    route("GET", "/api/keys", Op::Keys, "API keys").gives("KeyPage").asks(PAGED),
    route("POST", "/api/keys", Op::KeyAdd, "Make a key; the answer holds the only copy of it")
        .takes(Fields("KeyNew"))
        .makes("KeyMade"),
    route("GET", "/api/keys/{id}", Op::Key, "One key").gives("Key").one(),
    route(
        "PATCH",
        "/api/keys/{id}",
        Op::KeyChange,
        "Change what a key may do: what is left out stays, null is the default",
    )
    .takes(Fields("KeyChange"))
    .gives("Key")
    .one()
    .published(),
    route("DELETE", "/api/keys/{id}", Op::KeyRemove, "Revoke a key").removes(),
    route("POST", "/api/keys/{id}/rotate", Op::KeyRotate, "Give a key a new secret; the old one stops")
        .gives("KeyMade")
        .also(&[404, 409])
        .published()
        .repeatable(),
    route("GET", "/api/accounts", Op::Accounts, "Accounts with providers").gives("Accounts"),
    route("POST", "/api/accounts", Op::AccountAdd, "Add an account").takes(Fields("AccountNew")).makes("Account"),
    route("GET", "/api/accounts/{id}", Op::Account, "One account").gives("Account").one(),
    route("PATCH", "/api/accounts/{id}", Op::AccountChange, "Change an account: what is left out stays")
        .takes(Fields("AccountChange"))
        .gives("Account")
        .one()
        .published(),
    route("DELETE", "/api/accounts/{id}", Op::AccountRemove, "Remove an account and its credential").removes(),
    route("POST", "/api/accounts/{id}/test", Op::AccountTest, "Make one real call with its credential")
        .takes(Maybe("AccountTest"))
        .gives("AccountTested")
        .also(&[404, 409]),
    route("GET", "/api/virtual-models", Op::VirtualModels, "Virtual models, in order").gives("VirtualModels"),
    route("POST", "/api/virtual-models", Op::VirtualModelAdd, "Make a virtual model")
        .takes(Fields("VirtualModelNew"))
        .makes("VirtualModel"),
    route("PUT", "/api/virtual-models/reorder", Op::VirtualModelsReorder, "Put those named first, in that order")
        .takes(Fields("Reorder"))
        .gives("VirtualModels")
        .also(&[404])
        .published(),
    route("POST", "/api/virtual-models/reorder", Op::VirtualModelsReorder, "Put those named first, in that order")
        .takes(Fields("Reorder"))
        .gives("VirtualModels")
        .also(&[404])
        .published(),
    route("GET", "/api/virtual-models/{id}", Op::VirtualModel, "One virtual model").gives("VirtualModel").one(),
    route("PUT", "/api/virtual-models/{id}", Op::VirtualModelReplace, "Replace a virtual model")
        .takes(Fields("VirtualModelNew"))
        .gives("VirtualModel")
        .one()
        .published(),
    route("DELETE", "/api/virtual-models/{id}", Op::VirtualModelRemove, "Remove a virtual model").removes(),
    route("POST", "/api/virtual-models/{id}/toggle", Op::VirtualModelToggle, "Switch it on or off")
        .takes(Maybe("Toggle"))
        .gives("VirtualModel")
        .also(&[404])
        .published(),
    route("GET", "/api/tokens", Op::Tokens, "Management tokens").gives("Tokens"),
    route("POST", "/api/tokens", Op::TokenAdd, "Make a token; the answer holds the only copy of it")
        .takes(Fields("TokenNew"))
        .gives("TokenMade")
        .status(201)
        .repeatable()
        .also(&[409]),
    route("DELETE", "/api/tokens/{id}", Op::TokenRemove, "Revoke a token").status(204).also(&[404]),
    route("GET", "/api/events", Op::Events, "Requests as they begin and end, as server-sent events"),
    route("GET", "/api/cooldowns", Op::Cooldowns, "Who rests, until when, why").gives("Cooldowns"),
    route("DELETE", "/api/cooldowns/{account}", Op::Unlock, "End an account's rest and all its locks")
        .gives("Unlocked")
        .also(&[404, 409]),
    route("DELETE", "/api/cooldowns/{account}/{model}", Op::UnlockModel, "End one model's lock")
        .gives("Unlocked")
        .also(&[404, 409]),
    route("GET", "/api/models", Op::Models, "What can be asked for").gives("Models"),
    route("GET", "/api/providers", Op::Providers, "Providers an account can be with").gives("Providers"),
    route("GET", "/api/cluster", Op::Cluster, "Instances, Redis, lag, leases").gives("Cluster"),
    route("GET", "/api/logs", Op::Logs, "The request log, newest first")
        .gives("LogPage")
        .asks(&["limit", "cursor", "provider", "model", "key_id", "status", "since", "until", "q"]),
    route("GET", "/api/logs/{request_id}", Op::Log, "One request, with its attempts").gives("Log").also(&[404]),
    route("GET", "/api/usage", Op::Usage, "Totals, exact, by what is asked for")
        .gives("Usage")
        .asks(&["by", "since", "until", "format"]),
    route("GET", "/api/audit", Op::Audit, "Who changed what, newest first").gives("AuditPage").asks(PAGED),
    route("GET", "/api/openapi.json", Op::OpenApi, "This document").gives("OpenApi"),
];

const fn route(method: &'static str, path: &'static str, op: Op, summary: &'static str) -> Route {
    Route {
        method,
        path,
        op,
        summary,
        body: Nothing,
        status: 200,
        answer: "",
        query: &[],
        repeatable: false,
        catalog: false,
        tagged: false,
        also: &[],
    }
}

impl Route {
    const fn takes(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    const fn gives(mut self, schema: &'static str) -> Self {
        self.answer = schema;
        self
    }

    /// Makes something of that schema.
    const fn makes(self, schema: &'static str) -> Self {
        self.gives(schema).status(201).repeatable().published().also(&[409])
    }

    const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    const fn also(mut self, statuses: &'static [u16]) -> Self {
        self.also = statuses;
        self
    }

    const fn asks(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }

    /// Of one thing with an id and a tag.
    const fn one(mut self) -> Self {
        self.tagged = true;
        self.also(&[404, 409, 412])
    }

    const fn removes(self) -> Self {
        self.status(204).one().published()
    }

    const fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    const fn published(mut self) -> Self {
        self.catalog = true;
        self
    }

    /// Changes something.
    pub(super) fn writes(&self) -> bool {
        self.method != "GET"
    }

    /// The names in its braces.
    pub(super) fn params(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// What stands in the braces, if `segments` (of the path below `/api/`) lead here.
    fn matches(&self, segments: &[String]) -> Option<Vec<String>> {
        let pattern: Vec<&str> = self.path.trim_start_matches("/api/").split('/').collect();
        // A model's name may hold slashes: all that follows the account is the name.
        let tail = self.op == Op::UnlockModel && segments.len() >= pattern.len();
        if pattern.len() != segments.len() && !tail {
            return None;
        }
        let mut params = Vec::new();
        for (at, part) in pattern.iter().enumerate() {
            if !part.starts_with('{') {
                if *part != segments[at] {
                    return None;
                }
            } else if tail && at + 1 == pattern.len() {
                params.push(segments[at..].join("/"));
            } else {
                params.push(segments[at].clone());
            }
        }
        params.iter().all(|param| !param.is_empty()).then_some(params)
    }
}

/// Where a request leads to. HEAD goes where GET goes.
pub(super) fn find(method: &str, segments: &[String]) -> Found {
    let method = if method == "HEAD" { "GET" } else { method };
    let Some(path) = ROUTES.iter().find(|route| route.matches(segments).is_some()).map(|route| route.path) else {
        return Found::Nothing;
    };
    let mut methods = Vec::new();
    for route in ROUTES.iter().filter(|route| route.path == path) {
        if route.method == method {
            return Found::Route(route, route.matches(segments).unwrap_or_default());
        }
        methods.push(route.method);
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    Found::Methods(methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Found {
        find(method, &path.split('/').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn literal_paths_win_and_names_may_hold_slashes() {
        let op = |method, path| match found(method, path) {
            Found::Route(route, params) => Some((route.op, params)),
            _ => None,
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(op("PUT", "virtual-models/reorder"), Some((Op::VirtualModelsReorder, none.clone())));
        assert_eq!(op("PUT", "virtual-models/vm_1"), Some((Op::VirtualModelReplace, vec!["vm_1".to_owned()])));
        assert_eq!(op("HEAD", "keys"), Some((Op::Keys, none)));
        let both = vec!["acc_1".to_owned(), "a/b/c".to_owned()];
        assert_eq!(op("DELETE", "cooldowns/acc_1/a/b/c"), Some((Op::UnlockModel, both)));
        assert_eq!(op("DELETE", "cooldowns/acc_1/"), None);
        for nothing in ["", "nothing", "keys/", "keys/key_1/rotate/x", "cooldowns//m"] {
            assert!(matches!(found("GET", nothing), Found::Nothing), "{nothing}");
        }
    }

    #[test]
    fn another_method_is_told_which_would_do() {
        let Found::Methods(methods) = found("PATCH", "keys") else { panic!() };
        assert_eq!(methods, ["GET", "HEAD", "POST"]);
        let Found::Methods(methods) = found("DELETE", "virtual-models/reorder") else { panic!() };
        assert_eq!(methods, ["POST", "PUT"], "`reorder` is no id");
    }

    #[test]
    fn no_route_is_there_twice_and_all_writes_say_what_they_change() {
        for (n, route) in ROUTES.iter().enumerate() {
            assert!(!ROUTES[..n].iter().any(|other| (other.method, other.path) == (route.method, route.path)));
            assert!(route.path.starts_with("/api/") && !route.summary.is_empty());
        }
    }
}
