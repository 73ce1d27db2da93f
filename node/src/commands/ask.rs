//! `selvedge ask`: a question to the mesh, and the answer as it arrives.

use std::io::Read as _;

use anyhow::{Context as _, Result, anyhow, bail};
use selvedge_contract::embed::embeds;
use selvedge_contract::speech::hears;
use selvedge_contract::tensors::infers;
use selvedge_net::clock;
use serde_json::{Value, json};

use crate::cli;
use crate::client::{Client, Said};
use crate::home::{Contact, Home};
use crate::record::Record;
use crate::ui::{self, Ink, paint_err, span_text};

/// Said where no model answers questions.
const MISSING: &str = "no node of the mesh has a model; `selvedge models pull` fetches a small one";
/// The longest question read from standard input: what a request may carry.
const MAX_PROMPT_BYTES: u64 = 8 << 20;

/// Asks, and says on standard error who answered and why.
pub(crate) fn ask(home: &Home, options: &cli::Ask) -> Result<()> {
    let contact = match &options.api {
        Some(_) => None,
        None => Some(home.running()?),
    };
    let base = options.api.as_deref().or(contact.as_ref().map(|contact| contact.api.as_str()));
    let client = Client::new(base.unwrap_or_default(), options.key.clone());
    let model = match &options.model {
        Some(model) => model.clone(),
        // What makes embeddings, hears or takes tensors answers no question.
        None => {
            first_model(&client, |made| !embeds(made) && !hears(made) && !infers(made), MISSING)?
        }
    };
    let body = body(options, &model, prompt(&options.prompt)?);
    if options.json { whole(&client, &body) } else { stream(&client, &body, contact.as_ref()) }
}

fn prompt(words: &[String]) -> Result<String> {
    if words != ["-"] {
        return Ok(words.join(" "));
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PROMPT_BYTES)
        .read_to_string(&mut text)
        .context("standard input is not text")?;
    Ok(text)
}

/// The first model by name that is made for something, as its architecture says.
pub(super) fn first_model(
    client: &Client,
    made: impl Fn(&str) -> bool,
    missing: &'static str,
) -> Result<String> {
    let models: Value = client.get("/v1/models")?;
    let all = models["data"].as_array().into_iter().flatten();
    // Of a provider's model nothing is known but its name.
    let makes =
        |model: &&Value| made(model["selvedge"]["architecture"].as_str().unwrap_or_default());
    let mut names: Vec<&str> = all.filter(makes).filter_map(|model| model["id"].as_str()).collect();
    names.sort_unstable();
    names.first().map(|name| (*name).to_owned()).ok_or_else(|| anyhow!(missing))
}

fn body(options: &cli::Ask, model: &str, prompt: String) -> Value {
    let mut messages = Vec::new();
    if let Some(system) = &options.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.push(json!({ "role": "user", "content": prompt }));
    let mut body = json!({
        "model": model,
        "messages": messages,
        "max_completion_tokens": options.max_tokens,
    });
    if let Some(temperature) = options.temperature {
        body["temperature"] = json!(temperature);
    }
    body
}

fn whole(client: &Client, body: &Value) -> Result<()> {
    let (mut answer, request): (Value, String) = client.ask("/v1/chat/completions", body)?;
    answer["request_id"] = json!(request);
    ui::out(format_args!("{answer:#}"));
    Ok(())
}

fn stream(client: &Client, body: &Value, contact: Option<&Contact>) -> Result<()> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let begun = clock::mono();
    let mut talk = client.talk("/v1/chat/completions", &body)?;
    let (mut tokens, mut ended) = (0, String::new());
    let outcome = loop {
        match talk.next() {
            Ok(Some(Said::Data(chunk))) => {
                let choice = &chunk["choices"][0];
                ui::out_part(choice["delta"]["content"].as_str().unwrap_or_default());
                if let Some(reason) = choice["finish_reason"].as_str() {
                    reason.clone_into(&mut ended);
                }
                if let Some(count) = chunk["usage"]["completion_tokens"].as_u64() {
                    tokens = count;
                }
            }
            Ok(Some(Said::Comment(_))) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ui::out("");
    if let Err(error) = outcome {
        bail!("{error:#} ({})", talk.request);
    }
    let took = clock::mono().since(begun);
    let record = contact.and_then(|contact| {
        let path = format!("/admin/requests/{}", talk.request);
        Client::admin(contact).get::<Record>(&path).ok()
    });
    let node = record.as_ref().and_then(|record| record.attempts.last());
    let node = node.map_or(talk.node.as_str(), |attempt| attempt.name.as_str());
    let cut = match ended.as_str() {
        "length" => ", cut at --max-tokens",
        "quota" => ", cut where the budget ended",
        _ => "",
    };
    ui::note(paint_err(
        Ink::Dim,
        format_args!("— {node}, {tokens} tokens in {}{cut}; {}", span_text(took.0), talk.request),
    ));
    if let Some(why) = record.as_ref().and_then(Record::why) {
        ui::note(paint_err(Ink::Dim, format_args!("  why {node}: {why}")));
    }
    Ok(())
}
