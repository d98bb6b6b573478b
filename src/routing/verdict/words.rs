//! What an error's body says, in each provider's words.
//!
//! Reads codes and types first and free text last; text is lower-cased and only the error's own message counts, never
//! the whole body. Bodies are hostile: anything unreadable is just text, and cut-off JSON is searched as such.

use crate::dialect::Dialect;
use crate::routing::reset;
use serde_json::Value;
use std::time::Duration;

/// Characters of a message that are read.
const MESSAGE: usize = 2048;

/// What was found. All lower case.
#[derive(Debug, Default)]
pub(super) struct Words {
    message: String,
    /// `error.code`, `error.type`, `error.status`, and Google's `details[].reason`.
    codes: Vec<String>,
    /// Google's names of the quotas that ran out.
    quotas: Vec<String>,
    retry_in: Option<Duration>,
    /// OpenRouter's note on what its moderation found.
    flagged: bool,
}

impl Words {
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(json) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(&body[..body.len().min(MESSAGE)]);
            return Self { message: text.to_lowercase(), ..Self::default() };
        };
        // Google's OpenAI-compatible endpoint wraps its error in an array.
        let json = json.as_array().and_then(|all| all.first()).unwrap_or(&json);
        let error = &json["error"];
        let mut words = Self::default();
        for text in [&error["message"], error, &json["message"], &json["detail"]] {
            if let Some(text) = text.as_str() {
                words.message = text.chars().take(MESSAGE).collect::<String>().to_lowercase();
                break;
            }
        }
        let codes = [&error["code"], &error["type"], &error["status"], &json["code"], &json["type"]];
        words.codes.extend(codes.into_iter().filter_map(code));
        for detail in error["details"].as_array().into_iter().flatten().take(16) {
            words.codes.extend(code(&detail["reason"]));
            words.quotas.extend(code(&detail["metadata"]["quota_limit"]));
            for violation in detail["violations"].as_array().into_iter().flatten().take(16) {
                words.quotas.extend(code(&violation["quotaId"]));
            }
            if let Some(delay) = detail["retryDelay"].as_str() {
                words.retry_in = reset::moment(delay, 0);
            }
        }
        let metadata = &error["metadata"];
        words.flagged = metadata["flagged_input"].is_string() || metadata["reasons"].is_array();
        words
    }

    /// Google's `RetryInfo`.
    pub(super) fn retry_in(&self) -> Option<Duration> {
        self.retry_in
    }

    /// A refusal of what was asked, not of who asks.
    pub(super) fn is_moderation(&self) -> bool {
        self.flagged || self.has_code(&["content_policy_violation", "content_filter", "moderation_blocked"])
    }

    /// The account would serve a smaller request.
    pub(super) fn is_request_sized(&self) -> bool {
        self.message.starts_with("request too large")
            || (self.message.contains("fewer max_tokens") && !self.message.contains("can only afford 0"))
    }

    pub(super) fn names_model_missing(&self) -> bool {
        if self.has_code(&["model_not_found", "deploymentnotfound", "model_not_available"]) {
            return true;
        }
        let text = &self.message;
        // Anthropic: "model: claude-x". Google: "models/x is not found for API version v1beta, or …". Only at the
        // beginning: "Previous response with id 'model' not found" holds the caller's words.
        ["model: ", "models/", "no endpoints found", "unknown model"].iter().any(|head| text.starts_with(head))
            || (text.starts_with("the model ") || text.starts_with("model "))
                && ["not exist", "not found", "not have access"].iter().any(|words| text.contains(words))
    }

    /// The account's quota or credit is used up, as opposed to its rate.
    pub(super) fn names_quota(&self, dialect: Dialect) -> bool {
        if dialect == Dialect::Gemini || self.has_code(&["resource_exhausted"]) {
            // Google says "You exceeded your current quota, please check your plan and billing" for a minute's limit
            // too: only the quota's own name tells.
            return self.quotas.iter().any(|quota| quota.contains("perday") || quota.contains("permonth"));
        }
        let codes = [
            "insufficient_quota",
            "billing_not_active",
            "billing_hard_limit_reached",
            "billing_error",
            "insufficient_credits",
            "insufficient_balance",
            "quota_exceeded",
        ];
        let text = [
            "exceeded your current quota",
            "insufficient balance",
            "insufficient credit",
            "credit balance",
            "any credits",
            "billing details",
            "quota exceeded",
            "out of credits",
            "spending limit",
            "free-models-per-day",
        ];
        self.has_code(&codes) || text.iter().any(|words| self.message.contains(words))
    }

    /// A 403 that means the credential. The text of an answer about a model that only the caller named may repeat the
    /// caller's own words: there only codes count.
    pub(super) fn names_credential(&self, known: bool) -> bool {
        let codes = [
            "invalid_api_key",
            "authentication_error",
            "api_key_invalid",
            "api_key_service_blocked",
            "account_deactivated",
            "access_token_expired",
            "consumer_suspended",
            "unauthorized",
            "unauthenticated",
        ];
        let text = [
            "api key",
            "api_key",
            "apikey",
            "api-key",
            "credential",
            "access token",
            "oauth token",
            "bearer token",
            "authentication",
            "unregistered callers",
        ];
        self.has_code(&codes) || known && text.iter().any(|words| self.message.contains(words))
    }

    /// A bad key that is told as 400 (Gemini, xAI). Only at the message's beginning: callers' words come later in one.
    pub(super) fn is_bad_key_as_400(&self, dialect: Dialect) -> bool {
        self.message.starts_with("incorrect api key provided")
            || (dialect == Dialect::Gemini || self.has_code(&["invalid_argument"]))
                && (self.has_code(&["api_key_invalid"])
                    || self.message.starts_with("api key not valid")
                    || self.message.starts_with("api key expired"))
    }

    /// An empty account that is told as 400 (Anthropic, OpenAI's images).
    pub(super) fn is_quota_as_400(&self) -> bool {
        self.has_code(&["billing_hard_limit_reached", "billing_error"])
            || self.message.starts_with("your credit balance is too low")
            || self.message.starts_with("you have reached your specified api usage limits")
    }

    fn has_code(&self, any: &[&str]) -> bool {
        self.codes.iter().any(|code| any.contains(&code.as_str()))
    }
}

fn code(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.chars().take(128).collect::<String>().to_lowercase()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
