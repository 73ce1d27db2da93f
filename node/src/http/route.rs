//! Which path leads where, with which methods, and as what it is counted.
//!
//! Owns the table of paths. Who may go there and what is done there are not its business.

use super::{admin, grpc, infer};

/// The endpoints, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    Chat,
    Completions,
    Embeddings,
    Audio,
    Messages,
    Responses,
    Ollama,
    Inference,
    /// The same over gRPC, counted and allowed as one.
    Grpc,
    Models,
    Health,
    Metrics,
    Admin,
    Other,
}

impl Surface {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Other as usize + 1;

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Audio => "audio",
            Self::Messages => "messages",
            Self::Responses => "responses",
            Self::Ollama => "ollama",
            Self::Inference | Self::Grpc => "inference",
            Self::Models => "models",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
            Self::Other => "other",
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Completions,
    Embeddings,
    Transcriptions,
    Translations,
    Messages,
    CountTokens,
    Responses,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    OllamaEmbeddings,
    OllamaTags,
    OllamaShow,
    OllamaVersion,
    Inference(infer::Endpoint),
    Grpc(grpc::Method),
    Models,
    Model(String),
    /// A past request, as it is named.
    Request(String),
    /// The labels of one.
    Labels(String),
    Description,
    Health,
    Metrics,
    /// The rest of the path, and the methods it knows.
    Admin(String, &'static str),
}

/// The paths that hold no name, and where they lead.
static FIXED: [(&str, Route); 19] = [
    ("/v1/chat/completions", Route::Chat),
    ("/v1/completions", Route::Completions),
    ("/v1/embeddings", Route::Embeddings),
    ("/v1/audio/transcriptions", Route::Transcriptions),
    ("/v1/audio/translations", Route::Translations),
    ("/v1/messages", Route::Messages),
    ("/v1/messages/count_tokens", Route::CountTokens),
    ("/v1/responses", Route::Responses),
    ("/api/chat", Route::OllamaChat),
    ("/api/generate", Route::OllamaGenerate),
    ("/api/embed", Route::OllamaEmbed),
    ("/api/embeddings", Route::OllamaEmbeddings),
    ("/api/tags", Route::OllamaTags),
    ("/api/show", Route::OllamaShow),
    ("/api/version", Route::OllamaVersion),
    ("/v1/models", Route::Models),
    ("/health", Route::Health),
    ("/metrics", Route::Metrics),
    ("/openapi.json", Route::Description),
];

/// Models and past requests, by name.
const PAST: [&str; 3] = ["/v1/models/{model}", "/v1/requests/{id}", "/v1/requests/{id}/labels"];

/// Every path, with the surface it belongs to and the methods it knows; names are in braces. Calls
/// of gRPC are none of them: their paths are named by the protocol's own description.
pub(super) fn paths() -> Vec<(String, Surface, &'static str)> {
    let line = |path: &str| {
        Route::find(path).map(|route| (path.to_owned(), route.surface(), route.methods()))
    };
    let fixed = FIXED.iter().map(|(path, _)| *path);
    let named = infer::PATHS.into_iter().chain(PAST);
    let admin = admin::PATHS.iter().map(|(path, _)| format!("/admin/{path}"));
    let admin = admin.filter_map(|path| line(&path));
    fixed.chain(named).filter_map(line).chain(admin).collect()
}

impl Route {
    pub(super) fn find(path: &str) -> Option<Self> {
        if let Some((_, route)) = FIXED.iter().find(|(known, _)| *known == path) {
            return Some(route.clone());
        }
        if let Some(endpoint) = infer::Endpoint::find(path) {
            return Some(Self::Inference(endpoint));
        }
        if let Some(method) = grpc::Method::find(path) {
            return Some(Self::Grpc(method));
        }
        if let Some(rest) = path.strip_prefix("/admin/") {
            let rest = decoded(rest)?;
            return admin::methods(&rest).map(|methods| Self::Admin(rest, methods));
        }
        if let Some(id) = path.strip_prefix("/v1/requests/") {
            return match id.strip_suffix("/labels") {
                Some(id) => (!id.is_empty()).then(|| Self::Labels(id.to_owned())),
                None => (!id.is_empty()).then(|| Self::Request(id.to_owned())),
            };
        }
        // Names of models may hold slashes, escaped or not.
        let name = path.strip_prefix("/v1/models/").filter(|name| !name.is_empty())?;
        decoded(name).map(Self::Model)
    }

    pub(super) const fn surface(&self) -> Surface {
        match self {
            Self::Chat => Surface::Chat,
            Self::Completions => Surface::Completions,
            Self::Embeddings => Surface::Embeddings,
            Self::Transcriptions | Self::Translations => Surface::Audio,
            Self::Messages | Self::CountTokens => Surface::Messages,
            Self::Responses => Surface::Responses,
            Self::OllamaChat
            | Self::OllamaGenerate
            | Self::OllamaEmbed
            | Self::OllamaEmbeddings
            | Self::OllamaTags
            | Self::OllamaShow
            | Self::OllamaVersion => Surface::Ollama,
            Self::Inference(_) | Self::Labels(_) => Surface::Inference,
            Self::Grpc(_) => Surface::Grpc,
            Self::Models | Self::Model(_) | Self::Request(_) | Self::Description => Surface::Models,
            Self::Health => Surface::Health,
            Self::Metrics => Surface::Metrics,
            Self::Admin(..) => Surface::Admin,
        }
    }

    pub(super) const fn methods(&self) -> &'static str {
        match self {
            Self::Chat
            | Self::Completions
            | Self::Embeddings
            | Self::Transcriptions
            | Self::Translations
            | Self::Messages
            | Self::CountTokens
            | Self::Responses
            | Self::OllamaChat
            | Self::OllamaGenerate
            | Self::OllamaEmbed
            | Self::OllamaEmbeddings
            | Self::OllamaShow => "POST, OPTIONS",
            Self::OllamaTags
            | Self::OllamaVersion
            | Self::Models
            | Self::Model(_)
            | Self::Request(_)
            | Self::Description
            | Self::Health
            | Self::Metrics => "GET, HEAD, OPTIONS",
            Self::Inference(endpoint) => endpoint.methods(),
            Self::Grpc(_) | Self::Labels(_) => "POST, OPTIONS",
            Self::Admin(_, methods) => methods,
        }
    }
}

/// A path with its escapes resolved; `None` when they are broken or not UTF-8.
pub(super) fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, next) = match (first, after) {
            (b'%', [high, low, next @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                ((digit(*high)? * 16 + digit(*low)?) as u8, next)
            }
            (b'%', _) => return None,
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
