//! Every command line that the documents show, run as it stands there.
//!
//! `tests/commands.toml` lists the documented commands with what proves them; the ones that name
//! this file are run here by a shell, inside a network namespace of their own, so that the
//! addresses in the documents are the true ones. Words in capitals stand for what a person fills
//! in. Every subcommand's `--help` is run as well, whether or not a document shows it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use selvedge_tests::places::{self, repository};
use selvedge_tests::process::{Finished, run};
use selvedge_tests::{Bridge, Deadline, Host, Node, Process, Scenario, scenario};
use serde::Deserialize;

/// How the list names this test.
const PROOF: &str = "tests/tests/e2e/commands.rs::documented_commands_run";

/// Every subcommand there is.
const SUBCOMMANDS: &[&str] = &[
    "up",
    "demo",
    "ask",
    "infer",
    "explain",
    "completions",
    "mesh init",
    "mesh invite",
    "mesh status",
    "mesh hardware",
    "mesh members",
    "mesh revoke",
    "mesh promote",
    "mesh leave",
    "mesh root export",
    "mesh root import",
    "mesh root rotate",
    "models pull",
    "models list",
    "models rm",
    "tenant create",
    "tenant list",
    "tenant show",
    "tenant suspend",
    "key create",
    "key list",
    "keys revoke",
    "provider add",
    "provider list",
    "provider remove",
    "provider key add",
    "provider key list",
    "provider key remove",
    "routes set",
    "routes list",
    "routes show",
    "routes savings",
    "routes history",
    "routes rollback",
    "routes remove",
    "budget set",
    "budget lower",
    "budget remove",
    "budget show",
    "budget renew",
    "fed check",
    "fed verify",
    "config check",
    "config defaults",
    "config schema",
    "sim run",
    "sim swarm",
    "sim replay",
    "sim shrink",
    "sim diff",
    "sim list",
];

#[derive(Deserialize)]
struct Commands {
    command: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    line: String,
    proof: String,
}

#[test]
fn documented_commands_run() {
    scenario(|s| {
        let text = fs::read_to_string(repository().join("tests/commands.toml"))?;
        let listed: Commands = toml::from_str(&text).context("tests/commands.toml")?;
        let lines = listed.command.iter().filter(|listed| listed.proof == PROOF);
        let lines: Vec<&str> = lines.map(|listed| listed.line.as_str()).collect();
        ensure!(!lines.is_empty(), "no documented command names {PROOF}");
        // The model is there already, as after the first pull: no test asks the network for it.
        let home = s.path("first");
        let model = places::model()?.display().to_string();
        let pull = ["models", "pull", &model, "--name", places::MODEL, "--yes"];
        selvedge_tests::node::cli(&home, None, &pull)?.success()?;
        let mut bridge = Bridge::new("docs")?;
        let street = Street { first: bridge.host()?, second: bridge.host()? };
        let mut node = street.first.node(s, "first");
        node.api = "127.0.0.1:8420".to_owned();
        node.listen = "0.0.0.0:8421".to_owned();
        let node = node.up(s, &[])?;
        node.admin()?.until_offered(1, Deadline::patient())?;
        for line in lines {
            s.step(line);
            street.type_in(s, &node, line)?;
        }
        Ok(())
    });
}

#[test]
fn every_command_explains_itself() {
    scenario(|s| {
        let binary = places::selvedge()?;
        let ask = |words: &[&str]| -> Result<Finished> {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            run(&binary, &words, None, &[], Deadline::patient())
        };
        let overview = ask(&["--help"])?.success()?;
        for name in SUBCOMMANDS {
            s.step(&format!("selvedge {name} --help"));
            let mut words: Vec<&str> = name.split(' ').collect();
            ensure!(overview.contains(words[0]), "{overview}");
            words.push("--help");
            let help = ask(&words)?.success()?;
            ensure!(help.contains("Usage:") && help.contains("--home"), "{help}");
        }
        s.step("a wrong word is refused with a hint");
        let refused = ask(&["mesh", "staus"])?.failure()?;
        ensure!(refused.contains("status"), "{refused}");
        for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
            s.step(&format!("completions for {shell}"));
            let script = ask(&["completions", shell])?.success()?;
            ensure!(script.contains("selvedge"), "{script}");
        }
        s.step("the version");
        ensure!(ask(&["--version"])?.success()?.starts_with("selvedge "));
        s.step("commands that need a running node say so");
        let home = s.path("empty").display().to_string();
        for words in [["mesh", "status"], ["mesh", "members"], ["keys", "list"]] {
            let refused = ask(&[words[0], words[1], "--home", &home])?.failure()?;
            ensure!(refused.contains("selvedge up"), "{refused}");
        }
        Ok(())
    });
}

#[test]
fn the_command_line_works_on_a_running_node() {
    scenario(|s| {
        let node = s.node("solo").with_model()?.up(s, &[])?;
        node.admin()?.until_offered(1, Deadline::patient())?;
        let config = s.path("good.toml");
        let said = |words: &[&str]| -> Result<String> {
            s.step(&format!("selvedge {}", words.join(" ")));
            node.cli(words)?.success()
        };
        let defaults = said(&["config", "defaults"])?;
        fs::write(&config, &defaults)?;
        said(&["config", "check", &config.display().to_string()])?;
        let schema: serde_json::Value = serde_json::from_str(&said(&["config", "schema"])?)?;
        ensure!(schema["properties"].is_object(), "{schema}");
        fs::write(s.path("bad.toml"), "no_such_setting = 1\n")?;
        s.step("a wrong setting is refused by its name");
        let refused = node.cli(&["config", "check", &s.path("bad.toml").display().to_string()])?;
        ensure!(refused.failure()?.contains("no_such_setting"));

        let status = said(&["mesh", "status"])?;
        ensure!(status.contains("solo") && status.contains(places::MODEL), "{status}");
        let status: serde_json::Value =
            serde_json::from_str(&said(&["mesh", "status", "--json"])?)?;
        ensure!(status["nodes"].is_array(), "{status}");
        ensure!(said(&["mesh", "members"])?.contains("solo"));
        ensure!(said(&["models", "list"])?.contains(places::MODEL));
        serde_json::from_str::<serde_json::Value>(&said(&["models", "list", "--json"])?)?;

        let answer = said(&["ask", "--max-tokens", "6", "Say hello."])?;
        ensure!(!answer.trim().is_empty(), "no answer");
        let asked = said(&["ask", "--max-tokens", "6", "--json", "Say hello."])?;
        let asked: serde_json::Value = serde_json::from_str(&asked)?;
        let id = find_id(&asked.to_string())?;
        ensure!(said(&["explain", &id])?.contains("solo"));
        s.step("an unknown request");
        node.cli(&["explain", &format!("req_{}", "0".repeat(32))])?.failure()?;
        s.step("an unknown model");
        let refused = node.cli(&["ask", "--model", "gpt-17", "Hi"])?.failure()?;
        ensure!(refused.contains("gpt-17"), "{refused}");
        Ok(())
    });
}

/// Two machines: what the documents call the first and the next.
struct Street {
    first: Host,
    second: Host,
}

impl Street {
    /// Runs a documented line as a person would, on the first machine or, if it starts a node, on
    /// the next one.
    fn type_in(&self, s: &Scenario, node: &Node, line: &str) -> Result<()> {
        let filled = fill_in(s, node, line)?;
        if line.starts_with("selvedge up") {
            return self.starts(s, &filled);
        }
        let home = node.spec.home.display().to_string();
        let ran = self.shell(&self.first, &filled, &home)?;
        ran.success().with_context(|| filled).map(|_| ())
    }

    fn shell(&self, host: &Host, line: &str, home: &str) -> Result<Finished> {
        let words = ["-c".to_owned(), line.to_owned()];
        let shell = Path::new("/bin/sh");
        run(shell, &words, Some(host.namespace()), &environment(home)?, Deadline::secs(120))
    }

    /// A line that starts a node: it has to become ready.
    fn starts(&self, s: &Scenario, line: &str) -> Result<()> {
        let home = s.path("next").display().to_string();
        let words = ["-c".to_owned(), format!("exec {line}")];
        let shell = Path::new("/bin/sh");
        let namespace = Some(self.second.namespace());
        let process = Process::start(line, shell, &words, namespace, &environment(&home)?)?;
        s.show_on_failure(process.output());
        let mut cursor = 0;
        let output = process.output();
        output.wait(&mut cursor, Deadline::patient(), "its ready line", |line| {
            line.text.starts_with("ready ").then_some(())
        })?;
        drop(process);
        // The next line that starts a node does so on a fresh machine.
        fs::remove_dir_all(home)?;
        Ok(())
    }
}

fn environment(home: &str) -> Result<[(String, String); 3]> {
    let binary = places::selvedge()?;
    let folder = binary.parent().context("the binary lies in a folder")?.display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH")?);
    // What a person would have: nothing asks a provider with it.
    let key = ("OPENAI_API_KEY".to_owned(), "sk-nobodys-0123456789abcdef".to_owned());
    Ok([("PATH".to_owned(), path), ("SELVEDGE_HOME".to_owned(), home.to_owned()), key])
}

/// Replaces the words that stand for what a person fills in.
fn fill_in(s: &Scenario, node: &Node, line: &str) -> Result<String> {
    let mut filled = line.to_owned();
    for word in ["CODE", "REQUEST_ID", "FILE"] {
        if !line.split([' ', '"', '\'']).any(|part| part == word) {
            continue;
        }
        let value = match word {
            "CODE" => node.invite()?,
            "REQUEST_ID" => {
                let answer = node.cli(&["ask", "--json", "--max-tokens", "2", "Hi"])?.success()?;
                find_id(&answer)?
            }
            "FILE" if line.contains("routes set") => {
                let file = s.path("routes.toml");
                let target = format!("[[route.target]]\nmesh = \"{}\"\n", places::MODEL);
                fs::write(
                    &file,
                    format!("[[route]]\nname = \"chat\"\npolicy = \"fixed\"\n{target}"),
                )?;
                file.display().to_string()
            }
            "FILE" => s.path("a-file").display().to_string(),
            _ => bail!("nothing to fill in for {word}"),
        };
        filled = filled.replace(word, &value);
    }
    Ok(filled)
}

fn find_id(text: &str) -> Result<String> {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let found = words.find(|word| word.starts_with("req_") && word.len() == 36);
    found.map(str::to_owned).with_context(|| format!("no request id in {text}"))
}
