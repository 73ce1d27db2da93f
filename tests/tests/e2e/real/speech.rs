//! Speech to text by a node's own model and by a peer's, through the official client.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{fund, until_books};
use selvedge_tests::{Deadline, Scenario, places, python, scenario};

/// The name that the model's directory gives it.
const NAME: &str = "whisper-tiny.en";

/// A node's specification with the model in its home.
fn giver(s: &Scenario, name: &str) -> Result<selvedge_tests::NodeSpec> {
    let spec = s.node(name);
    let models = spec.home.join("models");
    std::fs::create_dir_all(&models)?;
    std::os::unix::fs::symlink(places::listener()?, models.join(NAME))?;
    Ok(spec)
}

#[test]
fn a_node_without_the_model_has_a_peer_hear() {
    scenario(|s| {
        let clip = places::clip()?.display().to_string();
        let mesh = s.mesh(&[s.node("asker"), giver(s, "giver")?])?;
        mesh[0].admin()?.until("the model at its peer", Deadline::patient(), |view| {
            view.to_string().contains(NAME)
        })?;
        s.step("the official client at the node without the model");
        let more = [("SELVEDGE_MODEL", NAME), ("SELVEDGE_CLIP", clip.as_str())];
        let said = python::run_with("openai_speech.py", &mesh[0].client(), &more)?;
        s.say(said.trim_end());
        ensure!(said.trim_end().ends_with("all good"), "{said}");
        s.step("a budget counts the seconds, wherever they are heard");
        let key = fund(&mesh[0], "acme", "1500 tokens/month")?;
        let args = ["transcribe", clip.as_str(), "--key", key.as_str()];
        let ran = mesh[0].cli(&args)?;
        ensure!(ran.err.contains("giver"), "{}", ran.err);
        let told = ran.success()?;
        ensure!(told.trim_end().ends_with("Fail again. Fail better."), "{told}");
        // Ten seconds are 500; the text and its times are the rest.
        until_books(&mesh[0], "acme", "what it took", Deadline::patient(), |books| {
            (510..600).contains(&books.spent) && books.reserved == 0
        })?;
        let refused = mesh[0].cli(&args)?.failure()?;
        ensure!(refused.contains("budget"), "{refused}");
        Ok(())
    });
}

#[test]
fn sound_that_must_not_leave_its_node_does_not() {
    scenario(|s| {
        let mesh = s.mesh(&[giver(s, "giver")?, s.node("asker")])?;
        mesh[1].admin()?.until("the model at its peer", Deadline::patient(), |view| {
            view.to_string().contains(NAME)
        })?;
        let clip = std::fs::read(places::clip()?)?;
        let form = "content-disposition: form-data; name=";
        let mut body = format!("--x\r\n{form}model\r\n\r\n{NAME}\r\n").into_bytes();
        body.extend(format!("--x\r\n{form}file; filename=a.wav\r\n\r\n").as_bytes());
        body.extend(clip);
        body.extend(b"\r\n--x--\r\n");
        let client = mesh[1].client().with_header("x-selvedge-label", "node");
        let client = client.with_header("content-type", "multipart/form-data; boundary=x");
        let path = "/v1/audio/transcriptions";
        let refused = client.send("POST", path, &body, Deadline::patient())?.refused(403)?;
        let message = refused["message"].as_str().context("a message")?;
        ensure!(message.contains("no node within that boundary"), "{refused}");
        Ok(())
    });
}
