//! Join codes: each works once, for a while, for whoever knows the secret; strangers get nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_proto::join::{JoinCode, MAX_ATTEMPTS};
use selvedge_tests::admin::{self, nodes};
use selvedge_tests::chat::{STORY, completion};
use selvedge_tests::{Asked, Deadline, Node, scenario};
use serde_json::Value;

#[test]
fn a_join_code_works_once_in_time_and_for_five_attempts() {
    scenario(|s| {
        let root = s.node("root").up(s, &[])?;
        let before = members(&root)?;

        s.step("a code with a mistyped letter is refused before anything is sent");
        let code = root.invite()?;
        let mistyped = mistype(&code)?;
        let refused = s.node("typo").start(s, &["--join", &mistyped])?.refused()?;
        ensure!(refused.contains("code"), "{refused}");

        s.step("a code works in capitals and small letters, once");
        let first = s.node("first").up(s, &["--join", &code.to_ascii_uppercase()])?;
        first.admin()?.until_alive(2, Deadline::patient())?;
        s.step("the same line again starts the node that has joined");
        first.terminate()?;
        let first = first.spec.up(s, &["--join", &code])?;
        first.admin()?.until_alive(2, Deadline::patient())?;
        s.step("a used code is refused");
        let refused = s.node("late").start(s, &["--join", &code])?.refused()?;
        ensure!(refused.contains("used"), "{refused}");

        s.step("a wrong secret is refused as often as attempts are left");
        let code = root.invite()?;
        let guess = guessed(&code)?;
        for attempt in 0..MAX_ATTEMPTS {
            let spec = s.node(&format!("guess{attempt}"));
            let refused = spec.start(s, &["--join", &guess])?.refused()?;
            ensure!(refused.contains("code"), "attempt {attempt}: {refused}");
        }
        s.step("after five attempts the right secret is refused too");
        let refused = s.node("sixth").start(s, &["--join", &code])?.refused()?;
        ensure!(refused.contains("attempts") || refused.contains("void"), "{refused}");

        s.step("an expired code is refused");
        let code = root.admin()?.invite(1)?;
        // The code's time is what has to pass; meanwhile the issuer must stay up.
        let ended = root.process.wait(Deadline::after(Duration::from_millis(1_200)));
        ensure!(ended.is_err(), "the issuer ended: {ended:?}");
        let refused = s.node("slow").start(s, &["--join", &code])?.refused()?;
        ensure!(refused.contains("expired"), "{refused}");

        s.step("a home that belongs to a mesh refuses to join another");
        let other = s.node("other").up(s, &[])?;
        let code = other.invite()?;
        first.terminate()?;
        let refused = first.spec.start(s, &["--join", &code])?.refused()?;
        ensure!(refused.contains("mesh leave"), "{refused}");

        s.step("only the one that was let in is a member");
        let after = members(&root)?;
        ensure!(after.len() == before.len() + 1, "{before:?}, then {after:?}");
        ensure!(after.iter().any(|name| name == "first"), "{after:?}");
        Ok(())
    });
}

#[test]
fn a_code_survives_its_issuers_restart() {
    scenario(|s| {
        let mut spec = s.node("root");
        let root = spec.up(s, &[])?;
        s.step("codes are issued, one of them is used");
        let (used, open) = (root.invite()?, root.invite()?);
        let friend = s.node("friend").up(s, &["--join", &used])?;
        s.step("the issuer loses power and comes back at its address");
        root.kill()?;
        spec.listen = root.quic.to_string();
        let root = spec.up(s, &[])?;
        s.step("the open code works, the used one does not");
        let refused = s.node("again").start(s, &["--join", &used])?.refused()?;
        ensure!(refused.contains("used"), "{refused}");
        let late = s.node("late").up(s, &["--join", &open])?;
        for node in [&root, &friend, &late] {
            node.admin()?.until_alive(3, Deadline::patient())?;
        }
        Ok(())
    });
}

#[test]
fn a_stranger_gets_nothing() {
    scenario(|s| {
        let nodes = s.mesh(&[s.node("root").with_model()?, s.node("friend")])?;
        let (root, friend) = (&nodes[0], &nodes[1]);
        s.step("a stranger starts next to them and knows their address");
        let peer = root.quic.to_string();
        let stranger = s.node("stranger").with(&["--peer", &peer]).up(s, &[])?;
        s.step("a newcomer that is invited is in, so time enough has passed for the stranger");
        let code = root.invite()?;
        let newcomer = s.node("newcomer").up(s, &["--join", &code])?;
        for node in [root, friend, &newcomer] {
            node.admin()?.until_alive(3, Deadline::patient())?;
        }
        s.step("nobody counts the stranger and the stranger counts nobody");
        for node in [root, friend, &newcomer] {
            let view = node.admin()?.status()?;
            ensure!(admin::alive(&view) == 3 && !knows(&view, &stranger), "{view}");
        }
        let view = stranger.admin()?.status()?;
        ensure!(admin::alive(&view) == 1 && admin::offering(&view) == 0, "{view}");
        s.step("the stranger is not answered");
        let reply = stranger.client().post("/v1/completions", &completion(STORY, 2))?;
        let status = reply.status;
        ensure!(status == 404 || status == 503, "status {status}");
        s.step("the members are");
        for node in [friend, &newcomer] {
            Asked::stream(&node.client(), completion(STORY, 3))?.to_the_end()?.whole()?;
        }
        Ok(())
    });
}

fn knows(view: &Value, node: &Node) -> bool {
    nodes(view).iter().any(|known| known["node"] == node.id.as_str() && known["state"] == "alive")
}

fn members(node: &Node) -> Result<Vec<String>> {
    let list = node.admin()?.client().get("/admin/members")?.ok()?;
    let members = list["data"].as_array().or(list.as_array()).context("no list of members")?;
    Ok(members.iter().filter_map(|m| m["name"].as_str()).map(str::to_owned).collect())
}

/// The same code with one letter exchanged.
fn mistype(code: &str) -> Result<String> {
    let last = code.chars().last().context("an empty code")?;
    let other = if last.eq_ignore_ascii_case(&'a') { 'b' } else { 'a' };
    Ok(format!("{}{other}", &code[..code.len() - 1]))
}

/// A well-formed code of the same invitation with another secret.
fn guessed(code: &str) -> Result<String> {
    let mut code: JoinCode = code.parse()?;
    code.secret[0] ^= 1;
    Ok(code.to_string())
}
