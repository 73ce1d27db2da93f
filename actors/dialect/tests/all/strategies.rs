//! Random canonical requests: everything the form can say, small.

use proptest::option::of;
use proptest::prelude::*;
use selvedge_dialect::chat::{
    Cache, ChatRequest, Content, Effort, Format, Function, LogProbs, Message, Part, Reasoning,
    Role, Sampling, Source, Thinking, Tool, ToolChoice,
};
use selvedge_dialect::json::Json;
use selvedge_dialect::number::Number;

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_]{0,6}"
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ -~]{1,12}", 1 => "\\PC{1,6}", 1 => Just("a\n\"b\"\\\u{1F980}".to_owned())]
}

fn schema() -> impl Strategy<Value = Json> {
    word().prop_map(|name| {
        let text = format!(
            "{{\"type\":\"object\",\"properties\":{{\"{name}\":{{\"type\":\"string\"}}}}}}"
        );
        Json::parse(text).expect("JSON")
    })
}

fn bytes_source(types: &'static [&'static str]) -> impl Strategy<Value = Source> {
    prop::sample::select(types).prop_map(|media_type| Source::Bytes {
        media_type: media_type.to_owned(),
        base64: "aGVsbG8=".to_owned(),
    })
}

fn picture() -> impl Strategy<Value = Content> {
    let source = prop_oneof![
        bytes_source(&["image/png", "image/jpeg"]),
        word().prop_map(|name| Source::Url(format!("https://example.org/{name}.png"))),
    ];
    let detail = of(prop::sample::select(&["auto", "low", "high"][..]));
    (source, detail)
        .prop_map(|(source, detail)| Content::Image { source, detail: detail.map(str::to_owned) })
}

fn document() -> impl Strategy<Value = Content> {
    let source = prop_oneof![
        bytes_source(&["application/pdf"]),
        word().prop_map(|name| Source::File(format!("file-{name}"))),
        word().prop_map(|name| Source::Url(format!("https://example.org/{name}.pdf"))),
        text().prop_map(Source::Text),
    ];
    (source, of(word())).prop_map(|(source, name)| Content::Document { source, name })
}

fn part(content: impl Strategy<Value = Content>) -> impl Strategy<Value = Part> {
    let cache = prop_oneof![
        5 => Just(None),
        1 => Just(Some(Cache::Default)),
        1 => Just(Some(Cache::Hour)),
    ];
    (content, cache).prop_map(|(content, cache)| Part { cache, ..Part::from(content) })
}

fn user() -> impl Strategy<Value = Message> {
    let content = prop_oneof![
        6 => text().prop_map(Content::Text),
        1 => picture(),
        1 => document(),
        1 => bytes_source(&["audio/wav", "audio/mpeg"]).prop_map(Content::Audio),
    ];
    let name = prop_oneof![4 => Just(None), 1 => word().prop_map(Some)];
    (prop::collection::vec(part(content), 1..3), name).prop_map(|(parts, name)| Message {
        role: Role::User,
        parts,
        name,
        extensions: vec![],
    })
}

/// A turn of the model's, with its calls and their results.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let thinking = of((text(), of(word())));
    let calls = prop::collection::vec((word(), word(), any::<bool>(), text()), 0..3);
    (thinking, of(text()), calls, prop::bool::weighted(0.1)).prop_map(
        |(thinking, said, calls, refused)| {
            let mut parts: Vec<Part> = Vec::new();
            if let Some((text, signature)) = thinking {
                parts.push(Content::Thinking { text, signature }.into());
            }
            if refused {
                parts.push(Content::Refusal("no".to_owned()).into());
            }
            parts.extend(said.map(Part::text));
            if parts.is_empty() && calls.is_empty() {
                parts.push(Part::text("ok"));
            }
            let mut results = Vec::new();
            for (at, (name, word, is_error, result)) in calls.into_iter().enumerate() {
                let id = format!("call_{word}_{at}");
                let arguments = format!("{{\"a\":\"{word}\"}}");
                parts.push(Content::ToolUse { id: id.clone(), name, arguments }.into());
                let is_error = is_error && at == 1;
                let parts = vec![Part::text(result)];
                results.push(Part::from(Content::ToolResult { id, name: None, parts, is_error }));
            }
            let mut messages = vec![Message { role: Role::Assistant, parts, ..Message::default() }];
            for result in results {
                messages.push(Message {
                    role: Role::Tool,
                    parts: vec![result],
                    ..Message::default()
                });
            }
            messages
        },
    )
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let role = prop_oneof![4 => Just(Role::System), 1 => Just(Role::Developer)];
    let system = of((role, text()).prop_map(|(role, text)| Message::text(role, text)));
    let turns = prop::collection::vec((user(), turn()), 0..3);
    (system, turns, user()).prop_map(|(system, turns, last)| {
        let mut all: Vec<Message> = system.into_iter().collect();
        for (user, turn) in turns {
            all.push(user);
            all.extend(turn);
        }
        all.push(last);
        all
    })
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let function = (word(), of(text()), of(schema()), of(any::<bool>())).prop_map(
        |(name, description, schema, strict)| {
            let name = format!("f_{name}");
            Tool::Function(Function { name, description, schema, strict, ..Function::default() })
        },
    );
    prop::collection::vec(function, 0..3)
}

fn ratio(from: i64, to: i64) -> impl Strategy<Value = Number> {
    (from..=to).prop_map(|n| Number::ratio(n, 8))
}

fn rarely<T: std::fmt::Debug + Clone>(
    strategy: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.25, strategy)
}

fn sampling() -> impl Strategy<Value = Sampling> {
    (
        rarely(ratio(0, 8)),
        rarely(ratio(1, 8)),
        rarely(1_u32..100),
        rarely(ratio(0, 8)),
        rarely(ratio(-16, 16)),
        rarely(ratio(-16, 16)),
        rarely(ratio(1, 16)),
        rarely(0_i64..1_000_000),
        prop::collection::vec((0_u32..1_000).prop_map(|t| (t, Number::from(-5))), 0..2),
    )
        .prop_map(
            |(temperature, top_p, top_k, min_p, presence, frequency, repetition, seed, bias)| {
                Sampling {
                    temperature,
                    top_p,
                    top_k,
                    min_p,
                    presence_penalty: presence,
                    frequency_penalty: frequency,
                    repetition_penalty: repetition,
                    seed,
                    logit_bias: bias,
                }
            },
        )
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Text),
        Just(Format::JsonObject),
        (of(word()), of(text()), schema(), of(any::<bool>())).prop_map(
            |(name, description, schema, strict)| Format::JsonSchema {
                name,
                description,
                schema,
                strict
            }
        ),
    ]
}

fn reasoning() -> impl Strategy<Value = Reasoning> {
    prop_oneof![
        prop::sample::select(&Effort::ALL[..])
            .prop_map(|effort| Reasoning { effort: Some(effort), ..Reasoning::default() }),
        (1_024_u32..4_096).prop_map(|budget| Reasoning {
            thinking: Some(Thinking::On),
            budget_tokens: Some(budget),
            ..Reasoning::default()
        }),
        Just(Reasoning { thinking: Some(Thinking::Off), ..Reasoning::default() }),
        Just(Reasoning { thinking: Some(Thinking::Adaptive), ..Reasoning::default() }),
    ]
}

/// Any request. Each field that few targets know is there seldom, so that every target takes some.
pub(crate) fn request() -> impl Strategy<Value = ChatRequest> {
    let plain = (messages(), tools(), sampling(), rarely(4_097_u32..9_000));
    let rest = (
        rarely(format()),
        rarely(reasoning()),
        prop::collection::vec("[A-Z]{1,4}", 0..3),
        prop::option::weighted(0.1, (0_u8..5).prop_map(|top| LogProbs { top })),
        prop::option::weighted(0.1, 1_u32..4),
        any::<bool>(),
        any::<bool>(),
        rarely(prop::sample::select(&[0_u8, 1, 2, 3][..])),
        rarely(word()),
    );
    (plain, rest).prop_map(|((messages, tools, sampling, max_tokens), rest)| {
        let (format, reasoning, stop, logprobs, n, stream, parallel, choice, user) = rest;
        let named = tools.iter().find_map(|tool| match tool {
            Tool::Function(function) => Some(function.name.clone()),
            Tool::Native { .. } => None,
        });
        let tool_choice = named.clone().and(choice).map(|choice| match (choice, named) {
            (1, _) => ToolChoice::None,
            (2, _) => ToolChoice::Required,
            (3, Some(name)) => ToolChoice::Named(name),
            _ => ToolChoice::Auto,
        });
        let parallel = (!tools.is_empty() && parallel).then_some(false);
        ChatRequest {
            model: "some-model".to_owned(),
            messages,
            tools,
            tool_choice,
            parallel_tool_calls: parallel,
            format,
            sampling,
            max_tokens,
            stop,
            logprobs,
            n,
            stream,
            include_usage: stream,
            reasoning,
            user,
            ..ChatRequest::default()
        }
    })
}

/// Requests that most targets take: no sampling and nothing rare.
pub(crate) fn plain_request() -> impl Strategy<Value = ChatRequest> {
    request().prop_map(|mut request| {
        request.sampling = Sampling::default();
        (request.logprobs, request.n, request.reasoning, request.format) = (None, None, None, None);
        (request.tool_choice, request.parallel_tool_calls) = (None, None);
        request.stop.clear();
        for tool in &mut request.tools {
            if let Tool::Function(function) = tool {
                function.strict = None;
            }
        }
        for message in &mut request.messages {
            message.name = None;
            message.parts.retain(|part| {
                matches!(
                    part.content,
                    Content::Text(_) | Content::ToolUse { .. } | Content::ToolResult { .. }
                )
            });
            for part in &mut message.parts {
                if let Content::ToolResult { is_error, .. } = &mut part.content {
                    *is_error = false;
                }
            }
            if message.parts.is_empty() {
                message.parts.push(Part::text("ok"));
            }
        }
        request
    })
}
