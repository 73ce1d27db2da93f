//! The simulated node runs every machine that production runs, or there is a written reason.
//!
//! What production runs is read from its sources: everything that the shells take from the pure
//! crates. Each of these names is used by the simulator's own code, comments aside, or excused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The pure crates, as sources name them.
const PURE: &[&str] = &["selvedge_core", "selvedge_proto", "selvedge_crdt", "selvedge_contract"];
/// Where production's shells are.
const SHELLS: &[&str] = &["actors/runtime/src", "mesh/net/src", "inference/engine/src", "node/src"];

/// Decisions that the simulator must make by calling production's own code: the call.
const CALLS: &[(&str, &str)] = &[
    ("the failure detector", "swim.step("),
    ("the life of a request", "flow.step("),
    ("budgets", "quota.step("),
    ("what an answer may use", "Meter::token"),
    ("which node answers", "route::choose("),
    ("which hand-offs are taken", "receive.check("),
    ("which receipts are good", "receipts.check_by("),
    ("whose a key of the mesh is", "book.verify("),
    ("whether a caller may go on", "book.bars("),
    ("whose a key of one node is", "ring.verify("),
    ("keys and cuts", "book.apply_key("),
    ("keys and cuts", "book.apply_cut("),
    ("epochs", "book.sign_epoch("),
    ("promises to follow an epoch", "book.adopt("),
    ("who is let in", "roster.verify("),
    ("who is admitted", "roster.admit("),
    ("leases", "roster.renew("),
    ("who is put out", "roster.apply_revocation("),
    ("join codes", "invites.issue("),
    ("the node that joins", "joiner.received("),
    ("the node that lets in", "issuer.received("),
    ("what two nodes tell each other", "sync::delta_within("),
    ("what is taken over", "sync::apply_checked("),
    ("which version is spoken", "wire::agree("),
    ("what an engine computes next", "schedule.plan("),
    // Wired as in production; its answers say nothing twice, so none is, and the schedule's own
    // properties hold what becomes of it.
    ("what is computed ahead of its draw", "schedule.accepted("),
    ("what it costs", "CostModel::"),
    ("leaving", "QuotaInput::Drained"),
    ("how many rows of a peer are checked", "intake.admit("),
    ("what a name means", "Aim::of_name("),
    ("where a route leads", "routes.decide("),
    ("which routes are good", "Routes::check("),
    ("what two nodes tell each other of routes", "settings.answer("),
    ("which records of routes are taken", "settings.apply_all("),
    ("which of them are in force", "Routes::gather("),
    ("which providers are good", "check_all("),
    ("whether data and money may leave", "Leaving {"),
    ("which target is next", "journey.broke_off("),
    ("where a request goes that has no money", "journey.local_only("),
    ("whether a provider is asked", "desk.admit("),
    ("whose fault an ending was", "desk.ended("),
    ("whether it is asked again", "tries.ended("),
    ("how long an attempt may take", "watch.expired("),
    ("what an answer costs at most", "priced.worst("),
    ("what a paid answer took so far", "running.counts("),
    ("what a paid answer took", "running.at_end("),
    ("what a provider is paid", "bill.told("),
    ("what makes requests equal", "canon(written.body"),
    ("what makes requests equal", "Key::of("),
    ("what a caller's word about the cache means", "wish.way("),
    ("what is kept, and who asks", "machine.look("),
    ("what is kept alone", "machine.find("),
    ("answers of one's own", "machine.ask_anew("),
    ("how long one waits for another's answer", "waits.again("),
    ("which answers may be kept", "is_faithful("),
    ("what is kept", "machine.answered("),
    ("questions without an answer", "machine.ended("),
    ("what a purge reaches", "machine.purge("),
    ("which peers may have an answer", "peers.whom("),
    ("how long peers are looked at", "Peers::until("),
    ("what peers tell of what they keep", "peers.heard("),
    ("peers asked in vain", "peers.in_vain("),
    ("what is told to peers", "machine.in_brief("),
    ("what a peer is given", "machine.lend("),
    ("what a peer gave", "machine.fetched("),
    ("an order to purge", "purges.next("),
    ("which purges are heeded", "purges.sound("),
    ("purges of the mesh", "purges.take_by("),
    ("which models come, go and wait", "account.want("),
    ("which models are at work", "account.worked("),
    ("which models peers have in memory", "view(now, &self.names).copies("),
    ("how long a model stays that just came", "account.loaded("),
    ("memory that is free again", "account.freed("),
    ("what running answers need", "account.keep("),
    ("what they need no more", "account.release("),
    ("how models divide what is left", "divide(shelf.account.untaken("),
    ("how a machine stands, as it is told", "sensors.settled("),
    ("what is believed of a machine", "machine.received("),
    ("which machines are spared", "strain(&one.machine.now)"),
];

/// What the shells use of the pure crates and the simulator does not, and why that proves nothing
/// less.
const EXCUSED: &[(&str, &[&str])] = &[
    (
        "frames: their bytes are tested where they are made, and here they are handed over whole",
        &[
            "Charged",
            "Detailed",
            "AnswersReply",
            "FederatedWord",
            "FitsWord",
            "Shaped",
            "PersonalWord",
            "AnswersWord",
            "Hello",
            "HelloReply",
            "PolicyWord",
            "RenewReply",
            "SyncMessage",
            "MAX_CONTENT_BYTES",
            "MAX_HELLO_BYTES",
            "MAX_LISTEN_ADDRS",
            "MAX_RECEIPT_BUDGETS",
            "MAX_SCOPE_NAME",
            "MAX_WELCOME_PEERS",
            "MESSAGES",
            "WITNESSES_SINCE",
        ],
    ),
    ("proofs over a TLS connection, which is not here", &["Knock", "KnockReply"]),
    (
        "vectors of texts: a call to a thread of this node's engine, which nobody else hears of",
        &["EmbedRequest", "EmbedSink", "Embedded", "embeds"],
    ),
    (
        "what a machine is and which file of a model suits it: read and chosen once, on one node, \
         and no other decides by it; how it stands is simulated",
        &["Card", "Chosen", "Fate", "Hardware", "MAX_CARDS", "MAX_NAME", "Variant", "clean"],
    ),
    (
        "who asks an engine in which name: what is claimed of its turns is simulated with the \
         schedule; places are counted once, by the thread that takes a request",
        &["Asker", "Crowded", "Places", "Priority", "Tenant"],
    ),
    (
        "calls of functions: what words say, and answers have none here",
        &["Tool", "ToolCall", "ToolChoice", "Turn", "TurnKind"],
    ),
    (
        "tensors, and sound that is written down: what they are, and calls to threads of this \
         node's engine; what carries them between nodes is tested where it is made",
        &[
            "CHUNK_SAMPLES",
            "CLASSIFIER",
            "CLIP",
            "VIT",
            "infers",
            "Carried",
            "Chunk",
            "Datatype",
            "Gathering",
            "InferRequest",
            "InferSink",
            "MAX_CARRIED_BYTES",
            "MAX_NAME_BYTES",
            "MAX_SAMPLES",
            "MAX_SIDES",
            "MAX_TENSORS",
            "MAX_TENSOR_BYTES",
            "PROMPT_BYTES",
            "RATE",
            "Samples",
            "Segment",
            "SpeechRequest",
            "SpeechSink",
            "SpeechTask",
            "Spoken",
            "SpokenReply",
            "Tensor",
            "TensorSpec",
            "Transcript",
            "lasting_ms",
            "tokens_of",
        ],
    ),
    (
        "keys of nodes for shares: rounds are simulated beside the meshes, with keys of their own",
        &["sealing_key"],
    ),
    (
        "the patience with a crashed actor or a broken dial: there are no actors here, and redials \
         are the failure detector's",
        &["Restart", "Patience"],
    ),
    (
        "what is shown to people",
        &[
            "BudgetStatus",
            "Drafts",
            "HolderStatus",
            "ModelSummary",
            "Remaining",
            "WitnessStatus",
            "base32",
            "fingerprint_text",
            "check_name",
        ],
    ),
    (
        "what a caller writes: parsed and judged by the HTTP surface",
        &["ChatMessage", "Constraint", "Role", "LogProbs", "TokenLogProb"],
    ),
    (
        "what words say: answers have none here, only how much of them was said, so none is \
         doubted, no seam is looked for; properties hold both rules against integers and texts",
        &["Doubt", "Judgement", "Saving", "Seam", "SoFar"],
    ),
    ("who asks without a key, which nobody does here", &["LOCAL_ACCOUNT"]),
    (
        "the inside of a real engine",
        &["EventSink", "Emitted", "PageId", "PAGE_TOKENS", "completion_time"],
    ),
    (
        "kinds of errors and of records that the calls above take and give",
        &[
            "KeyError",
            "NewKey",
            "KEY_PREFIX",
            "PolicyError",
            "QuotaHeader",
            "BOOK_VERSION",
            "BaseUrl",
            "RouteError",
            "SettingError",
            "Trouble",
            "RevocationNotice",
            "RowError",
            "Signer",
            "MAX_PEERS",
        ],
    ),
    ("a name for an account decides nothing", &["sign_account"]),
    ("the test suite of engines, which is no decision", &["contract"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The code of some folders: no comments, no tests.
fn code_of(folders: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in folders {
        sources(&root.join(folder), &mut files);
    }
    files.retain(|file| !file.to_string_lossy().contains("tests"));
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| code(&std::fs::read_to_string(file).unwrap())).collect()
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

/// Names that code takes from the pure crates: those in its `use` lines, and paths written out.
fn taken(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for pure in PURE {
        for rest in code.split(&format!("{pure}::")).skip(1) {
            let path: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                .collect();
            let group = rest[path.len()..].strip_prefix('{').map(|_| {
                let end = rest.find(';').unwrap_or(rest.len());
                rest[path.len()..end].to_owned()
            });
            let last =
                path.trim_end_matches(':').rsplit("::").next().unwrap_or_default().to_owned();
            match group {
                Some(group) => names.extend(words(&group).into_iter().map(str::to_owned)),
                None => drop(names.insert(last)),
            }
        }
    }
    names.retain(|name| !matches!(name.as_str(), "self" | "as" | "super" | "crate" | ""));
    names
}

/// Names in `impl Machine for Name`.
fn machines(text: &str) -> Vec<String> {
    let after = text.split("impl Machine for ").skip(1);
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>();
    after.map(name).filter(|name| !name.is_empty()).collect()
}

fn excused(name: &str) -> bool {
    EXCUSED.iter().any(|(_, names)| names.contains(&name))
}

#[test]
fn every_machine_of_production_runs_in_the_simulator() {
    let pure =
        code_of(&["mesh/crdt/src", "mesh/proto/src", "inference/contract/src", "actors/core/src"]);
    let ours = code_of(&["sim/src"]);
    let machines = machines(&pure);
    assert!(machines.len() >= 3, "{machines:?}");
    let missing: Vec<&String> = machines
        .iter()
        .filter(|name| !ours.contains(&format!("{name}::new(")) && !ours.contains("QuotaOrigin"))
        .collect();
    assert!(missing.is_empty(), "machines of production, not of the simulator: {missing:?}");
    let calls: Vec<&str> =
        CALLS.iter().filter(|(_, call)| !ours.contains(call)).map(|(what, _)| *what).collect();
    assert!(calls.is_empty(), "decided in the simulator without production's code: {calls:?}");
}

#[test]
fn what_the_shells_take_from_the_pure_crates_is_simulated_or_excused() {
    let shells = taken(&code_of(SHELLS));
    assert!(shells.len() > 100, "{}", shells.len());
    let ours = code_of(&["sim/src"]);
    let used = words(&ours);
    let missing: Vec<&String> =
        shells.iter().filter(|name| !used.contains(name.as_str()) && !excused(name)).collect();
    assert!(missing.is_empty(), "in production, not in the simulator: {missing:?}");
    let idle: Vec<&&str> = EXCUSED
        .iter()
        .flat_map(|(_, names)| names.iter())
        .filter(|name| !shells.contains(**name) || used.contains(**name))
        .collect();
    assert!(idle.is_empty(), "excused without need: {idle:?}");
}

#[test]
fn what_is_missing_is_noticed() {
    assert_eq!(machines("impl Machine for Flow {\nimpl Machine for Quota {"), ["Flow", "Quota"]);
    let text = "use selvedge_core::flow::{Flow, Piece};\n\
                let one = selvedge_proto::sync::delta(1); // selvedge_core::Gone";
    let names: Vec<String> = taken(&code(text)).into_iter().collect();
    assert_eq!(names, ["Flow", "Piece", "delta"]);
    assert!(!code("let a = 1; // book.verify(").contains("book.verify("));
}
