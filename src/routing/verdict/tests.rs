//! Every row of the table, with headers and bodies as the providers send them.

use super::*;

/// 2026-01-27T12:00:00Z.
const NOW: u64 = 1_769_515_200_000;
const S: Duration = Duration::from_secs(1);

type Headers = &'static [(&'static str, &'static str)];

fn judge(dialect: Dialect, known: bool, failure: &Failure<'_>) -> Verdict {
    Judge { settings: &BreakerSettings::default(), dialect, known, unix_ms: NOW }.judge(failure)
}

fn said(dialect: Dialect, status: u16, headers: Headers, body: &str) -> Verdict {
    judge(dialect, true, &Failure::Answer { status, headers: &headers, body: body.as_bytes() })
}

fn openai(status: u16, headers: Headers, body: &str) -> Verdict {
    said(Dialect::OpenAi, status, headers, body)
}

#[track_caller]
fn locks(verdict: Verdict, reason: Reason, base: Duration, cap: Duration, named: Option<Duration>) {
    assert_eq!(verdict.next, Next::Retry);
    assert_eq!(verdict.penalty, Penalty::LockModel(Cost { reason, named, base, cap }));
}

#[track_caller]
fn limited(verdict: Verdict, named: Option<Duration>) {
    locks(verdict, Reason::RateLimited, S, 240 * S, named);
}

#[track_caller]
fn out_of_quota(verdict: Verdict, named: Option<Duration>) {
    locks(verdict, Reason::Quota, 600 * S, 600 * S, named);
    assert!(!verdict.relay, "our bill is none of the client's business");
}

#[track_caller]
fn refused(verdict: Verdict) {
    assert_eq!(verdict.next, Next::Retry);
    let cost = Cost { reason: Reason::Credentials, named: None, base: 120 * S, cap: 1800 * S };
    assert_eq!(verdict.penalty, Penalty::CoolAccount(cost));
    assert!(!verdict.relay);
}

#[track_caller]
fn passes(verdict: Verdict) {
    assert_eq!((verdict.next, verdict.penalty), (Next::Pass, Penalty::None));
}

#[track_caller]
fn counts(verdict: Verdict) {
    assert_eq!(verdict.next, Next::Retry);
    let Penalty::CountFailure(breaker) = verdict.penalty else { panic!("{verdict:?}") };
    assert_eq!((breaker.failures, breaker.window, breaker.open, breaker.cap), (5, 30 * S, 30 * S, 300 * S));
}

#[test]
fn what_the_request_caused_is_passed_through() {
    for (status, body) in [
        (
            400,
            r#"{"error":{"message":"Invalid value: 'x'.","type":"invalid_request_error","param":"messages[0].role","code":"invalid_value"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 128000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"Your request was rejected as a result of our safety system.","type":"image_generation_user_error","param":null,"code":"content_policy_violation"}}"#,
        ),
        (
            400,
            r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400}}"#,
        ),
        (
            404,
            r#"{"error":{"message":"Previous response with id 'resp_1' not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}"#,
        ),
        (
            404,
            r#"{"error":{"message":"Invalid URL (POST /v1/rerank)","type":"invalid_request_error","param":null,"code":null}}"#,
        ),
        (404, "404 page not found"),
        (409, "{}"),
        (
            413,
            r#"{"error":{"message":"Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 9000","type":"tokens","code":"rate_limit_exceeded"}}"#,
        ),
        (415, ""),
        (422, r#"{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required"}]}"#),
        (
            403,
            r#"{"error":{"code":403,"message":"m requires moderation on Together. Your input was flagged for \"violence\". No credits were charged.","metadata":{"reasons":["violence"],"flagged_input":"the words","provider_name":"Together","model_slug":"m"}}}"#,
        ),
    ] {
        passes(openai(status, &[("retry-after", "60")], body));
    }
    passes(said(
        Dialect::Anthropic,
        413,
        &[],
        r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
    ));
    passes(said(
        Dialect::Anthropic,
        404,
        &[],
        r#"{"type":"error","error":{"type":"not_found_error","message":"File not found: file_1"}}"#,
    ));
    passes(said(
        Dialect::Gemini,
        400,
        &[],
        r#"{"error":{"code":400,"message":"Please use a valid role: user, model.","status":"INVALID_ARGUMENT"}}"#,
    ));
}

#[test]
fn a_client_cannot_cool_an_account_with_its_own_words() {
    passes(openai(
        400,
        &[],
        r#"{"error":{"message":"Invalid value: 'Incorrect API key provided; insufficient_quota; your credit balance is too low'","type":"invalid_request_error","code":"invalid_value"}}"#,
    ));
    passes(said(
        Dialect::Gemini,
        400,
        &[],
        r#"{"error":{"code":400,"message":"Invalid value: API key not valid API_KEY_INVALID","status":"INVALID_ARGUMENT"}}"#,
    ));
    passes(openai(
        404,
        &[],
        r#"{"error":{"message":"Previous response with id 'the model does not exist' not found.","type":"invalid_request_error","code":"previous_response_not_found"}}"#,
    ));
    let body = r#"{"error":{"message":"Project `proj_1` does not have access to `api key`","type":"invalid_request_error","code":null}}"#;
    let headers: Headers = &[];
    passes(judge(Dialect::OpenAi, false, &Failure::Answer { status: 403, headers: &headers, body: body.as_bytes() }));
}

#[test]
fn refused_credentials_cool_the_account() {
    refused(openai(
        401,
        &[],
        r#"{"error":{"message":"Incorrect API key provided: sk-12***90.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
    ));
    refused(openai(401, &[], r#"{"message":"Unauthorized","request_id":"1"}"#));
    refused(openai(401, &[], ""));
    refused(said(
        Dialect::Anthropic,
        401,
        &[],
        r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
    ));
    refused(said(
        Dialect::Anthropic,
        403,
        &[],
        r#"{"type":"error","error":{"type":"permission_error","message":"Your API key does not have permission to use the specified resource."}}"#,
    ));
    refused(said(
        Dialect::Gemini,
        403,
        &[],
        r#"{"error":{"code":403,"message":"Your API key was reported as leaked. Please use another API key.","status":"PERMISSION_DENIED"}}"#,
    ));
    refused(said(
        Dialect::Gemini,
        403,
        &[],
        r#"{"error":{"code":403,"message":"Method doesn't allow unregistered callers (callers without established identity).","status":"PERMISSION_DENIED"}}"#,
    ));
    refused(said(
        Dialect::Gemini,
        400,
        &[],
        r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com","metadata":{"service":"generativelanguage.googleapis.com"}}]}}"#,
    ));
    refused(openai(
        400,
        &[],
        r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***zz. You can obtain an API key from https://console.x.ai."}"#,
    ));
    // Google's OpenAI-compatible endpoint.
    refused(openai(
        400,
        &[],
        r#"[{"error":{"code":400,"message":"API key expired. Please renew the API key.","status":"INVALID_ARGUMENT"}}]"#,
    ));
}

#[test]
fn forbidden_and_missing_models_are_locked_for_two_minutes_if_the_catalog_knows_them() {
    for (dialect, status, reason, body) in [
        (
            Dialect::OpenAi,
            403,
            Reason::Forbidden,
            r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#,
        ),
        (Dialect::OpenAi, 403, Reason::Forbidden, "<html>Attention Required!</html>"),
        (
            Dialect::OpenAi,
            403,
            Reason::ModelMissing,
            r#"{"error":{"message":"Project `proj_1` does not have access to model `gpt-x`","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
        ),
        (
            Dialect::OpenAi,
            404,
            Reason::ModelMissing,
            r#"{"error":{"message":"The model `gpt-x` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
        ),
        (
            Dialect::OpenAi,
            404,
            Reason::ModelMissing,
            r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
        ),
        (
            Dialect::OpenAi,
            404,
            Reason::ModelMissing,
            r#"{"object":"error","message":"The model `m` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
        ),
        (
            Dialect::OpenAi,
            404,
            Reason::ModelMissing,
            r#"{"error":{"message":"No endpoints found for a/b.","code":404}}"#,
        ),
        (
            Dialect::Anthropic,
            404,
            Reason::ModelMissing,
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"},"request_id":"req_1"}"#,
        ),
        (
            Dialect::Gemini,
            404,
            Reason::ModelMissing,
            r#"{"error":{"code":404,"message":"models/gemini-x is not found for API version v1beta, or is not supported for generateContent.","status":"NOT_FOUND"}}"#,
        ),
        (
            Dialect::Gemini,
            403,
            Reason::Forbidden,
            r#"{"error":{"code":403,"message":"Generative Language API has not been used in project 1 before or it is disabled.","status":"PERMISSION_DENIED","details":[{"reason":"SERVICE_DISABLED"}]}}"#,
        ),
    ] {
        locks(said(dialect, status, &[], body), reason, 120 * S, 120 * S, None);
        let headers: Headers = &[];
        passes(judge(dialect, false, &Failure::Answer { status, headers: &headers, body: body.as_bytes() }));
    }
}

#[test]
fn empty_accounts_are_locked_to_the_reset_named_or_ten_minutes() {
    out_of_quota(
        openai(
            402,
            &[],
            r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
        ),
        None,
    );
    out_of_quota(openai(402, &[("retry-after", "3600")], ""), Some(3600 * S));
    out_of_quota(
        openai(
            402,
            &[],
            r#"{"error":{"message":"Insufficient credits. Add more using https://openrouter.ai/settings/credits","code":402,"metadata":{"limit_source":"openrouter_credits"}}}"#,
        ),
        None,
    );
    // OpenAI: its rate limits are fine, and their resets say nothing about the quota.
    let headers: Headers = &[
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-reset-requests", "120ms"),
        ("x-ratelimit-reset-tokens", "0s"),
    ];
    out_of_quota(
        openai(
            429,
            headers,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        ),
        None,
    );
    out_of_quota(
        openai(
            429,
            &[],
            r#"{"error":{"message":"Your account is not active, please check your billing details on our website.","type":"billing_not_active","param":null,"code":"billing_not_active"}}"#,
        ),
        None,
    );
    let headers: Headers =
        &[("X-RateLimit-Limit", "50"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1769558400000")];
    out_of_quota(
        openai(
            429,
            headers,
            r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429}}"#,
        ),
        Some(43_200 * S),
    );
    out_of_quota(
        said(
            Dialect::Anthropic,
            400,
            &[],
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}"#,
        ),
        None,
    );
    out_of_quota(
        said(
            Dialect::Anthropic,
            402,
            &[],
            r#"{"type":"error","error":{"type":"billing_error","message":"Billing error"}}"#,
        ),
        None,
    );
    out_of_quota(
        openai(
            403,
            &[],
            r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your newly created teams doesn't have any credits yet."}"#,
        ),
        None,
    );
    let body = r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"20"}]}]}}"#;
    out_of_quota(said(Dialect::Gemini, 429, &[], body), None);
}

#[test]
fn rate_limits_lock_the_model_for_what_the_provider_names_or_back_off() {
    limited(
        openai(
            429,
            &[],
            r#"{"object":"error","message":"Requests rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#,
        ),
        None,
    );
    limited(openai(408, &[], ""), None);
    limited(openai(429, &[("retry-after", "20"), ("retry-after-ms", "1250")], ""), Some(Duration::from_millis(1250)));
    limited(openai(429, &[("Retry-After", "Tue, 27 Jan 2026 12:00:30 GMT")], ""), Some(30 * S));
    limited(openai(429, &[("retry-after", "-5"), ("x-ratelimit-reset-tokens", "rubbish")], ""), None);
    let headers: Headers = &[
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "30000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-requests", "8.64s"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ];
    limited(
        openai(
            429,
            headers,
            r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 30000, Requested 100. Please try again in 6m0s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
        ),
        Some(360 * S),
    );
    let headers: Headers = &[
        ("retry-after", "17"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-01-27T12:00:45Z"),
    ];
    let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 50,000 input tokens per minute."}}"#;
    limited(said(Dialect::Anthropic, 429, headers, body), Some(17 * S));
    let headers: Headers = &[
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-ratelimit-requests-reset", "2026-01-27T12:00:01Z"),
        ("anthropic-ratelimit-output-tokens-remaining", "0"),
        ("anthropic-ratelimit-output-tokens-reset", "2026-01-27T12:00:45Z"),
    ];
    limited(said(Dialect::Anthropic, 429, headers, body), Some(45 * S));
    let body = r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36.5s"}]}}"#;
    limited(said(Dialect::Gemini, 429, &[], body), Some(Duration::from_millis(36_500)));
    limited(
        said(
            Dialect::Gemini,
            429,
            &[],
            r#"{"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}"#,
        ),
        None,
    );
    limited(
        openai(
            429,
            &[("retry-after", "6")],
            r#"{"error":{"code":"429","message":"Requests have exceeded token rate limit of your current pricing tier. Please retry after 6 seconds."}}"#,
        ),
        Some(6 * S),
    );
}

#[test]
fn a_request_too_large_for_the_account_goes_elsewhere_and_rests_nobody() {
    for (status, body) in [
        (
            429,
            r#"{"error":{"message":"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 40000.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
        ),
        (
            402,
            r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 30104.","code":402,"metadata":{"provider_name":null}}}"#,
        ),
    ] {
        let verdict = openai(status, &[], body);
        assert_eq!((verdict.next, verdict.penalty), (Next::Retry, Penalty::None));
    }
    out_of_quota(
        openai(
            402,
            &[],
            r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, but can only afford 0.","code":402}}"#,
        ),
        None,
    );
}

#[test]
fn failures_of_the_provider_count_towards_its_breaker() {
    for status in [500, 502, 503, 504, 520, 529] {
        counts(openai(status, &[("retry-after", "600")], "upstream connect error"));
    }
    counts(said(
        Dialect::Anthropic,
        529,
        &[],
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    ));
    counts(said(
        Dialect::Gemini,
        503,
        &[],
        r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#,
    ));
    for failure in [
        Failure::Connect,
        Failure::Closed,
        Failure::Protocol,
        Failure::FirstByteTimeout { stream: true },
        Failure::IdleTimeout { stream: true },
    ] {
        counts(judge(Dialect::OpenAi, true, &failure));
    }
    counts(openai(302, &[("location", "https://elsewhere")], ""));
    assert!(!openai(302, &[], "").relay);
}

#[test]
fn a_slow_unary_call_is_a_504_that_counts_for_nothing() {
    let verdict = judge(Dialect::OpenAi, true, &Failure::FirstByteTimeout { stream: false });
    assert_eq!((verdict.next, verdict.penalty), (Next::Stop(ErrorKind::UpstreamTimeout), Penalty::None));
    let verdict = judge(Dialect::OpenAi, true, &Failure::IdleTimeout { stream: false });
    assert!(matches!((verdict.next, verdict.penalty), (Next::Stop(_), Penalty::CountFailure(_))));
}

#[test]
fn our_overload_and_departed_clients_are_nobodys_fault() {
    for (failure, next) in
        [(Failure::OurOverload, Next::Stop(ErrorKind::Overloaded)), (Failure::ClientLeft, Next::Drop)]
    {
        let verdict = judge(Dialect::OpenAi, true, &failure);
        assert_eq!((verdict.next, verdict.penalty), (next, Penalty::None));
    }
}

#[test]
fn hostile_bodies_never_panic_and_named_rests_are_clamped_to_a_day() {
    let deep = "[".repeat(20_000);
    let long = format!(r#"{{"error":{{"message":"{}","code":1e400}}}}"#, "é".repeat(20_000));
    for body in [deep.as_str(), long.as_str(), "null", "[]", "\"x\"", "{\"error\":[]}", "\u{0}"] {
        for status in [400, 401, 402, 403, 404, 408, 429] {
            for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini] {
                said(dialect, status, &[("retry-after", "1e308"), ("x-ratelimit-reset", "\u{1F4A9}")], body);
            }
        }
    }
    limited(openai(429, &[("retry-after", "99999999")], ""), Some(24 * 3600 * S));
}
