//! Jobs that tune a language model: from the file of a job to the proof of what came out.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_base::{ModelDigest, RequestId};
use selvedge_contract::{
    Answer, Engine as _, EventSink, Further, GenerateRequest, Input, LogProbs, Sampling,
};
use selvedge_engine::{EngineConfig, LocalEngine};
use selvedge_federated::round::{Job, Tip};
use selvedge_net::clock;
use selvedge_train::{Local, Source, Subject, Texts};

use super::chain::ChainWriter;
use super::test_rounds::{Ran, run, run_with};
use super::trainer::{Data, Learned, judge, train};
use super::tuned::Tuned;
use super::verify::VerifyError;
use super::{Announced, BaseModel, JobSpec, TrainedModel, verify_model};

#[allow(dead_code)]
#[path = "../../../../inference/engine/src/testing/writer.rs"]
mod writer;

const NODES: usize = 6;

/// A directory that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("selvedge-tuning-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tiny(folder: &Folder) -> BaseModel {
    let bytes = writer::Writer::tiny(7).bytes();
    let path = folder.write("tiny.gguf", &bytes);
    BaseModel { name: "tiny".to_owned(), path, digest: *blake3::hash(&bytes).as_bytes() }
}

fn job_file(model: &str) -> String {
    format!(
        "name = 'letters'\ndata = 'notes'\nrounds = 3\nmin_clients = 4\ntarget = 6\nseed = 3\n\
         held_out_permille = 250\n[model]\nbase = 'tiny'\nwindow = 16\n{model}\n\
         [training]\nepochs = 1\nbatch = 4\nlearning_rate = 0.05\nclip = 0.5\n"
    )
}

const LORA: &str = "lora = { rank = 4, alpha = 8, targets = ['v', 'q', 'down'] }";

/// What each node has to say.
fn text(at: usize) -> String {
    let word = ["anchors", "shares", "rounds", "chains", "ledgers", "records"][at % 6];
    format!("node {at} keeps its {word} and tells nobody of its {word}. ").repeat(8)
}

fn said(text: &str, bases: &[BaseModel]) -> String {
    let read = JobSpec::from_toml(text, &|name| BaseModel::facts(bases, name));
    read.unwrap_err().to_string()
}

#[test]
fn a_job_file_says_what_is_tuned_and_how() {
    let folder = Folder::new();
    let bases = [tiny(&folder)];
    let read = |text: &str| JobSpec::from_toml(text, &|name| BaseModel::facts(&bases, name));
    let spec = read(&job_file(LORA)).unwrap();
    let tuning = spec.subject.as_tuning().unwrap();
    assert_eq!((tuning.digest, tuning.seed, tuning.rank), (bases[0].digest, 3, 4));
    // Two layers; 32 rows of q and of down, 16 of v, each of rank 4.
    assert_eq!(spec.rules().dim, 2 * 4 * (32 + 16 + 32));
    let usual = read(&job_file("")).unwrap();
    assert_eq!(usual.rules().dim, 2 * 8 * (32 + 16));
    assert!(said(&job_file(LORA), &[]).contains("no such model (it has none)"));
    assert!(said(&job_file(LORA).replace("'tiny'", "'big'"), &bases).contains("it has tiny"));
    assert!(said(&job_file("lora = { rank = 99 }"), &bases).contains("1 to 16"));
    assert!(said(&job_file("lora = { targets = ['x'] }"), &bases).contains("`x`"));
    assert!(said(&job_file("classes = 2"), &bases).contains("one of both"));
    let bare = job_file("").replace("base = 'tiny'\n", "");
    assert!(said(&bare, &bases).contains("without a 'base'"));
    let bare = bare.replace("window = 16\n", "");
    assert!(said(&bare, &bases).contains("needs 'shape'"));
}

/// Six nodes with texts of their own tune a model through real rounds, in shares that nobody can
/// take apart: all of them foretell better what they held out.
#[test]
fn rounds_tune_a_model_and_its_chain_proves_it() {
    let folder = Folder::new();
    let bases = [tiny(&folder)];
    let local = Local::new().unwrap();
    let sources: Vec<Source> = (0..NODES)
        .map(|at| {
            let path = folder.write(&format!("{at}.txt"), text(at).as_bytes());
            Source::Text(Texts { path })
        })
        .collect();
    let read = |at: usize, told: &Announced| {
        let tuning = told.task.subject.as_tuning().unwrap();
        let base = BaseModel::file_of(&bases, tuning).unwrap();
        Data::read(&sources[at], &told.task, Some(&base), None).unwrap()
    };
    let step = |at: usize, told: &Announced, tip: &Tip| -> Learned {
        let job: &Job = &told.job;
        train(&local, job, &told.task, &read(at, told), (tip, &[]), &[at as u8; 32]).unwrap()
    };
    let ran = run_with(&job_file(LORA), &bases, true, Some(&step));
    let first = ran.told.first().unwrap();
    assert!(first.server.model().iter().all(|units| *units == 0), "nothing is added at first");
    for at in 0..NODES {
        let data = read(at, &ran.told);
        let loss = |tip: &Tip| {
            let measured = judge(&local, &ran.told.task, &data, tip).unwrap().unwrap();
            assert!(measured.examples > 0 && measured.examples.is_multiple_of(16));
            measured.loss_micronats.unwrap()
        };
        let (before, after) = (loss(&first), loss(&ran.tip));
        assert!(after + 50_000 < before, "node {at}: {before} {after}");
    }
    answered(&bases[0], &ran);
    proven(&ran);
}

/// What an engine with the base says to a prompt, and how sure it is of it, bit for bit.
fn says(engine: &LocalEngine, model: ModelDigest) -> Vec<(u32, u32)> {
    let (sender, heard) = std::sync::mpsc::channel();
    let sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        further: Further::NONE,
    };
    let request = GenerateRequest {
        id: RequestId(1),
        model,
        input: Input::Text("node 3 keeps its ".to_owned()),
        sampling,
        max_tokens: 8,
        stop: Vec::new(),
        logprobs: Some(LogProbs { top: 0 }),
        schema: None,
        emitted: None,
    };
    engine.submit("acme", request, Box::new(Outlet(sender))).unwrap();
    let mut said = Vec::new();
    // A minute is far more than an answer takes; it turns a hang into a failure.
    while let Ok(event) = heard.recv_timeout(std::time::Duration::from_secs(60)) {
        match event {
            Answer::Started { .. } => {}
            Answer::Token(one) => said.push((one.token, one.logprob.unwrap().logprob.to_bits())),
            Answer::Finished { .. } => return said,
            Answer::Failed(refusal) => panic!("{refusal:?}"),
        }
    }
    panic!("no end of an answer");
}

struct Outlet(std::sync::mpsc::Sender<Answer>);

impl EventSink for Outlet {
    fn send(&mut self, event: Answer) -> bool {
        self.0.send(event).is_ok()
    }
}

/// Engines of two nodes answer by what the rounds made, alike, and not as the base does.
fn answered(base: &BaseModel, ran: &Ran) {
    let tuning = ran.told.task.subject.as_tuning().unwrap();
    let nodes: Vec<_> = (0..2)
        .map(|_| {
            let config = EngineConfig { threads: 1, ..EngineConfig::default() };
            let engine = LocalEngine::start(config, Arc::new(clock::mono)).unwrap();
            engine.add_model(&base.path, &base.name, ModelDigest(base.digest)).unwrap();
            let card = engine.tune(Tuned::of(tuning, &ran.tip).model("letters").unwrap()).unwrap();
            assert_eq!((card.round(), &*card.name), (Some(3), "letters"));
            (engine, card.digest)
        })
        .collect();
    let said: Vec<_> = nodes.iter().map(|(engine, version)| says(engine, *version)).collect();
    assert_eq!((nodes[0].1, &said[0]), (nodes[1].1, &said[1]));
    assert_ne!(said[0], says(&nodes[0].0, ModelDigest(base.digest)));
}

fn chain(ran: &Ran) -> Vec<u8> {
    let mut writer = ChainWriter::begin(Vec::new(), &ran.told).unwrap();
    ran.rounds.iter().for_each(|folded| writer.round(folded).unwrap());
    writer.finish().unwrap()
}

fn proven(ran: &Ran) {
    let chain = chain(ran);
    let model = TrainedModel::of("letters", &ran.told, &ran.tip).unwrap();
    let bytes = model.to_bytes().unwrap();
    let read = TrainedModel::from_bytes(&bytes).unwrap();
    assert_eq!(read, model);
    let verified = verify_model(&read, &chain[..]).unwrap();
    assert_eq!((&verified.tip, &verified.told), (&ran.tip, &ran.told));
    let mut other = model.clone();
    let Subject::Tuning(tuning) = &mut other.subject else { panic!("it is tuned") };
    tuning.seed += 1;
    assert!(matches!(verify_model(&other, &chain[..]), Err(VerifyError::Layers)));
    let mut other = model;
    other.weights[7] += 0.25;
    assert!(matches!(verify_model(&other, &chain[..]), Err(VerifyError::Weight { at: 7, .. })));
}

#[test]
fn a_job_is_told_in_the_version_that_knows_it() {
    let folder = Folder::new();
    let bases = [tiny(&folder)];
    let step = |_: usize, told: &Announced, _: &Tip| Learned {
        delta: vec![0.001; told.job.payload_len()],
        examples: 5,
    };
    let ran = run_with(&job_file(LORA), &bases, false, Some(&step));
    let bytes = ran.told.to_bytes().unwrap();
    assert_eq!(Announced::from_bytes(&bytes).unwrap(), ran.told);
    assert_eq!(bytes[0], 4, "its shares are proven");
    let version = |told: &Announced| {
        let job = Job { guard: None, ..told.job.clone() };
        Announced { job, ..told.clone() }.to_bytes().unwrap()[0]
    };
    assert_eq!(version(&ran.told), 2, "nodes that know layers alone say that they do not know it");
    let mut other = ran.told.clone();
    other.task.seed += 1;
    other.job.task = other.task.digest(None).unwrap();
    assert!(Announced::from_bytes(&other.to_bytes().unwrap()).is_err(), "two seeds in one job");
    let layers = run(&super::test_rounds::job_file("rounds = 1", ""), false);
    assert_eq!(version(&layers.told), 1);
}

#[test]
fn what_does_not_fit_a_node_is_said() {
    let folder = Folder::new();
    let bases = [tiny(&folder)];
    let step = |_: usize, told: &Announced, _: &Tip| Learned {
        delta: vec![0.0; told.job.payload_len()],
        examples: 5,
    };
    let told = run_with(&job_file(LORA), &bases, false, Some(&step)).told;
    let tuning = told.task.subject.as_tuning().unwrap();
    let other = BaseModel { digest: [9; 32], ..bases[0].clone() };
    let missing = BaseModel::file_of(&[other], tuning).unwrap_err();
    assert!(missing.contains("no model with the digest") && missing.contains("'tiny'"));
    let base: Option<&Path> = Some(&bases[0].path);
    let path = folder.write("table.csv", b"a,b\n1,2\n");
    let table = Source::Csv(selvedge_train::Table {
        path,
        label: "b".to_owned(),
        values: vec![],
        classes: vec![],
        scale: 1.0,
    });
    let why = Data::read(&table, &told.task, base, None).err().unwrap().to_string();
    assert!(why.contains("tunes a language model on text"), "{why}");
}
