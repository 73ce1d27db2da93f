//! That the model's answers obey the request: stop, n, seed, log probabilities, streaming, usage.

use anyhow::{Context, Result, ensure};
use selvedge_tests::chat::{STORY, chat, completion, with};
use selvedge_tests::{Asked, Client, Deadline, Scenario, scenario};
use serde_json::{Value, json};

#[test]
fn answers_obey_the_request() {
    scenario(|s| {
        let node = s.node("solo").with_model()?.up(s, &[])?;
        node.admin()?.until_offered(1, Deadline::patient())?;
        let client = node.client();
        streams_equal_whole_answers(s, &client)?;
        stops(s, &client)?;
        seeds_and_choices(s, &client)?;
        log_probabilities(s, &client)?;
        whole_characters(s, &client)?;
        penalties(s, &client)
    });
}

fn text_of(client: &Client, request: &Value) -> Result<String> {
    let answer = client.post("/v1/completions", request)?.ok()?;
    let text = answer["choices"][0]["text"].as_str();
    text.map(str::to_owned).with_context(|| format!("no text in {answer}"))
}

fn streams_equal_whole_answers(s: &Scenario, client: &Client) -> Result<()> {
    s.step("a streamed completion equals a whole one");
    let request = completion(STORY, 16);
    let whole = text_of(client, &request)?;
    let heard = Asked::stream(client, request)?.to_the_end()?.whole()?;
    ensure!(heard.text == whole, "streamed `{}`, whole `{whole}`", heard.text);
    ensure!(heard.node == "solo" && heard.finish.as_deref() == Some("length"), "{heard:?}");
    ensure!(heard.usage.is_none(), "usage was not asked for: {heard:?}");
    ensure!(heard.pieces > 8, "a stream comes in pieces: {heard:?}");

    s.step("a streamed chat with usage");
    let asked = with(chat("Say hello.", 8), json!({"stream_options": {"include_usage": true}}));
    let heard = Asked::stream(client, asked)?.to_the_end()?.whole()?;
    let usage = heard.usage.clone().context("no usage")?;
    let tokens = usage["completion_tokens"].as_u64().unwrap_or_default();
    ensure!((1..=8).contains(&tokens) && usage["prompt_tokens"].is_u64(), "{usage}");

    s.step("the same chat in one piece");
    let answer = client.post("/v1/chat/completions", &chat("Say hello.", 8))?.ok()?;
    ensure!(answer["choices"][0]["message"]["content"] == heard.text, "{answer}");
    ensure!(answer["usage"]["completion_tokens"] == tokens, "{answer}");
    Ok(())
}

fn stops(s: &Scenario, client: &Client) -> Result<()> {
    let whole = text_of(client, &completion(STORY, 16))?;
    let words: Vec<&str> = whole.split(' ').filter(|word| word.len() > 3).collect();
    let stop = *words.get(2).with_context(|| format!("too few words in `{whole}`"))?;
    let before = whole.split(stop).next().unwrap_or_default();
    for stop in [json!(stop), json!(["never in there", stop])] {
        s.step(&format!("an answer stops before {stop}"));
        let request = with(completion(STORY, 16), json!({"stop": stop}));
        let answer = client.post("/v1/completions", &request)?.ok()?;
        ensure!(answer["choices"][0]["text"] == before, "expected `{before}`: {answer}");
        ensure!(answer["choices"][0]["finish_reason"] == "stop", "{answer}");
        let heard = Asked::stream(client, request)?.to_the_end()?.whole()?;
        ensure!(heard.text == before, "expected `{before}`: {heard:?}");
    }
    s.step("a stop across two tokens");
    let position = whole[1..].find(' ').context("one word only")? + 1;
    let stop: String = whole[position - 1..].chars().take(3).collect();
    let before = whole.split(&stop).next().unwrap_or_default();
    let request = with(completion(STORY, 16), json!({"stop": [stop]}));
    let heard = Asked::stream(client, request)?.to_the_end()?.whole()?;
    ensure!(heard.text == before, "stop `{stop}`, expected `{before}`: {heard:?}");
    Ok(())
}

fn seeds_and_choices(s: &Scenario, client: &Client) -> Result<()> {
    let seeded = |seed: u64| {
        with(completion(STORY, 16), json!({"temperature": 1.0, "top_p": 0.95, "seed": seed}))
    };
    s.step("the same seed gives the same answer");
    let first = text_of(client, &seeded(7))?;
    ensure!(first == text_of(client, &seeded(7))?, "`{first}` came only once");
    s.step("another seed gives another answer");
    ensure!(first != text_of(client, &seeded(8))?, "`{first}` came twice");
    s.step("top_k of one is the likeliest token");
    let top = with(seeded(9), json!({"top_k": 1}));
    ensure!(text_of(client, &top)? == text_of(client, &completion(STORY, 16))?);
    s.step("several answers to one question");
    let answer = client.post("/v1/completions", &with(seeded(7), json!({"n": 3})))?.ok()?;
    let choices = answer["choices"].as_array().context("no choices")?;
    let mut texts: Vec<&str> = choices.iter().filter_map(|c| c["text"].as_str()).collect();
    let indexes: Vec<u64> = choices.iter().filter_map(|c| c["index"].as_u64()).collect();
    ensure!(indexes == [0, 1, 2] && answer["usage"]["completion_tokens"] == 48, "{answer}");
    texts.sort_unstable();
    texts.dedup();
    ensure!(texts.len() == 3, "the answers are the same: {answer}");
    Ok(())
}

fn log_probabilities(s: &Scenario, client: &Client) -> Result<()> {
    s.step("log probabilities of a chat");
    let request = with(chat("Say hello.", 5), json!({"logprobs": true, "top_logprobs": 3}));
    let answer = client.post("/v1/chat/completions", &request)?.ok()?;
    let content = answer["choices"][0]["logprobs"]["content"].as_array();
    let content = content.with_context(|| format!("no log probabilities: {answer}"))?;
    let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap_or_default();
    ensure!((content.len() as u64).abs_diff(tokens) <= 1, "one per token: {answer}");
    for token in content {
        let logprob = token["logprob"].as_f64().context("no logprob")?;
        let top = token["top_logprobs"].as_array().context("no alternatives")?;
        ensure!(logprob <= 0.0 && top.len() == 3, "{token}");
        let best = top[0]["logprob"].as_f64().context("no logprob")?;
        // At temperature 0 the token is the likeliest one.
        ensure!((best - logprob).abs() < 1e-4, "{token}");
        ensure!(token["bytes"].is_array() && token["token"].is_string(), "{token}");
    }
    s.step("log probabilities of a completion");
    let request = with(completion(STORY, 4), json!({"logprobs": 2}));
    let answer = client.post("/v1/completions", &request)?.ok()?;
    let logprobs = &answer["choices"][0]["logprobs"];
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        ensure!(logprobs[field].as_array().is_some_and(|list| list.len() == 4), "{answer}");
    }
    Ok(())
}

/// Characters of several bytes and several tokens arrive whole.
fn whole_characters(s: &Scenario, client: &Client) -> Result<()> {
    for prompt in
        ["😀 😃 😄 😁 😀 😃 😄 😁 😀 😃", "日本語 日本語 日本語 日本", "naïve café naïve café"]
    {
        s.step(&format!("the continuation of {prompt}"));
        let request = completion(prompt, 24);
        let whole = text_of(client, &request)?;
        let heard = Asked::stream(client, request)?.to_the_end()?.whole()?;
        ensure!(heard.text == whole, "streamed `{}`, whole `{whole}`", heard.text);
        // An answer cut by its length may end inside a character, and nowhere else.
        let inside = heard.text.trim_end_matches('\u{fffd}');
        ensure!(!inside.contains('\u{fffd}'), "{heard:?}");
    }
    Ok(())
}

fn penalties(s: &Scenario, client: &Client) -> Result<()> {
    s.step("penalties change what is said");
    let repeat = "la la la la la la la la";
    let plain = text_of(client, &completion(repeat, 12))?;
    let fields = json!({"frequency_penalty": 2.0, "presence_penalty": 2.0});
    let penalised = text_of(client, &with(completion(repeat, 12), fields))?;
    ensure!(plain != penalised, "`{plain}` both times");
    Ok(())
}
