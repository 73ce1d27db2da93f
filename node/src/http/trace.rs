//! Traces as clients begin them, and which requests are told of.
//!
//! Owns reading the headers of W3C Trace Context, and how an endpoint is called in what is told:
//! those that ask for an answer, not those that look at the node. What is told, and whether, is
//! the runtime's.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use selvedge_base::TraceContext;
use selvedge_runtime::{CHAT, COMPLETION, Came, EMBEDDINGS, TRANSCRIPTION};

use super::route::Route;
use super::{grpc, infer};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// What a client says of the trace it is part of. Nothing that is wrong with it is told to the
/// client: it is as if it had not come.
pub(super) fn context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(PARENT).iter();
    let parent = parents.next()?;
    if parents.next().is_some() {
        return None;
    }
    let states = headers.get_all(STATE).iter().map(HeaderValue::as_bytes);
    TraceContext::parse(parent.as_bytes(), states)
}

/// How a request for an answer came; `None` for one that asks for none.
pub(super) fn came(route: &Route) -> Option<Came> {
    let (route, operation) = match route {
        Route::Chat => ("/v1/chat/completions", CHAT),
        Route::Completions => ("/v1/completions", COMPLETION),
        Route::Embeddings => ("/v1/embeddings", EMBEDDINGS),
        Route::Transcriptions => ("/v1/audio/transcriptions", TRANSCRIPTION),
        Route::Translations => ("/v1/audio/translations", TRANSCRIPTION),
        Route::Messages => ("/v1/messages", CHAT),
        Route::Responses => ("/v1/responses", CHAT),
        Route::OllamaChat => ("/api/chat", CHAT),
        Route::OllamaGenerate => ("/api/generate", COMPLETION),
        Route::OllamaEmbed => ("/api/embed", EMBEDDINGS),
        Route::OllamaEmbeddings => ("/api/embeddings", EMBEDDINGS),
        Route::Inference(infer::Endpoint::Infer(_)) => ("/v2/models/{model}/infer", CHAT),
        Route::Grpc(grpc::Method::ModelInfer) => {
            ("/inference.GRPCInferenceService/ModelInfer", CHAT)
        }
        Route::CountTokens
        | Route::OllamaTags
        | Route::OllamaShow
        | Route::OllamaVersion
        | Route::Inference(_)
        | Route::Grpc(_)
        | Route::Models
        | Route::Model(_)
        | Route::Request(_)
        | Route::Labels(_)
        | Route::Description
        | Route::Health
        | Route::Metrics
        | Route::Admin(..) => return None,
    };
    Some(Came::Client { route, operation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parent_and_all_states_are_read() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        assert_eq!(context(&headers), None);
        headers.append(PARENT, HeaderValue::from_static(parent));
        headers.append(STATE, HeaderValue::from_static("a=1"));
        headers.append(STATE, HeaderValue::from_static("b=2"));
        let read = context(&headers);
        assert_eq!(read.as_ref().map(TraceContext::parent_text).as_deref(), Some(parent));
        assert_eq!(read.as_ref().map(TraceContext::state_text), Some("a=1,b=2"));
        headers.append(PARENT, HeaderValue::from_static(parent));
        assert_eq!(context(&headers), None, "two parents are none");
    }

    #[test]
    fn what_asks_for_an_answer_is_told_of() {
        for (route, told) in [
            (Route::Chat, Some("/v1/chat/completions")),
            (
                Route::Inference(infer::Endpoint::Infer(infer::Named {
                    model: "secret".to_owned(),
                    version: String::new(),
                })),
                Some("/v2/models/{model}/infer"),
            ),
            (Route::Inference(infer::Endpoint::Ready), None),
            (Route::Health, None),
            (Route::Model("m".to_owned()), None),
        ] {
            let came = came(&route).map(|came| match came {
                Came::Client { route, .. } => route,
                Came::Peer { .. } => "",
            });
            assert_eq!(came, told, "{route:?}");
        }
    }
}
