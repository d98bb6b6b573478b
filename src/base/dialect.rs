//! The names of the dialects: a word that formats, memory and settings share. What they look like is `dialect`'s.

/// Who speaks how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI's API and all that copy it.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

impl Dialect {
    /// As written in `providers.toml` and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// The dialect of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::OpenAi, Self::Anthropic, Self::Gemini].into_iter().find(|d| d.name() == name)
    }
}

/// What a data-plane URL asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/rerank`
    Rerank,
    /// `POST /v1/images/generations`
    Images,
    /// `POST /v1/audio/speech`
    Speech,
    /// `POST /v1/audio/transcriptions` (multipart, streamed through)
    Transcriptions,
    /// `POST /v1/moderations`
    Moderations,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// `POST /v1beta/models/{model}:generateContent`
    Generate,
    /// `POST /v1beta/models/{model}:streamGenerateContent`
    StreamGenerate,
}

impl Endpoint {
    /// The dialect its callers speak.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            Self::Generate | Self::StreamGenerate => Dialect::Gemini,
            _ => Dialect::OpenAi,
        }
    }

    /// Its name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Completions => "completions",
            Self::Rerank => "rerank",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Moderations => "moderations",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Generate => "generate",
            Self::StreamGenerate => "stream_generate",
        }
    }

    /// What follows a provider's base URL (`…/v1` for OpenAI-compatible ones, none for Anthropic and Gemini). Gemini's
    /// carries the model, see `urls`.
    pub const fn upstream_path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Embeddings => "/embeddings",
            Self::Completions => "/completions",
            Self::Rerank => "/rerank",
            Self::Images => "/images/generations",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Moderations => "/moderations",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Generate => ":generateContent",
            Self::StreamGenerate => ":streamGenerateContent",
        }
    }
}
