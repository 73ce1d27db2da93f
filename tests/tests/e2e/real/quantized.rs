//! A model in a smaller form: judged by llama.cpp's own reader, and answered with.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use selvedge_tests::node::cli;
use selvedge_tests::{Deadline, places, process, scenario};
use serde_json::{Value, json};

/// Blocks that a file may have where a test says so, of half a kilobyte or a whole one by the
/// shell: a fifth of the model at most.
const ROOM: u32 = 20_000;
/// Tokens to measure on: two seconds of a debug build.
const TOKENS: &str = "96";

#[test]
fn a_quantized_model_is_what_llama_cpp_reads_and_a_node_answers_with() {
    scenario(|s| {
        let spec = s.node("small");
        let (before, after) = (places::model()?, spec.home.join("small.gguf"));
        let (from, to) = (before.display().to_string(), after.display().to_string());
        fs::create_dir_all(&spec.home)?;
        let run = |more: &[&str]| {
            let asked = ["models", "quantize", &from, &to, "--type", "q4_0"];
            cli(&spec.home, None, &[&asked[..], more].concat())
        };
        s.step("what was quantized before is not again unless asked");
        let refused = run(&[])?.failure()?;
        ensure!(
            refused.contains("--again") && refused.contains("already, and what that lost"),
            "{refused}"
        );
        ensure!(!after.exists(), "nothing is left behind");
        s.step("quantize and measure");
        let text = places::repository().join("README.md").display().to_string();
        let measured = ["--measure", &text, "--tokens", TOKENS];
        let told = run(&[&["--again", "--json"], &measured[..]].concat())?.success()?;
        let value: Value = serde_json::from_str(&told).context("JSON")?;
        let size = |name: &str| value[name].as_u64().unwrap_or(0);
        ensure!(size("bytes_after") > 0 && size("bytes_after") < size("bytes_before"), "{told}");
        ensure!(size("bytes_after") == fs::metadata(&after)?.len());
        let perplexity = |of: &str| value[of]["perplexity"].as_f64().unwrap_or(f64::NAN);
        let change = perplexity("after") / perplexity("before");
        ensure!((0.8..1.3).contains(&change), "perplexity changed to {change}");
        ensure!(value["after"]["tokens"] == 95, "{}", value["after"]);
        s.step("llama.cpp's reader finds in it what was told");
        let report = spec.home.join("told.json");
        fs::write(&report, &told)?;
        let script = places::repository().join("tests/python/quantized.py");
        let arguments =
            [script.display().to_string(), from.clone(), to.clone(), report.display().to_string()];
        let said = process::run(&places::python()?, &arguments, None, &[], Deadline::secs(60))?;
        let said = said.success()?;
        ensure!(said.contains("all good"), "{said}");
        s.step("a file that exists stays, and one cannot be written over itself");
        ensure!(run(&["--again"])?.failure()?.contains("--force"));
        let over = ["models", "quantize", &from, &from, "--type", "q4_0", "--again", "--force"];
        let over = cli(&spec.home, None, &over)?.failure()?;
        ensure!(over.contains("over itself"), "{over}");
        s.step("a node answers with it");
        let node = spec.up(s, &["--model", &to])?;
        let body = json!({"model": "small", "max_tokens": 4,
            "messages": [{"role": "user", "content": "Say hello."}]});
        let answer = node.client().post("/v1/chat/completions", &body)?.ok()?;
        ensure!(answer["usage"]["completion_tokens"].as_u64() > Some(0), "{answer}");
        Ok(())
    });
}

/// A command that may write so much to a file and no more: where `told` it hears so as of a full
/// disk, otherwise the system ends it in the middle of a write.
fn cramped(home: &Path, told: bool, words: &[&str]) -> Result<process::Finished> {
    let heard = if told { "trap '' XFSZ; " } else { "" };
    let script = format!("{heard}ulimit -c 0; ulimit -f {ROOM}; exec \"$0\" \"$@\"");
    let mut arguments = vec!["-c".to_owned(), script, places::selvedge()?.display().to_string()];
    arguments.extend(words.iter().map(|&word| word.to_owned()));
    arguments.extend(["--home".to_owned(), home.display().to_string()]);
    process::run(Path::new("/bin/sh"), &arguments, None, &[], Deadline::patient())
}

#[test]
fn a_model_that_is_cut_while_it_is_written_leaves_what_was_there() {
    scenario(|s| {
        let home = s.node("cut").home;
        let (before, after) = (places::model()?, home.join("small.gguf"));
        let part = home.join("small.gguf.part");
        let (from, to) = (before.display().to_string(), after.display().to_string());
        fs::create_dir_all(&home)?;
        let words = |force: bool| {
            let words = ["models", "quantize", &from, &to, "--type", "q4_0", "--again", "--force"];
            words[..words.len() - usize::from(!force)].to_vec()
        };
        s.step("a full disk is told, and nothing is left");
        let said = cramped(&home, true, &words(false))?.failure()?;
        ensure!(said.contains("cannot write") && said.contains(&to), "{said}");
        ensure!(!after.exists() && !part.exists(), "something is left");
        s.step("the same where a file was before: it stays");
        fs::write(&after, "something else")?;
        cramped(&home, true, &words(true))?.failure()?;
        ensure!(fs::read(&after)? == b"something else" && !part.exists());
        s.step("ended in the middle of a write");
        let ended = cramped(&home, false, &words(true))?;
        ensure!(ended.status.code().is_none(), "{:?} where a signal was meant", ended.status);
        ensure!(fs::read(&after)? == b"something else", "half a model has the name of a whole one");
        let half = fs::metadata(&part)?.len();
        ensure!(half > 0 && half <= u64::from(ROOM) * 1_024, "{half} bytes");
        s.step("what is left is named to who comes next");
        let said = cli(&home, None, &words(true))?.failure()?;
        ensure!(said.contains("small.gguf.part") && said.contains("remove it"), "{said}");
        ensure!(fs::metadata(&part)?.len() == half);
        Ok(())
    });
}
