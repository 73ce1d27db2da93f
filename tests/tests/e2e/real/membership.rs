//! Belonging to a mesh: it survives power cuts, and it can be taken away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_base::Dice;
use selvedge_tests::admin::{self, nodes};
use selvedge_tests::chat::{STORY, completion};
use selvedge_tests::{Asked, Deadline, Node, Scenario, Stopwatch, scenario};
use serde_json::Value;

/// Fixed, so that a failure can be repeated.
const SEED: u64 = 0xca7;
/// Power cuts: enough to hit starting, meeting and writing.
const CUTS: usize = 8;

#[test]
fn identity_and_membership_survive_power_cuts() {
    scenario(|s| {
        let mut mesh = s.mesh(&[s.node("stays"), s.node("falls")])?;
        let mut falls = mesh.pop().context("two nodes")?;
        let stays = mesh.pop().context("two nodes")?;
        let (id, name) = (falls.id.clone(), falls.name().to_owned());
        let mut dice = Dice::keyed(SEED, "power cuts");
        let mut keys: Vec<String> = Vec::new();
        for cut in 0..CUTS {
            s.step(&format!("power cut {cut} while it starts"));
            falls.kill()?;
            let starting = falls.spec.start(s, &[])?;
            // The moment is the input of this test: it may end by itself only by crashing.
            let moment = Duration::from_millis(dice.below(400));
            let ended = starting.process().wait(Deadline::after(moment));
            ensure!(ended.is_err(), "it ended by itself: {ended:?}");
            drop(starting);
            s.step(&format!("power cut {cut} right after a write was acknowledged"));
            falls = falls.spec.up(s, &[])?;
            ensure!(falls.id == id, "it is now {}", falls.id);
            let (key, _) = falls.admin()?.key(&format!("key-{cut}"))?;
            keys.push(key);
        }
        s.step("it is back in the mesh with all it had acknowledged");
        falls.kill()?;
        falls = falls.spec.up(s, &[])?;
        let back = |view: &Value| admin::state(view, &name) == "alive";
        stays.admin()?.until("the fallen node alive", Deadline::secs(20), back)?;
        ensure!(falls.id == id, "it is now {}", falls.id);
        let list = falls.cli(&["keys", "list"])?.success()?;
        for key in &keys {
            ensure!(list.contains(key.as_str()), "no {key} in {list}");
        }
        s.step("both list the same two members");
        for node in [&stays, &falls] {
            let members = node.cli(&["mesh", "members"])?.success()?;
            ensure!(members.contains("stays") && members.contains("falls"), "{members}");
        }
        Ok(())
    });
}

#[test]
fn a_revoked_node_is_out_within_a_second() {
    scenario(|s| {
        let specs = [s.node("root").with_model()?, s.node("friend"), s.node("traitor")];
        let nodes = s.mesh(&specs)?;
        let (root, friend, traitor) = (&nodes[0], &nodes[1], &nodes[2]);
        s.step("the traitor is served as long as it is a member");
        let mut asked = Asked::stream(&traitor.client(), completion(STORY, 400))?;
        asked.until(3)?;

        s.step("it is revoked in the middle of its answer");
        let mut watch = friend.admin()?.watch(Deadline::secs(10))?;
        let revoked = Stopwatch::start();
        root.cli(&["mesh", "revoke", &traitor.id])?.success()?;
        let heard = asked.to_the_end()?;
        let took = revoked.elapsed();
        s.say(&format!("the stream ended {took:?} after the command was given"));
        ensure!(heard.error.is_some() && !heard.done, "{heard:?}");
        // One second from the record's arrival, and the command's own start-up.
        ensure!(took < Duration::from_secs(2), "{took:?}");

        s.step("the others drop it");
        let gone = |view: &Value| {
            let state = admin::state(view, "traitor");
            state.is_empty() || state == "dead"
        };
        watch.until("no traitor", gone)?;
        ensure!(!members(root)?.contains("traitor"), "still a member");

        s.step("it can do nothing: no model, no answer");
        let reply = traitor.client().post("/v1/completions", &completion(STORY, 2))?;
        let status = reply.status;
        ensure!(status == 404 || status == 503, "status {status}");
        reply.refused(status)?;

        s.step("not even after a restart");
        traitor.kill()?;
        let back = traitor.spec.up(s, &[])?;
        no_contact(s, root, &back)?;
        let reply = back.client().post("/v1/completions", &completion(STORY, 2))?;
        let status = reply.status;
        ensure!(status == 404 || status == 503, "status {status}");

        s.step("the friend is still served");
        Asked::stream(&friend.client(), completion(STORY, 3))?.to_the_end()?.whole()?;
        s.step("the root restarts and still knows");
        root.kill()?;
        let root = root.spec.up(s, &[])?;
        friend.admin()?.until_alive(2, Deadline::secs(20))?;
        ensure!(!members(&root)?.contains("traitor"), "a member again");
        no_contact(s, &root, &back)
    });
}

#[test]
fn stewards_roots_and_leaving() {
    scenario(|s| {
        let mesh = s.mesh(&[s.node("root"), s.node("second")])?;
        let (root, second) = (&mesh[0], &mesh[1]);
        s.step("a node that is no steward may not invite");
        let refused = second.cli(&["mesh", "invite"])?.failure()?;
        ensure!(refused.contains("steward") || refused.contains("promote"), "{refused}");
        s.step("a promoted one may");
        root.cli(&["mesh", "promote", &second.id])?.success()?;
        second.admin()?.until("its promotion", Deadline::secs(10), |view| {
            nodes(view).len() == 2
                && second.cli(&["mesh", "invite"]).is_ok_and(|ran| ran.status.success())
        })?;
        let third = s.node("third").up(s, &["--join", &second.invite()?])?;
        for node in [root, second, &third] {
            node.admin()?.until_alive(3, Deadline::patient())?;
        }
        s.step("the root key is exported, readable by its owner only");
        let backup = s.path("root-backup.key");
        let path = backup.display().to_string();
        root.cli(&["mesh", "root", "export", &path])?.success()?;
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&backup)?.permissions());
        ensure!(mode & 0o077 == 0, "mode {mode:o}");
        s.step("the root is rotated and the mesh stays one");
        root.cli(&["mesh", "root", "rotate"])?.success()?;
        let fourth = s.node("fourth").up(s, &["--join", &root.invite()?])?;
        for node in [root, second, &third, &fourth] {
            node.admin()?.until_alive(4, Deadline::patient())?;
        }
        s.step("a node leaves");
        third.cli(&["mesh", "leave"])?.success()?;
        let gone = |view: &Value| {
            let state = admin::state(view, "third");
            state.is_empty() || state == "dead"
        };
        root.admin()?.until("the third gone", Deadline::secs(10), gone)?;
        Ok(())
    });
}

fn members(node: &Node) -> Result<String> {
    node.cli(&["mesh", "members"])?.success()
}

/// After a time in which every other node finds its way, the two still have no living link.
fn no_contact(s: &Scenario, inside: &Node, outside: &Node) -> Result<()> {
    s.step(&format!("{} and {} do not meet", inside.name(), outside.name()));
    let id = outside.id.clone();
    let met = move |view: &Value| {
        nodes(view).iter().any(|node| node["node"] == id.as_str() && node["state"] == "alive")
    };
    let seen = inside.admin()?.until("the outsider", Deadline::secs(4), met);
    ensure!(seen.is_err(), "they met: {seen:?}");
    Ok(())
}
