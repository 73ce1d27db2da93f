//! `selvedge mesh`: who belongs to the mesh and who may join.

use anyhow::{Result, anyhow, bail};
use selvedge_proto::records::fingerprint_text;
use selvedge_runtime::{Node, custody};

use super::keys::escaped;
use crate::cli::{self, Root};
use crate::client::Client;
use crate::config::Config;
use crate::home::Home;
use crate::http::wire;
use crate::ui::{self, Ink, bytes_text, paint, paint_err, span_text};

/// Carries out a command on the mesh.
pub(crate) fn mesh(home: &Home, config: &Config, command: &cli::Mesh) -> Result<()> {
    match command {
        cli::Mesh::Init => init(home, config),
        cli::Mesh::Root(Root::Export { file }) => {
            let code = custody::export(home.path(), file)?;
            ui::out(&code);
            ui::note(format_args!(
                "{} {}. The line above is its recovery code, shown only now; without it the file \
                 opens nothing.\nKeep both, apart from each other and off this machine. Bring them \
                 back with `selvedge mesh root import FILE`",
                paint_err(Ink::Green, "wrote"),
                file.display()
            ));
            Ok(())
        }
        cli::Mesh::Root(Root::Import { file, code }) => {
            let code = code.clone().or_else(|| ui::ask_line("Recovery code: "));
            let code = code.ok_or_else(|| anyhow!("give the recovery code with --code CODE"))?;
            custody::import(home.path(), file, code.trim())?;
            ui::out("imported the root key; this node may now promote and rotate");
            Ok(())
        }
        cli::Mesh::Root(Root::Rotate)
        | cli::Mesh::Invite { .. }
        | cli::Mesh::Status { .. }
        | cli::Mesh::Hardware { .. }
        | cli::Mesh::Members { .. }
        | cli::Mesh::Revoke { .. }
        | cli::Mesh::Promote { .. }
        | cli::Mesh::Leave => ask_the_node(&Client::admin(&home.running()?), command),
    }
}

fn init(home: &Home, config: &Config) -> Result<()> {
    let running = home.occupy()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mesh = runtime.block_on(Node::init(home.path(), &config.name))?;
    drop(running);
    ui::out(format_args!("made mesh {} in {}", fingerprint_text(&mesh), home.path().display()));
    ui::note(format_args!(
        "Its root key is {}. Back it up: `selvedge mesh root export FILE`.\nNext: `selvedge up`",
        custody::root_key_path(home.path()).display()
    ));
    Ok(())
}

fn ask_the_node(client: &Client, command: &cli::Mesh) -> Result<()> {
    match command {
        cli::Mesh::Invite { ttl } => {
            let request = wire::InviteRequest { ttl_s: Some(ttl.as_secs()) };
            let invite: wire::Invite = client.post("/admin/invite", &request)?;
            ui::out(&invite.code);
            ui::note(format_args!(
                "On the next machine type: {}\nThe code works once, for {} minutes.",
                paint_err(Ink::Bold, format_args!("selvedge up --join {}", invite.code)),
                invite.ttl_s.div_ceil(60)
            ));
        }
        cli::Mesh::Status { json: true } => {
            ui::out(format_args!("{:#}", client.get::<serde_json::Value>("/admin/status")?));
        }
        cli::Mesh::Status { json: false } => status(&client.get("/admin/status")?),
        cli::Mesh::Hardware { json } => {
            super::hardware::show(&client.get("/admin/status")?, *json)?
        }
        cli::Mesh::Members { json } => members(client, *json)?,
        cli::Mesh::Revoke { node } => {
            let member = find(client, node)?;
            say(&client.post("/admin/revoke", &wire::NodeRequest { node: member.node })?);
        }
        cli::Mesh::Promote { node } => {
            let member = find(client, node)?;
            say(&client.post("/admin/promote", &wire::NodeRequest { node: member.node })?);
        }
        cli::Mesh::Leave => {
            say(&client.post("/admin/leave", &serde_json::json!({}))?);
            ui::note("The node stops. `selvedge up` makes a new mesh, `up --join CODE` joins one.");
        }
        cli::Mesh::Root(Root::Rotate) => {
            say(&client.post("/admin/root/rotate", &serde_json::json!({}))?);
            ui::note(
                "Back up the new key: `selvedge mesh root export FILE`. Stewards other than this \
                 node must be promoted again.",
            );
        }
        cli::Mesh::Init | cli::Mesh::Root(Root::Export { .. } | Root::Import { .. }) => {
            bail!("this command needs no running node");
        }
    }
    Ok(())
}

fn say(done: &wire::Done) {
    ui::out(&done.done);
}

/// The nodes as a table, and what to do about what is missing.
fn status(status: &wire::Status) {
    let mesh = status.mesh.as_deref().and_then(|text| text.parse().ok());
    ui::out(format_args!(
        "mesh {}  seen from {}",
        paint(Ink::Bold, mesh.map_or_else(|| "none".to_owned(), |mesh| fingerprint_text(&mesh))),
        paint(Ink::Bold, &status.name)
    ));
    let head = ["node", "state", "address", "rtt", "models", "load", "version"];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for node in &status.nodes {
        let state = if node.me { "this node" } else { &node.state };
        let models: Vec<String> = node.models.iter().map(model_text).collect();
        rows.push(vec![
            node.name.clone(),
            state.to_owned(),
            node.addrs.first().cloned().unwrap_or_else(|| "-".to_owned()),
            node.rtt_us.map_or_else(|| "-".to_owned(), span_text),
            if models.is_empty() { "-".to_owned() } else { models.join(", ") },
            load_text(node),
            node.version.clone(),
        ]);
    }
    ui::out(ui::table(&rows));
    for node in status.nodes.iter().filter(|node| !node.me && node.state != "alive") {
        ui::out(format_args!("{} is {}: {}", node.name, node.state, node.why));
    }
    if status.nodes.iter().all(|node| node.models.is_empty()) {
        ui::note("No node has a model: `selvedge models pull` fetches a small one.");
    }
    if status.nodes.len() == 1 {
        ui::note("No other node: `selvedge mesh invite` prints what to type on another machine.");
    }
}

fn model_text(model: &wire::Model) -> String {
    match model.state.as_str() {
        "ready" => model.name.clone(),
        _ => format!("{} ({})", model.name, state_text(model)),
    }
}

/// A model's state, and how far it has come of what takes a while.
fn state_text(model: &wire::Model) -> String {
    match model.loading_percent {
        Some(percent) => format!("{} {percent} %", model.state),
        None => model.state.clone(),
    }
}

fn load_text(node: &wire::Node) -> String {
    let running: u32 = node.models.iter().map(|model| model.running).sum();
    let queued: u32 = node.models.iter().map(|model| model.queued).sum();
    match (running, queued, node.loading) {
        (0, 0, true) => "loading".to_owned(),
        (0, 0, false) => "idle".to_owned(),
        (running, 0, _) => format!("{running} running"),
        (running, queued, _) => format!("{running} running, {queued} queued"),
    }
}

fn members(client: &Client, json: bool) -> Result<()> {
    let members: wire::List<wire::Member> = client.get("/admin/members")?;
    if json {
        ui::out(serde_json::to_string_pretty(&members)?);
        return Ok(());
    }
    let mut rows =
        vec![vec!["name".to_owned(), "role".to_owned(), "lease ends".to_owned(), "id".to_owned()]];
    for member in members.data {
        let role = match (member.revoked, member.steward) {
            (true, _) => "revoked",
            (false, true) => "steward",
            (false, false) => "member",
        };
        let ends = member.not_after_ms.filter(|_| !member.revoked);
        rows.push(vec![
            member.name,
            role.to_owned(),
            ends.map_or_else(|| "-".to_owned(), date_text),
            member.node,
        ]);
    }
    ui::out(ui::table(&rows));
    Ok(())
}

/// The member a person means: by id, by name, or by the end of the id.
pub(super) fn find(client: &Client, text: &str) -> Result<wire::Member> {
    let members: wire::List<wire::Member> = client.get("/admin/members")?;
    chosen(members.data, text)
}

fn chosen(members: Vec<wire::Member>, text: &str) -> Result<wire::Member> {
    if let Some(member) = members.iter().find(|member| member.node == text) {
        return Ok(member.clone());
    }
    let mut found: Vec<wire::Member> = members
        .into_iter()
        .filter(|member| {
            member.name == text || (text.len() >= MIN_SUFFIX && member.node.ends_with(text))
        })
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(member), true) => Ok(member),
        (Some(_), false) => {
            bail!("several members match '{text}'; give the id (`selvedge mesh members` lists it)")
        }
        (None, _) => bail!("no member matches '{text}'; `selvedge mesh members` lists them"),
    }
}

/// Fewer characters of an id are too easily another node's.
const MIN_SUFFIX: usize = 6;

/// A moment in UTC, from milliseconds since 1970 (the civil calendar of Howard Hinnant's paper on
/// date algorithms).
pub(super) fn date_text(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    // Beyond any lease; keeps the arithmetic below in range.
    let days = i64::try_from(days).unwrap_or(0).min(3_000_000) + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60)
}

/// A model of the running node as a line of `models list`.
pub(super) fn running_line(model: &wire::Model) -> Vec<String> {
    vec![
        model.name.clone(),
        bytes_text(model.bytes),
        model.quantization.clone(),
        model_state(model),
    ]
}

fn model_state(model: &wire::Model) -> String {
    if model.state == "failed" {
        return model.state.clone();
    }
    let state = state_text(model);
    match model.context_length {
        // It reads tensors, and has none.
        0 => state,
        context => format!("{state}, context {context}"),
    }
}

/// The path of a model of the running node.
pub(super) fn model_path(name: &str) -> String {
    format!("/admin/models/{}", escaped(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn member(node: &str, name: &str) -> wire::Member {
        wire::Member { node: node.to_owned(), name: name.to_owned(), ..wire::Member::default() }
    }

    #[test]
    fn members_are_found_as_people_name_them() {
        let all = || vec![member("12D3KooWaaaaaa", "pantry"), member("12D3KooWbbbbbb", "attic")];
        assert_eq!(chosen(all(), "attic").unwrap().node, "12D3KooWbbbbbb");
        assert_eq!(chosen(all(), "aaaaaa").unwrap().name, "pantry");
        assert_eq!(chosen(all(), "12D3KooWaaaaaa").unwrap().name, "pantry");
        assert!(chosen(all(), "a").is_err(), "one letter named a node");
        let twins = vec![member("12D3KooWaaaaaa", "pi"), member("12D3KooWbbbbbb", "pi")];
        assert!(chosen(twins, "pi").unwrap_err().to_string().contains("several"));
    }

    #[test]
    fn a_model_that_loads_says_how_far_it_has_come() {
        let model = wire::Model {
            name: "small".to_owned(),
            state: "loading".to_owned(),
            loading_percent: Some(63),
            context_length: 2_048,
            ..wire::Model::default()
        };
        assert_eq!(model_text(&model), "small (loading 63 %)");
        assert_eq!(model_state(&model), "loading 63 %, context 2048");
        let unknown = wire::Model { loading_percent: None, context_length: 0, ..model };
        assert_eq!(model_state(&unknown), "loading");
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(date_text(0), "1970-01-01 00:00 UTC");
        assert_eq!(date_text(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(date_text(1_795_345_199_000), "2026-11-22 10:59 UTC");
        date_text(u64::MAX);
    }
}
