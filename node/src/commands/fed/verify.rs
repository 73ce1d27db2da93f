//! `selvedge fed verify`: a model file and its chain, without a node.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use selvedge_base::NodeId;
use selvedge_federated::round::{Digest, Why};
use selvedge_runtime::{Fate, Settled, TrainedModel, Verified, verify_each};
use selvedge_train::MAX_LEARNED_BYTES;
use serde_json::{Value, json};

use crate::bridge::method;
use crate::cli;
use crate::ui;

/// Proves a model, or says what is wrong first.
pub(super) fn verify(options: &cli::FedVerify) -> Result<()> {
    let Proven { model, verified, each } = proven(options)?;
    if options.json {
        let mut told = as_json(&model, &verified);
        if let Some(each) = &each {
            told["each_contribution"] = each.iter().map(recorded).collect();
        }
        ui::out(format_args!("{told:#}"));
    } else {
        ui::out(told(&model, &verified));
        each.iter().for_each(|each| ui::out(ui::table(&listed(each))));
    }
    Ok(())
}

/// What two files prove.
#[derive(Debug)]
struct Proven {
    model: TrainedModel,
    verified: Verified,
    /// Every contribution, where that was asked for; the chain, which is longer, bounds it.
    each: Option<Vec<Settled>>,
}

fn proven(options: &cli::FedVerify) -> Result<Proven> {
    let file = &options.model;
    let model = TrainedModel::from_bytes(&bytes_of(file)?)
        .with_context(|| format!("{} is no model of a job", file.display()))?;
    let path = chain_of(options);
    let chain = File::open(&path).with_context(|| {
        format!("cannot open the chain {}; --chain names another file", path.display())
    })?;
    let mut each = options.contributions.then(Vec::new);
    let mut tell = |one| each.iter_mut().for_each(|each| each.push(one));
    let verified = verify_each(&model, BufReader::new(chain), &mut tell)
        .with_context(|| format!("{} is NOT proven by {}", file.display(), path.display()))?;
    Ok(Proven { model, verified, each })
}

/// The chain that was named, or the one beside the model.
fn chain_of(options: &cli::FedVerify) -> PathBuf {
    options.chain.clone().unwrap_or_else(|| options.model.with_extension("chain"))
}

fn bytes_of(file: &Path) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(failed)?;
    // One more than there may be, so that what is longer is refused and not cut.
    opened.take(MAX_LEARNED_BYTES as u64 + 1).read_to_end(&mut bytes).with_context(failed)?;
    Ok(bytes)
}

fn told(model: &TrainedModel, verified: &Verified) -> String {
    let Verified { told, tip, anchors, counted, expired, left_out, unchecked } = verified;
    let rules = &told.job;
    let rounds = match rules.rounds - tip.round {
        0 => format!("{}, all of the job", tip.round),
        _ => format!("{} of {}; the job may have gone on", tip.round, rules.rounds),
    };
    let all: u64 = counted.values().sum();
    let mut rows = vec![
        ("job", hex(&tip.job)),
        ("rounds", rounds),
        ("record", hex(&tip.record)),
        ("model", format!("{}, {} weights", hex(&tip.server.digest()), model.weights.len())),
        ("updates", format!("{all} of {} nodes; {expired} expired", counted.len())),
        ("strategy", format!("{}, rule {}", method(rules.strategy), rules.rule())),
        ("privacy", super::privacy(rules)),
        ("epsilon", super::epsilon(rules, None)),
    ];
    for (round, nodes) in anchors {
        let from =
            if *round == 0 { String::new() } else { format!(", from round {} on", round + 1) };
        rows.push(("anchors", format!("{}{from}", nodes.len())));
        rows.extend(nodes.iter().map(|node| ("", node.to_string())));
    }
    let parts = counted.iter().map(|(node, count)| ("", format!("{node} {count}")));
    rows.push(("updates of", "in all rounds together".to_owned()));
    rows.extend(parts);
    if !left_out.is_empty() {
        rows.push((
            "left out of",
            "rounds whose sum no honest updates make: one of them lies".into(),
        ));
        rows.extend(left_out.iter().map(|(node, count)| ("", format!("{node} {count}"))));
    }
    if *unchecked > 0 {
        let of =
            format!("{unchecked} of {} rounds: no more parts of the sum than tell it", tip.round);
        rows.push(("not checked", of));
    }
    let rows: Vec<_> = rows.into_iter().map(|(what, text)| vec![what.to_owned(), text]).collect();
    format!(
        "proven: the model is what the rounds of this job made. The file calls the job '{}'.\n{}\n\
         Whether it is the job that you mean only its digest says; --help tells what else is not \
         proven.",
        model.name,
        ui::table(&rows).trim_end()
    )
}

fn as_json(model: &TrainedModel, verified: &Verified) -> Value {
    let Verified { told, tip, anchors, counted, expired, left_out, unchecked } = verified;
    let names = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let anchors =
        anchors.iter().map(|(round, nodes)| json!({ "from_round": round, "nodes": names(nodes) }));
    let by_node = |counts: &BTreeMap<NodeId, u64>| -> Vec<Value> {
        let one = |(node, count): (&NodeId, &u64)| {
            let node = node.to_string();
            json!({ "node": node, "contributions": count })
        };
        counts.iter().map(one).collect()
    };
    json!({
        "proven": true,
        "name": model.name,
        "job": hex(&tip.job),
        "job_rounds": told.job.rounds,
        "strategy": method(told.job.strategy),
        "rule": told.job.rule().to_string(),
        "groups": told.job.groups(),
        "rounds": tip.round,
        "record": hex(&tip.record),
        "model": hex(&tip.server.digest()),
        "weights": model.weights.len(),
        "anchors": anchors.collect::<Vec<_>>(),
        "contributions": by_node(counted),
        "expired": expired,
        "left_out": by_node(left_out),
        "unchecked_rounds": unchecked,
    })
}

/// A contribution as JSON.
fn recorded(one: &Settled) -> Value {
    let (weight, left_out, expired) = match one.fate {
        Fate::Counts(weight) => (Some(weight), false, None),
        Fate::LeftOut => (None, true, None),
        Fate::Expired(why) => (None, false, Some(in_a_word(why))),
    };
    json!({
        "round": one.round,
        "node": one.id.client.node.to_string(),
        "client": client(one),
        "number": one.id.seq,
        "trained_for_round": one.base_round,
        "weight": weight,
        "left_out": left_out,
        "expired": expired,
    })
}

/// All contributions as rows of a table.
fn listed(each: &[Settled]) -> Vec<Vec<String>> {
    let head = ["ROUND", "NUMBER", "TRAINED FOR", "WEIGHT", "NODE", "CLIENT"].map(str::to_owned);
    let row = |one: &Settled| {
        let fate = match one.fate {
            Fate::Counts(weight) => weight.to_string(),
            Fate::LeftOut => "left out".to_owned(),
            Fate::Expired(why) => format!("expired: {}", in_a_word(why)),
        };
        let round = |round: u64| (round + 1).to_string();
        let node = one.id.client.node.to_string();
        let number = one.id.seq.to_string();
        vec![round(one.round), number, round(one.base_round), fate, node, client(one)]
    };
    std::iter::once(head.to_vec()).chain(each.iter().map(row)).collect()
}

/// Which client of its node: as in the status of that node.
fn client(one: &Settled) -> String {
    format!("{:016x}", one.id.client.incarnation)
}

const fn in_a_word(why: Why) -> &'static str {
    match why {
        Why::Stale => "stale",
        Why::Reconfigured => "reconfigured",
    }
}

fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
