//! `selvedge tenant`: the accounts of the mesh.

use anyhow::{Result, bail};
use serde_json::json;

use super::budgets;
use super::keys::{self, escaped};
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui::{self, Ink, paint};

/// Carries out a command on tenants.
pub(crate) fn tenants(home: &Home, command: &cli::Tenant) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Tenant::Create { path, title } => {
            let request = wire::TenantRequest { path: path.clone(), title: title.clone() };
            let done: wire::Done = client.post("/admin/tenants", &request)?;
            ui::out(done.done);
            ui::note(format_args!(
                "Next: `selvedge budget set {path} \"20000 tokens/hour\"` and `selvedge key create \
                 NAME --account {path}`"
            ));
        }
        cli::Tenant::List { json } => {
            let tenants: wire::List<wire::Tenant> = client.get("/admin/tenants")?;
            if *json {
                ui::out(serde_json::to_string_pretty(&tenants)?);
            } else if tenants.data.is_empty() {
                ui::out("no tenants; `selvedge tenant create NAME` makes one");
            } else {
                ui::out(table(&tenants.data));
            }
        }
        cli::Tenant::Show { path, json } => show(&client, path, *json)?,
        cli::Tenant::Suspend { path } => {
            let request = wire::PathRequest { path: path.clone() };
            let done: wire::Done = client.post("/admin/tenants/suspend", &request)?;
            ui::out(done.done);
        }
    }
    Ok(())
}

fn show(client: &Client, path: &str, json: bool) -> Result<()> {
    let tenants: wire::List<wire::Tenant> = client.get("/admin/tenants")?;
    let keys: wire::List<wire::Key> = client.get("/admin/keys")?;
    let budgets: wire::List<wire::Budget> =
        client.get(&format!("/admin/budgets/{}", escaped(path)))?;
    let tenants: Vec<wire::Tenant> =
        tenants.data.into_iter().filter(|tenant| is_under(&tenant.path, path)).collect();
    let of_it = |key: &wire::Key| key.account.as_deref().is_some_and(|own| is_under(own, path));
    let keys: Vec<wire::Key> = keys.data.into_iter().filter(of_it).collect();
    if json {
        let all = json!({ "tenants": tenants, "budgets": budgets.data, "keys": keys });
        ui::out(format_args!("{all:#}"));
        return Ok(());
    }
    if tenants.is_empty() {
        bail!("there is no account '{path}'; `selvedge tenant list` lists them");
    }
    ui::out(table(&tenants));
    let heading = |text: &str| ui::out(format_args!("\n{}", paint(Ink::Bold, text)));
    heading("Budgets");
    ui::out(match budgets.data.as_slice() {
        [] => "none: it may spend what the accounts above it may".to_owned(),
        budgets => budgets::told(budgets),
    });
    heading("Keys");
    ui::out(match keys.as_slice() {
        [] => format!("none; `selvedge key create NAME --account {path}` makes one"),
        keys => keys::table(keys),
    });
    Ok(())
}

fn table(tenants: &[wire::Tenant]) -> String {
    let mut rows = vec![["account", "title", "state"].map(ToOwned::to_owned).to_vec()];
    rows.extend(tenants.iter().map(|tenant| {
        let state = if tenant.suspended { "suspended" } else { "good" };
        vec![tenant.path.clone(), tenant.title.clone(), state.to_owned()]
    }));
    ui::table(&rows)
}

/// Whether `path` is `above` or an account under it.
pub(super) fn is_under(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_under_those_above_them() {
        assert!(is_under("acme", "acme"));
        assert!(is_under("acme/line3/chat", "acme"));
        assert!(!is_under("acme-two", "acme"));
        assert!(!is_under("acme", "acme/line3"));
    }
}
