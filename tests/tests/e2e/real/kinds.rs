//! Other kinds of data than a table, each over real nodes: images for a small convolutional
//! network, in a directory and in IDX files, a node's own labelled requests, and texts that a
//! language model is tuned by. The jobs learn, and nothing of the data is in any byte that leaves
//! the node.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_base::Dice;
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, NodeSpec, scenario};
use serde_json::{Value, json};

use super::learning;
use super::overheard::{Forms, MODES, until, watched};

const PACE: &str = "[pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 3000\n";

/// Pixels of a side.
const SIDE: usize = 12;
/// Images of a node in each of its sources; every second one of each class.
const IMAGES: u64 = 40;
const IMAGE_ROUNDS: u64 = 5;
const WELDS: [&str; 2] = ["crack-qzv41", "whole-qzv42"];
/// The file in IDX that has the images, and the one that has their labels.
const PLATES: [&str; 2] = ["plates-qzv45", "states-qzv46"];
/// A rule that looks at every update, and clients that are held near the model they had.
const TRIMMED: &str = "[mode]\nkind = \"plain\"\nrule = { trimmed = { cut = 1 } }\n\
                       [strategy]\nkind = \"fedprox\"\nmu = 0.01\n";
/// A set that is opened in two sums, of two nodes each at least.
const GROUPS: &str = "[mode]\nkind = \"secure\"\ngroups = 2\n";

/// A picture that is bright above or at the left, as its class is, under noise that nothing else
/// has.
fn pixels(of: &str, node: u64, at: u64) -> Vec<u8> {
    let mut dice = Dice::keyed(node << 32 | at, of);
    let pixel = |place: usize| {
        let is_bright = match at % 2 {
            0 => place / SIDE < SIDE / 2,
            _ => place % SIDE < SIDE / 2,
        };
        let noise = dice.below(100) as u8;
        noise + if is_bright { 150 } else { 0 }
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

fn picture(node: u64, at: u64) -> Vec<u8> {
    let mut file = format!("P5\n{SIDE} {SIDE}\n255\n").into_bytes();
    file.extend(pixels("welds", node, at));
    file
}

/// A file of bytes in IDX, of so many along each side.
fn idx(sides: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sides.len() as u8];
    file.extend(sides.iter().flat_map(|side| (*side as u32).to_be_bytes()));
    file.extend(bytes);
    file
}

/// The files of [`PLATES`]: one class after the other, so that some of each are held out.
fn plates(node: u64) -> [Vec<u8>; 2] {
    let order = || (0..IMAGES).step_by(2).chain((1..IMAGES).step_by(2));
    let all: Vec<u8> = order().flat_map(|at| pixels("plates", node, at)).collect();
    let labels: Vec<u8> = order().map(|at| (at % 2) as u8).collect();
    let count = IMAGES as usize;
    [idx(&[count, SIDE, SIDE], &all), idx(&[count], &labels)]
}

fn with_images(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    let path = spec.home.join("welds-qzv43");
    for class in WELDS {
        fs::create_dir_all(path.join(class))?;
    }
    for at in 0..IMAGES {
        let name = format!("weld-qzv44-{at}.pgm");
        fs::write(path.join(WELDS[at as usize % 2]).join(name), picture(node, at))?;
    }
    let [images, labels] = PLATES.map(|name| spec.home.join(name));
    for (file, bytes) in [&images, &labels].into_iter().zip(plates(node)) {
        fs::write(file, bytes)?;
    }
    let config = format!(
        "[[data]]\nname = \"welds\"\nkind = \"images\"\npath = \"{}\"\nclasses = {WELDS:?}\n\
         [[data]]\nname = \"plates\"\nkind = \"idx\"\nimages = \"{}\"\nlabels = \"{}\"\n",
        path.display(),
        images.display(),
        labels.display()
    );
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn image_job(name: &str, data: &str, mode: &str) -> String {
    // Both groups together are of no more nodes than there are.
    let least = if mode == GROUPS { 2 } else { 3 };
    format!(
        "name = \"{name}\"\ndata = \"{data}\"\nrounds = {IMAGE_ROUNDS}\n\
         min_clients = {least}\ntarget = 5\nheld_out_permille = 250\n\
         [model]\nshape = {{ image = {{ channels = 1, height = {SIDE}, width = {SIDE} }} }}\n\
         classes = 2\nhidden = [{{ convolution = 4 }}, {{ dense = 16 }}]\n\
         [training]\nepochs = 2\nbatch = 4\nlearning_rate = 0.1\n{mode}{PACE}"
    )
}

/// What would be an image: its file, its rows, and what a trainer makes of them.
fn of_images(node: u64) -> Forms {
    let mut all = Forms::default();
    let words = WELDS.iter().chain(&["welds-qzv43", "weld-qzv44"]).chain(&PLATES);
    words.for_each(|word| all.text(word));
    let [_, labels] = plates(node);
    all.bytes("labels", &labels);
    for at in 0..IMAGES {
        all.bytes(&format!("image {at}"), &picture(node, at));
        // Every fourth row: a picture that leaves leaves with all of them.
        of_pixels(&mut all, &format!("weld {at}"), &pixels("welds", node, at), at as usize, 4);
        let pixels = pixels("plates", node, at);
        all.bytes(&format!("plate {at}"), &pixels);
        of_pixels(&mut all, &format!("plate {at}"), &pixels, at as usize, SIDE);
    }
    all
}

/// Some rows of an image: one of so many, another one in each image.
fn of_pixels(all: &mut Forms, name: &str, pixels: &[u8], at: usize, apart: usize) {
    let rows = pixels.chunks(SIDE).enumerate().filter(|(row, _)| row % apart == at % apart);
    for (row, pixels) in rows {
        all.bytes(&format!("row {name}.{row}"), pixels);
        all.whole(&format!("row {name}.{row}"), pixels);
        let exact: Vec<f64> = pixels.iter().map(|one| f64::from(*one) / 255.0).collect();
        let single: Vec<f32> = pixels.iter().map(|one| f32::from(*one) / 255.0).collect();
        // A convolution looks at three pixels of a row at once.
        all.run(&format!("parts {name}.{row}"), &exact[..3], &single[..3]);
    }
}

/// All nodes come to the end of a job with the same model, which is told.
pub(super) fn same_end(nodes: &[Node], name: &str, rounds: u64) -> Result<Vec<Value>> {
    let is_over = |job: &Value| job["round"].as_u64() == Some(rounds);
    let ends: Vec<Value> =
        nodes.iter().map(|node| until(node, name, "the end", is_over)).collect::<Result<_>>()?;
    for end in &ends {
        for what in ["model", "record", "job"] {
            ensure!(end[what] == ends[0][what] && end[what] != "", "{what}: {end}, {}", ends[0]);
        }
    }
    Ok(ends)
}

/// How well a model does on what a node holds out, once it has measured the last round's.
fn measured(node: &Node, name: &str, rounds: u64) -> Result<Value> {
    let last = |job: &Value| job["measured"].as_array()?.last()?["round"].as_u64();
    until(node, name, "the last figures", |job| last(job) == Some(rounds))
}

#[test]
fn a_small_network_learns_images_that_stay_at_home() {
    scenario(|s| {
        let all = watched(s, "images", with_images)?;
        let file = s.path("job.toml");
        let words = file.display().to_string();
        let mut at_least = 0;
        let [(closed, secure), (open, plain)] = MODES;
        let jobs = [
            (closed, "welds", secure),
            (open, "welds", plain),
            ("grouped", "plates", GROUPS),
            ("shown", "plates", TRIMMED),
        ];
        for (name, data, mode) in jobs {
            s.step(&format!("convolutions over images of five nodes, '{data}': {name}"));
            fs::write(&file, image_job(name, data, mode))?;
            let told = all.nodes[0].cli(&["fed", "check", &words])?.success()?;
            ensure!(told.contains(&format!("{IMAGES} examples")), "{told}");
            all.nodes[0].cli(&["fed", "submit", &words])?.success()?;
            let ends = same_end(&all.nodes, name, IMAGE_ROUNDS)?;
            ensure!(ends[0]["secure"] == ![plain, TRIMMED].contains(&mode), "{}", ends[0]);
            at_least += ends[0]["sent_bytes"].as_u64().context("bytes")? / 2;
            for node in &all.nodes {
                let job = measured(node, name, IMAGE_ROUNDS)?;
                let last = job["measured"].as_array().and_then(|all| all.last());
                let last = last.context("figures")?;
                let (right, of) = (last["right"].as_u64(), last["examples"].as_u64());
                ensure!(of == Some(IMAGES / 4) && right > Some(IMAGES / 6), "{}", job["measured"]);
            }
        }
        s.step("a person asks about a picture, which is read as training read those of the nodes");
        let weld = s.path("seam.pgm");
        fs::write(&weld, picture(7, 0))?;
        let weld = weld.display().to_string();
        let asked = ["infer", closed, "--image", &weld, "--classes", "crack,whole"];
        let told = all.nodes[1].cli(&asked)?.success()?;
        let class = told.split_whitespace().nth(1);
        let is_class = class.is_some_and(|class| ["crack", "whole"].contains(&class));
        ensure!(told.starts_with(&weld) && is_class, "{told}");
        let asked = ["infer", closed, "--image", &weld, "--classes", "crack"];
        let refused = all.nodes[1].cli(&asked)?.failure()?;
        ensure!(refused.contains("the model has 2 classes"), "{refused}");
        s.step("images of another size are another source than the job's: refused by name");
        fs::write(&file, image_job("wide", "welds", "").replace("width = 12", "width = 16"))?;
        let refused = all.nodes[0].cli(&["fed", "submit", &words])?.failure()?;
        ensure!(refused.contains("weld-qzv44") && refused.contains("resize"), "{refused}");
        let said = ["welds", "plates", closed, open, "grouped", "shown"];
        all.holds(s, of_images(0), &said, at_least)
    });
}

/// Rows of the one request that gets labels.
const ROWS: u64 = 40;
/// Rounds enough for a node that gets its examples after the first ones.
const MANY_ROUNDS: u64 = 400;

/// A value that somebody asks about: eight decimals.
fn asked(at: u64, column: u64) -> f64 {
    let value = (at * 37_199_813 + column * 29_640_307 + 11_317_171) % 100_000_000;
    value as f64 / 1e8
}

/// The first node has what it is asked and nothing else.
fn with_requests(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    if node > 0 {
        return learning::with_data(spec, node);
    }
    fs::create_dir_all(&spec.home)?;
    let config = "[[data]]\nname = \"line3\"\nkind = \"requests\"\nmodel = \"wear\"\n";
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn wear(mode: &str) -> String {
    format!(
        "name = \"wear\"\ndata = \"line3\"\nrounds = {MANY_ROUNDS}\nmin_clients = 3\ntarget = 5\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 64 }}]\n\
         [training]\nepochs = 2\nbatch = 1\nlearning_rate = 0.1\n{mode}\
         {}",
        PACE.replace("patience_ms = 3000", "patience_ms = 1000")
    )
}

/// Asks the first node about rows, and says what it should have said: the request's name.
fn ask_and_tell(node: &Node) -> Result<String> {
    let data: Vec<[f64; 2]> = (0..ROWS).map(|at| [asked(at, 1), asked(at, 2)]).collect();
    let input = json!({"name": "input", "datatype": "FP32", "shape": [ROWS, 2], "data": data});
    let answer = node.client().post("/v2/models/wear/infer", &json!({ "inputs": [input] }))?;
    let id = answer.header("x-request-id").context("an id")?.to_owned();
    answer.ok()?;
    let labels: Vec<u8> = data.iter().map(|[heat, other]| u8::from(heat > other)).collect();
    let path = format!("/v1/requests/{id}/labels");
    let told = node.client().post(&path, &json!({ "labels": labels }))?.ok()?;
    ensure!(told["kept"] == 1, "{told}");
    Ok(id)
}

/// What would be of a request, in its own form and in a trainer's.
fn of_requests(id: &str) -> Result<Forms> {
    let mut all = Forms::default();
    all.text(id);
    let number = u128::from_str_radix(id.trim_start_matches("req_"), 16)?;
    all.bytes("id", &number.to_be_bytes());
    all.bytes("id the other way", &number.to_le_bytes());
    for at in 0..ROWS {
        let exact = [asked(at, 1), asked(at, 2)];
        #[allow(clippy::cast_possible_truncation, reason = "what the trainer computes with")]
        let single = exact.map(|value| value as f32);
        all.run(&format!("{at}"), &exact, &single);
        all.bytes(&format!("{at} row"), format!("{},{}", exact[0], exact[1]).as_bytes());
        for (column, (exact, single)) in exact.iter().zip(single).enumerate() {
            all.number(&format!("{at}.{column}"), *exact);
            all.number(&format!("{at}.{column} of f32"), f64::from(single));
            all.text(&format!("{exact:.8}"));
        }
    }
    Ok(all)
}

#[test]
fn what_a_node_was_asked_is_learned_from_and_stays_at_home() {
    scenario(|s| {
        let all = watched(s, "asked", with_requests)?;
        let (node, file) = (&all.nodes[0], s.path("job.toml"));
        let words = file.display().to_string();
        let (mut id, mut at_least) = (String::new(), 0);
        for (name, mode) in MODES {
            s.step(&format!("a job that others begin: {name}"));
            fs::write(&file, wear(mode))?;
            node.cli(&["fed", "submit", &words])?.success()?;
            if id.is_empty() {
                until(node, "wear", "a model", |job| job["served"].as_u64() > Some(0))?;
                id = ask_and_tell(node)?;
            }
            s.step("the node learns from what it was asked, and that counts");
            let told = until(node, "wear", "what counts", |job| job["counted"].as_u64() > Some(1))?;
            let examples = told["examples"].as_u64();
            ensure!((1..=ROWS).any(|count| examples == Some(count)), "{told}");
            let told = until(node, "wear", "bytes", |job| job["sent_bytes"].as_u64() > Some(0))?;
            at_least += told["sent_bytes"].as_u64().context("bytes")? / 2;
            node.cli(&["fed", "cancel", "wear"])?.success()?;
            for node in &all.nodes {
                Deadline::patient().until("the job gone", || {
                    let told = node.cli(&["fed", "status", "--json"])?.success()?;
                    let jobs: Vec<Value> = serde_json::from_str(&told)?;
                    Ok(jobs.is_empty().then_some(()))
                })?;
            }
        }
        all.holds(s, of_requests(&id)?, &["line3", "wear"], at_least)
    });
}

/// Words of a node's text; each is in nothing else.
const WORDS: u64 = 60;
const TEXT_ROUNDS: u64 = 3;

fn words(node: u64) -> Vec<String> {
    let mut dice = Dice::keyed(node, "notes");
    let mut letter = || char::from(b'a' + dice.below(26) as u8);
    (0..WORDS).map(|at| (0..8 + at % 3).map(|_| letter()).collect()).collect()
}

fn with_text(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    let model = tiny::write(&spec.home.join("given"))?.display().to_string();
    let path = spec.home.join("notes-qzv51.txt");
    fs::write(&path, words(node).join(" "))?;
    let config =
        format!("[[data]]\nname = \"notes\"\nkind = \"text\"\npath = \"{}\"\n", path.display());
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec.with(&["--model", &model]))
}

fn text_job(name: &str, mode: &str) -> String {
    format!(
        "name = \"{name}\"\ndata = \"notes\"\nrounds = {TEXT_ROUNDS}\nmin_clients = 3\n\
         target = 5\nheld_out_permille = 250\n\
         [model]\nbase = \"{TINY}\"\nwindow = 16\n\
         lora = {{ rank = 4, alpha = 8, targets = [\"q\", \"v\"] }}\n\
         [training]\nepochs = 1\nbatch = 4\nlearning_rate = 0.05\nclip = 0.5\n{mode}{PACE}"
    )
}

/// What would be of a text: its words, and its tokens, of which the tiny model has one for each
/// byte.
fn of_text(node: u64) -> Forms {
    let mut all = Forms::default();
    all.text("notes-qzv51");
    for word in words(node) {
        all.bytes(&word, word.as_bytes());
        all.whole(&word, word.as_bytes());
        all.text(&word.to_uppercase());
    }
    all
}

#[test]
fn texts_tune_a_language_model_and_stay_at_home() {
    scenario(|s| {
        let all = watched(s, "texts", with_text)?;
        let file = s.path("job.toml");
        let mut at_least = 0;
        for (name, mode) in MODES {
            s.step(&format!("rounds of low-rank matrices: {name}"));
            fs::write(&file, text_job(name, mode))?;
            all.nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
            let ends = same_end(&all.nodes, name, TEXT_ROUNDS)?;
            at_least += ends[0]["sent_bytes"].as_u64().context("bytes")? / 2;
            let counted = ends[0]["contributions"].as_array().context("contributions")?;
            ensure!(counted.len() == all.nodes.len(), "not everybody trained: {}", ends[0]);
        }
        all.holds(s, of_text(0), &["notes", "closed", "open", TINY], at_least)
    });
}
