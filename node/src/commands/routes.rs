//! `selvedge routes`: which targets a model's name leads to.

use std::path::Path;

use anyhow::{Context as _, Result};
use selvedge_core::routes::{Item, RouteBook};

use super::keys::escaped;
use super::mesh::date_text;
use crate::amount::dollars_text;
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui;

/// As much of the end of a node's name as other tables show.
const SHORT: usize = 8;

/// Carries out a command on routes.
pub(crate) fn routes(home: &Home, command: &cli::Routes) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Routes::Set { file, here } => set(&client, file, *here)?,
        cli::Routes::List { json } => {
            let list: wire::List<wire::RouteEntry> = client.get("/admin/mesh-routes")?;
            if *json {
                ui::out(serde_json::to_string_pretty(&list)?);
            } else if list.data.is_empty() {
                ui::out("no routes; `selvedge routes set FILE` puts some in force");
            } else {
                ui::out(table(&list.data));
            }
        }
        cli::Routes::Show { here: true, .. } => show_own(&client)?,
        cli::Routes::Show { name: None, .. } => {
            let list: wire::List<wire::RouteEntry> = client.get("/admin/mesh-routes")?;
            if list.data.is_empty() {
                ui::out("no routes; `selvedge routes set FILE` puts some in force");
            }
            show(&list.data)?;
        }
        cli::Routes::Show { name: Some(name), model, .. } => {
            let list = history(&client, name, *model)?;
            show(list.data.get(..1).unwrap_or_default())?;
        }
        cli::Routes::Savings { json } => {
            let routes: wire::Routes = client.get("/admin/routes")?;
            match *json {
                true => ui::out(serde_json::to_string_pretty(&routes.savings)?),
                false => ui::out(savings(&routes.savings)),
            }
        }
        cli::Routes::History { entry, json } => {
            let list = history(&client, &entry.name, entry.model)?;
            match json {
                true => ui::out(serde_json::to_string_pretty(&list)?),
                false => ui::out(versions(&list.data)),
            }
        }
        cli::Routes::Rollback { name: Some(name), model, to, .. } => {
            let order = order(name, *model, to.clone());
            told(&client.post("/admin/mesh-routes/rollback", &order)?);
        }
        cli::Routes::Rollback { name: None, .. } => {
            let done: wire::Done = client.post("/admin/routes/rollback", &serde_json::json!({}))?;
            ui::out(done.done);
        }
        cli::Routes::Remove { entry } => {
            let order = order(&entry.name, entry.model, None);
            told(&client.post("/admin/mesh-routes/remove", &order)?);
        }
    }
    Ok(())
}

fn set(client: &Client, file: &Path, here: bool) -> Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let routes = wire::Routes { text, ..wire::Routes::default() };
    if here {
        let done: wire::Done = client.post("/admin/routes", &routes)?;
        ui::out(done.done);
        return Ok(());
    }
    told(&client.post("/admin/mesh-routes", &routes)?);
    Ok(())
}

/// What trying small models first came to.
fn savings(routes: &[wire::RouteSaving]) -> String {
    if routes.is_empty() {
        return "no answer of a route that tries small models first, since this node started"
            .to_owned();
    }
    let head = ["route", "answers", "larger asked", "paid", "instead of", "saved"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(routes.iter().map(|one| {
        let (paid, instead) = (one.paid_micro_dollars, one.instead_micro_dollars);
        let sign = if paid > instead { "-" } else { "" };
        vec![
            one.route.clone(),
            one.answers.to_string(),
            one.escalated.to_string(),
            format!("{} usd", dollars_text(paid)),
            format!("{} usd", dollars_text(instead)),
            format!("{sign}{} usd", dollars_text(paid.abs_diff(instead))),
        ]
    }));
    ui::table(&rows)
}

fn show_own(client: &Client) -> Result<()> {
    let routes: wire::Routes = client.get("/admin/routes")?;
    if routes.sequence == 0 {
        ui::out(
            "no routes of this node alone; `selvedge routes set --here FILE` puts some in force",
        );
        return Ok(());
    }
    ui::note(format_args!("routes {}", routes.sequence));
    for trouble in &routes.troubles {
        ui::warn(trouble);
    }
    ui::out(routes.text.trim_end());
    Ok(())
}

fn history(client: &Client, name: &str, model: bool) -> Result<wire::List<wire::RouteEntry>> {
    client.get(&format!("/admin/mesh-routes/{}/{}", kind(model).as_str(), escaped(name)))
}

fn order(name: &str, model: bool, to: Option<String>) -> wire::EntryOrder {
    wire::EntryOrder { kind: kind(model), name: name.to_owned(), to }
}

const fn kind(model: bool) -> wire::EntryKind {
    if model { wire::EntryKind::Model } else { wire::EntryKind::Name }
}

/// What became of an order.
fn told(list: &wire::List<wire::RouteEntry>) {
    for entry in &list.data {
        let (name, version) = (&entry.name, entry.version);
        match entry.removed {
            true => {
                ui::out(format_args!("'{name}' is removed from the mesh, as version {version}"))
            }
            false => ui::out(format_args!("{} '{name}' is version {version}", entry.kind)),
        }
        if let Some(trouble) = &entry.trouble {
            ui::warn(format_args!("'{name}': {trouble}"));
        }
    }
}

/// Entries as one file.
fn show(entries: &[wire::RouteEntry]) -> Result<()> {
    for entry in entries {
        ui::note(format_args!("{} '{}', version {}", entry.kind, entry.name, entry.version));
        if let Some(trouble) = &entry.trouble {
            ui::warn(format_args!("'{}': {trouble}", entry.name));
        }
    }
    ui::out_part(&file(entries)?);
    Ok(())
}

/// What entries say, as a file that could be set.
fn file(entries: &[wire::RouteEntry]) -> Result<String> {
    let mut items = Vec::new();
    for text in entries.iter().filter_map(|entry| entry.text.as_ref()) {
        items.extend(Item::all_of(&RouteBook::from_toml(text)?));
    }
    Ok(Item::to_toml(&items)?)
}

fn table(entries: &[wire::RouteEntry]) -> String {
    let head = ["name", "kind", "version", "changed", "signed by", "state"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        vec![
            entry.name.clone(),
            entry.kind.clone(),
            entry.version.to_string(),
            date_text(entry.issued_ms),
            signer(entry),
            entry.trouble.clone().unwrap_or_else(|| "in force".to_owned()),
        ]
    }));
    ui::table(&rows)
}

fn versions(entries: &[wire::RouteEntry]) -> String {
    let head = ["version", "kind", "changed", "signed by", "state"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    rows.extend(entries.iter().enumerate().map(|(at, entry)| {
        let state = match (at, &entry.trouble) {
            (0, None) if entry.removed => "removed".to_owned(),
            (0, None) => "in force".to_owned(),
            (0, Some(trouble)) => trouble.clone(),
            // Two sides of a cut made it; this one has lost.
            (at, _) if entries[at - 1].version == entry.version => "lost to its twin".to_owned(),
            _ => String::new(),
        };
        let changed = date_text(entry.issued_ms);
        vec![entry.label.clone(), entry.kind.clone(), changed, signer(entry), state]
    }));
    ui::table(&rows)
}

fn signer(entry: &wire::RouteEntry) -> String {
    let short =
        |node: &str| node.get(node.len().saturating_sub(SHORT)..).unwrap_or(node).to_owned();
    entry.signer.as_deref().map_or_else(|| "root key".to_owned(), short)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_entries_together_are_a_file_that_could_be_set() {
        let entry = |text: &str| wire::RouteEntry {
            text: Some(text.to_owned()),
            ..wire::RouteEntry::default()
        };
        let alias = |name: &str| entry(&format!("[aliases]\n{name} = \"chat\"\n"));
        let route = "[[route]]\nname = \"chat\"\npolicy = { small-first = {} }\n\
                     [[route.target]]\nmesh = \"m\"\n";
        let text = file(&[alias("a"), entry(route), alias("b")]).unwrap();
        let book = RouteBook::from_toml(&text).unwrap();
        assert_eq!((book.aliases.len(), book.routes.len()), (2, 1), "{text}");
        assert_eq!(book.routes, RouteBook::from_toml(route).unwrap().routes);
    }

    #[test]
    fn entries_and_versions_read_like_tables() {
        let entry = |version: u64, id: &str, trouble: Option<&str>| wire::RouteEntry {
            kind: "route".to_owned(),
            name: "chat".to_owned(),
            version,
            label: format!("{version}-{id}"),
            signer: (version > 1).then(|| "abcdefghijkl".to_owned()),
            trouble: trouble.map(ToOwned::to_owned),
            ..wire::RouteEntry::default()
        };
        let text = table(&[entry(3, "aa", None), entry(1, "bb", Some("provider 'x' is unknown"))]);
        for part in ["chat", "in force", "efghijkl", "root key", "provider 'x' is unknown"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("defghijkl"), "{text}");
        let text = versions(&[entry(3, "cc", None), entry(3, "bb", None), entry(2, "aa", None)]);
        for part in ["3-cc", "in force", "3-bb", "lost to its twin", "2-aa"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
