//! One target in the mesh: the chat as generation requests, their pieces as canonical events.
//!
//! Owns the translation both ways, calls of tools included. What a text model of the mesh cannot do
//! is refused by name, so that another target may be tried. Nodes, resuming and budgets are the
//! gateway's.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use selvedge_base::{Dice, Refusal, RequestId};
use selvedge_contract::{self as contract, FinishReason, Input};
use selvedge_core::Piece;
use selvedge_core::bill::Took;
use selvedge_dialect::chat::{
    Calls, Event, Finish, ForEngine, Head, Timing, TokenLogProb, TopLogProb, Usage, for_engine,
    tier_of,
};
use selvedge_dialect::number::Number;
use selvedge_proto::wire::Label;

use super::{End, Relay, Said};
use crate::gateway::{AnswerStream, Call};

impl Relay {
    /// Has a model of the mesh make the whole answer.
    pub(super) async fn ask_mesh(&mut self, model: String) -> End {
        let (calls, service_tier) = match self.calls(&model).await {
            Ok(calls) => calls,
            Err(refusal) => return End::Failed(refusal.into()),
        };
        let mut tools: Vec<Option<Calls>> =
            (0..).zip(&calls).map(|(choice, call)| calls_of(choice, call)).collect();
        self.in_mesh = true;
        let mut open: Vec<_> =
            calls.into_iter().map(|call| Some(self.gateway.begin(call))).collect();
        let head = Head { id: self.call.id.to_string(), model, service_tier, ..Head::default() };
        if !self.deliver(Event::Head(head)).await {
            return End::Doubted;
        }
        let mut total = Usage::default();
        let mut timing = Timing::default();
        let (mut took, mut prompt) = (Took::default(), 0);
        while open.iter().any(Option::is_some) {
            let (choice, piece) = Next(&mut open).await;
            let over = matches!(piece, None | Some(Piece::Finished { .. } | Piece::Failed(_)));
            if over {
                open[choice] = None;
            }
            let choice = choice as u32;
            match &piece {
                Some(Piece::Started { prompt_tokens, .. }) => {
                    prompt += u64::from(*prompt_tokens);
                    took.tokens += u64::from(*prompt_tokens);
                }
                Some(Piece::Token(_)) => took.tokens += 1,
                _ => {}
            }
            self.journey.took(took);
            self.counted = Usage {
                prompt_tokens: prompt,
                completion_tokens: took.tokens - prompt,
                ..self.counted
            };
            let mut events = match piece {
                Some(Piece::Failed(refusal)) => return End::Failed(refusal.into()),
                None => return End::Failed(super::nowhere().into()),
                Some(piece) => events_of(choice, piece, &mut total, &mut timing),
            };
            if let Some(Some(calls)) = tools.get_mut(choice as usize) {
                events = told(calls, events, self.hides_logprobs);
            }
            for event in events {
                if !self.deliver(event).await {
                    // Its budgets are to know what it took before more is asked of them.
                    for answer in open.into_iter().flatten() {
                        answer.leave().await;
                    }
                    return End::Doubted;
                }
            }
        }
        self.usage = Some(total);
        self.journey.took(Took { tokens: total.total(), micro_dollars: 0 });
        let finished = Event::Finished { usage: Some(total), timing: Some(timing) };
        End::Answered(Said::Event(finished))
    }

    /// One call per answer wanted, and the class of service, if one was named, as it is said again.
    async fn calls(&mut self, model: &str) -> Result<(Vec<Call>, Option<String>), Refusal> {
        let ForEngine { input, n, sampling, seed, max_tokens, stop, logprobs, schema, tier } =
            for_engine(self.to_ask(None)?.as_ref())?;
        let input = self.begun(model, input, schema.is_some()).await?;
        let seed = seed.unwrap_or(self.call.drawn);
        let judged = self.judging.is_some().then_some(contract::LogProbs { top: 0 });
        self.hides_logprobs = logprobs.is_none();
        let logprobs = logprobs.or(judged);
        let call = |index: usize| Call {
            id: RequestId(self.call.id.0.wrapping_add(index as u128)),
            tenant: self.call.tenant.clone(),
            account: self.call.account.clone(),
            key: self.call.key,
            label: self.call.label.unwrap_or(Label::Mesh),
            deadline: self.deadline.since(selvedge_net::clock::mono()),
            priority: tier.unwrap_or_default(),
            model: model.to_owned(),
            input: input.clone(),
            sampling: contract::Sampling { seed: seed_of(seed, index), ..sampling.clone() },
            max_tokens,
            stop: stop.clone(),
            logprobs,
            schema: schema.clone(),
            trace: self.call.trace.clone(),
            leg: self.journey.at(),
        };
        let said = tier.map(|priority| tier_of(priority).to_owned());
        Ok(((0..n).map(call).collect(), said))
    }
}

/// What tells an answer's calls from its text, where it may call.
fn calls_of(choice: u32, call: &Call) -> Option<Calls> {
    match &call.input {
        Input::Tooled(chat) if !chat.tools.is_empty() => {
            Some(Calls::new(choice, format!("call_{:032x}", call.id.0), chat))
        }
        _ => None,
    }
}

/// The same events with the calls that their text holds. `hides`: log-probabilities are only for
/// judging the answer.
fn told(calls: &mut Calls, events: Vec<Event>, hides: bool) -> Vec<Event> {
    let mut all = Vec::with_capacity(events.len());
    for event in events {
        match event {
            Event::Text { text, .. } => calls.push(&text, &mut all),
            Event::Ended { choice, reason, stop } => {
                calls.finish(&mut all);
                let wants = calls.any() && reason == Finish::Stop;
                let reason = if wants { Finish::ToolCalls } else { reason };
                all.push(Event::Ended { choice, reason, stop });
            }
            // An answer with a call stands, and a form that was forced tells no doubt.
            Event::LogProbs { .. } if hides && calls.is_open() => {}
            other => all.push(other),
        }
    }
    all
}

/// The seed of one answer: the first uses the caller's, so that `n` does not change it.
fn seed_of(seed: u64, index: usize) -> u64 {
    match index {
        0 => seed,
        _ => Dice::keyed(seed, &format!("answer {index}")).next(),
    }
}

fn events_of(choice: u32, piece: Piece, total: &mut Usage, timing: &mut Timing) -> Vec<Event> {
    match piece {
        Piece::Started { .. } | Piece::Moved { .. } | Piece::Failed(_) => Vec::new(),
        Piece::Token(token) => {
            let mut events = Vec::new();
            if !token.text.is_empty() {
                events.push(Event::Text { choice, text: token.text });
            }
            if let Some(told) = token.logprob {
                let of = |bytes: Vec<u8>, logprob: f32| TopLogProb {
                    token: String::from_utf8_lossy(&bytes).into_owned(),
                    bytes: Some(bytes),
                    logprob: Number::from(logprob),
                };
                let tops = told.top.into_iter();
                let alternatives = tops.map(|(bytes, logprob)| of(bytes, logprob)).collect();
                let tokens = vec![TokenLogProb { top: of(told.bytes, told.logprob), alternatives }];
                events.push(Event::LogProbs { choice, tokens, refusal: false });
            }
            events
        }
        Piece::Finished { reason, text, usage, .. } => {
            // The prompt is read once per answer and billed once per answer.
            total.prompt_tokens += u64::from(usage.prompt_tokens);
            total.cached_tokens += u64::from(usage.cached_tokens);
            total.completion_tokens += u64::from(usage.completion_tokens);
            timing.prompt = usage.first_token;
            timing.total = timing.total.max(usage.total);
            let reason = match reason {
                FinishReason::Stop => Finish::Stop,
                FinishReason::Length => Finish::Length,
                FinishReason::Quota => Finish::Quota,
            };
            let held = (!text.is_empty()).then_some(Event::Text { choice, text });
            held.into_iter().chain([Event::Ended { choice, reason, stop: None }]).collect()
        }
    }
}

/// The next piece of any of the answers, and of which; `None` where one broke off.
struct Next<'a>(&'a mut Vec<Option<AnswerStream>>);

impl Future for Next<'_> {
    type Output = (usize, Option<Piece>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        for (index, answer) in self.0.iter_mut().enumerate() {
            if let Some(answer) = answer
                && let Poll::Ready(piece) = answer.poll_next(cx)
            {
                return Poll::Ready((index, piece));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use selvedge_contract::{Tool, ToolChoice, Tooled};

    use super::*;

    #[test]
    fn what_may_be_a_call_is_not_judged_by_its_tokens() {
        let (name, parameters) = ("f".to_owned(), "{}".to_owned());
        let chat = Tooled {
            messages: Vec::new(),
            turns: Vec::new(),
            tools: vec![Tool { name, description: String::new(), parameters }],
            choice: ToolChoice::Auto,
            parallel: true,
        };
        let said = ["Hm. ", "<tool_call>", "{\"name\": \"f\", ", "\"arguments\": {}}"];
        for (hides, wanted) in [(true, 2), (false, 4)] {
            let mut calls = Calls::new(0, "id".to_owned(), &chat);
            let mut all = Vec::new();
            for text in said {
                let (text, logprob) = (text.to_owned(), Number::from(-9.0_f32));
                let top = TopLogProb { token: text.clone(), bytes: None, logprob };
                let tokens = vec![TokenLogProb { top, alternatives: Vec::new() }];
                let logprobs = Event::LogProbs { choice: 0, tokens, refusal: false };
                all.extend(told(
                    &mut calls,
                    vec![Event::Text { choice: 0, text }, logprobs],
                    hides,
                ));
            }
            assert!(all.iter().any(|event| matches!(event, Event::ToolEnd { .. })), "{all:?}");
            let judged = all.iter().filter(|event| matches!(event, Event::LogProbs { .. }));
            assert_eq!(judged.count(), wanted, "{all:?}");
        }
    }
}
