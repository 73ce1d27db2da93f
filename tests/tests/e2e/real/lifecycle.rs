//! Starting, failing to start, ending, and homes that are damaged.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use selvedge_tests::chat::{STORY, completion, with};
use selvedge_tests::node::link_model;
use selvedge_tests::places::{self, MODEL};
use selvedge_tests::{Asked, Deadline, Scenario, admin, scenario};
use serde_json::{Value, json};

#[test]
fn a_node_starts_and_ends_as_promised() {
    scenario(|s| {
        s.step("a fresh home becomes a mesh of one");
        let node = s.node("solo").up(s, &[])?;
        s.say(&format!("ready after {:?}", node.start));
        let view = node.admin()?.status()?;
        ensure!(admin::alive(&view) == 1 && view["mesh"].is_string(), "{view}");
        s.step("keys are for their owner only");
        for file in ["node.key", "mesh/root.key", "run/admin.token"] {
            let mode = fs::metadata(node.spec.home.join(file))?.permissions().mode();
            ensure!(mode & 0o077 == 0, "{file} has mode {mode:o}");
        }
        s.step("without a model there is a clear refusal");
        let reply = node.client().post("/v1/completions", &completion(STORY, 2))?;
        let status = reply.status;
        ensure!(status == 404 || status == 503, "status {status}");
        let error = reply.refused(status)?;
        ensure!(error["code"] == "model_not_found", "{error}");
        s.step("a second node in the same home is refused");
        let refused = node.spec.start(s, &[])?.refused()?;
        ensure!(refused.contains("home") || refused.contains("running"), "{refused}");
        s.step("the first one did not notice");
        ensure!(node.client().get("/health")?.status == 200);
        s.step("it ends when asked, within two seconds");
        node.terminate()?;
        s.step("a wide-open key is refused and the message says what to do");
        let key = node.spec.home.join("node.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
        let refused = node.spec.start(s, &[])?.refused()?;
        ensure!(refused.contains("chmod"), "{refused}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        s.step("it is the same node again");
        let again = node.spec.up(s, &[])?;
        ensure!(again.id == node.id, "{} was {}", again.id, node.id);
        taken_ports(s)
    });
}

#[test]
fn a_node_that_still_reads_its_models_ends_when_asked() {
    scenario(|s| {
        s.step("a node starts with a model file that never ends");
        let pipe = s.path("endless.gguf");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0)?;
        let spec = s.node("reader").with(&["--model", &pipe.display().to_string()]);
        let starting = spec.start(s, &[])?;
        s.step("it reads: a pipe opens for writing when the other side has it open");
        let _kept_open = OpenOptions::new().write(true).open(&pipe)?;
        s.step("it ends when asked, within two seconds");
        starting.process().signal(Signal::INT)?;
        let status = starting.process().wait(Deadline::secs(2))?;
        ensure!(status.success(), "{status}");
        Ok(())
    });
}

fn taken_ports(s: &Scenario) -> Result<()> {
    s.step("a taken API port is refused by the name of its flag");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut spec = s.node("late").with_api(&taken.local_addr()?.to_string());
    let refused = spec.start(s, &[])?.refused()?;
    ensure!(refused.contains("--api"), "{refused}");
    s.step("a taken QUIC port too");
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    spec.api = "127.0.0.1:0".to_owned();
    spec.listen = taken.local_addr()?.to_string();
    let refused = spec.start(s, &[])?.refused()?;
    ensure!(refused.contains("--listen"), "{refused}");
    Ok(())
}

#[test]
fn damaged_models_leave_the_node_serving() {
    scenario(|s| {
        let home = s.path("mixed");
        link_model(&home, MODEL)?;
        let damages = [("cut", Damage::Cut), ("bent", Damage::Header), ("rot", Damage::Text)];
        for (name, damage) in damages {
            damaged(&home.join("models").join(format!("{name}.gguf")), damage)?;
        }
        s.step("the node starts with one good and three damaged models");
        let node = s.node("mixed").up(s, &[])?;
        let settled = |view: &Value| {
            let known = ["loading", "cold"];
            let models = view["nodes"][0]["models"].as_array().map_or(&[][..], Vec::as_slice);
            admin::offering(view) == 1
                && models.iter().all(|m| !known.contains(&m["state"].as_str().unwrap_or("")))
        };
        node.admin()?.until("the good model ready", Deadline::patient(), settled)?;
        let client = node.client();
        s.step("the good one answers");
        Asked::stream(&client, completion(STORY, 3))?.to_the_end()?.whole()?;
        for name in ["cut", "bent", "rot"] {
            s.step(&format!("the damaged model `{name}` is refused"));
            let request = with(completion(STORY, 3), json!({"model": name}));
            let reply = client.post("/v1/completions", &request)?;
            let status = reply.status;
            ensure!((400..=503).contains(&status), "status {status}");
            reply.refused(status)?;
        }
        s.step("each is named with what is wrong, and the good one still answers");
        for name in ["cut", "bent", "rot"] {
            let said = node.process.output().text(selvedge_tests::output::Source::Err);
            let named = said.lines().find(|line| line.contains(&format!("'{name}'")));
            ensure!(named.is_some_and(|line| line.contains("damaged")), "{said}");
        }
        let list = node.cli(&["models", "list"])?.success()?;
        ensure!(list.contains(MODEL), "{list}");
        let listed = node.cli(&["models", "list", "--json"])?.success()?;
        let listed: Value = serde_json::from_str(&listed)?;
        let running = listed["running"].as_array().context("no models")?;
        for name in ["cut", "bent", "rot"] {
            let why = |line: &str| line.starts_with(name) && line.contains("damaged");
            ensure!(list.lines().any(why), "{list}");
            let model = running.iter().find(|model| model["name"] == name).context("not listed")?;
            let why = model["failure"].as_str().unwrap_or_default();
            ensure!(model["state"] == "failed" && why.contains("damaged"), "{model}");
            ensure!(why.chars().count() < 300, "{why}");
        }
        let good = running.iter().find(|model| model["name"] == MODEL).context("not listed")?;
        ensure!(good["state"] == "ready" && good["failure"].is_null(), "{good}");
        Asked::stream(&client, completion(STORY, 3))?.to_the_end()?.whole()?;
        Ok(())
    });
}

#[test]
fn a_model_that_rots_on_disk_is_not_served() {
    scenario(|s| {
        s.step("a model is pulled, its digest noted");
        let home = s.path("rots");
        let model = places::model()?.display().to_string();
        let pull = ["models", "pull", &model, "--name", MODEL, "--yes"];
        selvedge_tests::node::cli(&home, None, &pull)?.success()?;
        s.step("one bit of its weights changes");
        let path = home.join("models").join(format!("{MODEL}.gguf"));
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let middle = SeekFrom::Start(50_000_000);
        let mut byte = [0];
        file.seek(middle)?;
        file.read_exact(&mut byte)?;
        file.seek(middle)?;
        file.write_all(&[byte[0] ^ 1])?;
        drop(file);
        s.step("the node starts, says what is wrong, and does not serve it");
        let node = s.node("rots").up(s, &[])?;
        let reply = node.client().post("/v1/completions", &completion(STORY, 2))?;
        let status = reply.status;
        ensure!(status == 404 || status == 503, "status {status}");
        reply.refused(status)?;
        let said = node.process.output().text(selvedge_tests::output::Source::Err);
        ensure!(said.contains(MODEL) && said.contains("not served"), "{said}");
        let list = node.cli(&["models", "list"])?.success()?;
        let why = |line: &str| line.starts_with(MODEL) && line.contains("its bytes are not those");
        ensure!(list.lines().any(why), "{list}");
        Ok(())
    });
}

#[test]
fn a_model_that_does_not_fit_is_listed_with_the_reason() {
    scenario(|s| {
        s.step("a node whose engine may use 16 MiB is given a model of 94");
        let mut spec = s.node("small").with_model()?;
        let budget = ("SELVEDGE_ENGINE_MEMORY_BUDGET_BYTES", "16777216");
        spec.environment.push((budget.0.to_owned(), budget.1.to_owned()));
        let node = spec.up(s, &[])?;
        let failed = |view: &Value| view["nodes"][0]["models"][0]["state"] == "failed";
        let view = node.admin()?.until("a failed model", Deadline::patient(), failed)?;
        let why = view["nodes"][0]["models"][0]["failure"].as_str().unwrap_or_default();
        ensure!(why.contains("bytes of memory"), "{view}");
        s.step("the command says why, and so does a request");
        let list = node.cli(&["models", "list"])?.success()?;
        ensure!(list.contains(why) && list.contains("failed"), "{list}");
        let reply = node.client().post("/v1/completions", &completion(STORY, 3))?;
        let status = reply.status;
        reply.refused(status).map(|_| ())
    });
}

#[derive(Clone, Copy)]
enum Damage {
    /// Cut off in the middle of the weights.
    Cut,
    /// A header that announces more than there can be.
    Header,
    /// No model file at all.
    Text,
}

fn damaged(path: &std::path::Path, damage: Damage) -> Result<()> {
    match damage {
        Damage::Text => fs::write(path, "this is no model\n".repeat(100))?,
        Damage::Cut | Damage::Header => {
            fs::copy(places::model()?, path)?;
            let mut file = OpenOptions::new().write(true).open(path)?;
            if matches!(damage, Damage::Cut) {
                file.set_len(20_000_000)?;
            } else {
                // The count of tensors, behind magic and version.
                file.seek(SeekFrom::Start(8))?;
                file.write_all(&u64::MAX.to_le_bytes())?;
            }
        }
    }
    Ok(())
}
