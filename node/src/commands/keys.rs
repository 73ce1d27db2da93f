//! `selvedge key`: API keys, of this node or of the mesh.

use anyhow::Result;

use super::mesh::date_text;
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui::{self, Ink, paint_err};

/// Carries out a command on keys.
pub(crate) fn keys(home: &Home, command: &cli::Key) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Key::Create(options) => create(&client, options)?,
        cli::Key::List { json } => {
            let keys: wire::List<wire::Key> = client.get("/admin/keys")?;
            if *json {
                ui::out(serde_json::to_string_pretty(&keys)?);
            } else if keys.data.is_empty() {
                ui::out("no keys; `selvedge key create NAME` makes one");
            } else {
                ui::out(table(&keys.data));
            }
        }
        cli::Key::Revoke { id } => {
            let done: wire::Done = client.delete(&format!("/admin/keys/{}", escaped(id)))?;
            ui::out(done.done);
        }
    }
    Ok(())
}

fn create(client: &Client, options: &cli::KeyCreate) -> Result<()> {
    let request = wire::KeyRequest {
        name: options.name.clone(),
        account: options.account.clone(),
        expires_s: options.expires.map(|span| span.as_secs()),
        models: options.models.clone(),
        routes: options.routes.clone(),
    };
    let key: wire::NewKey = client.post("/admin/keys", &request)?;
    ui::out(&key.secret);
    let whose = options.account.as_ref().map_or_else(
        || "good at this node only".to_owned(),
        |account| format!("spends for {account}, at every node"),
    );
    ui::note(format_args!(
        "{} key {} for '{}' ({whose}). It is shown only now: keep it where the client finds it.\n\
         Clients send it as `Authorization: Bearer …`; refuse it later with `selvedge key revoke \
         {}`",
        paint_err(Ink::Green, "made"),
        key.id,
        options.name,
        key.id
    ));
    Ok(())
}

/// Keys as lines for people.
pub(super) fn table(keys: &[wire::Key]) -> String {
    let head = ["id", "name", "account", "state", "made", "ends", "only"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        let only: Vec<&str> = key.models.iter().chain(&key.routes).map(String::as_str).collect();
        vec![
            key.id.clone(),
            key.name.clone(),
            key.account.clone().unwrap_or_else(|| "(this node)".to_owned()),
            key.problem.clone().unwrap_or_else(|| "good".to_owned()),
            date_text(key.created_ms),
            key.expires_ms.map_or_else(|| "-".to_owned(), date_text),
            if only.is_empty() { "-".to_owned() } else { only.join(", ") },
        ]
    }));
    ui::table(&rows)
}

/// A text as one piece of a path.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-~".contains(byte);
    text.bytes()
        .map(|byte| match plain(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_path_stay_pieces() {
        assert_eq!(escaped("a-b.c_d~1"), "a-b.c_d~1");
        assert_eq!(escaped("a/b ?é"), "a%2Fb%20%3F%C3%A9");
    }

    #[test]
    fn keys_are_listed_with_what_they_open() {
        let key = wire::Key {
            id: "4f1c".to_owned(),
            name: "app".to_owned(),
            account: Some("acme".to_owned()),
            models: vec!["small*".to_owned()],
            routes: vec!["chat".to_owned()],
            ..wire::Key::default()
        };
        let over = wire::Key { problem: Some("expired".to_owned()), ..wire::Key::default() };
        let text = table(&[key, over]);
        for part in ["acme", "good", "small*, chat", "(this node)", "expired"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
