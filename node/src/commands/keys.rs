//! `selvedge keys`: API keys for clients that are not on this machine.

use anyhow::Result;

use super::mesh::date_text;
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui::{self, Ink, paint_err};

/// Carries out a command on keys.
pub(crate) fn keys(home: &Home, command: &cli::Keys) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Keys::Create { name } => {
            let request = wire::KeyRequest { name: name.clone() };
            let key: wire::NewKey = client.post("/admin/keys", &request)?;
            ui::out(&key.secret);
            ui::note(format_args!(
                "{} key {} for '{name}'. It is shown only now: keep it where the client finds it.\n\
                 Clients send it as `Authorization: Bearer …`; refuse it later with `selvedge keys \
                 revoke {}`",
                paint_err(Ink::Green, "made"),
                key.id,
                key.id
            ));
        }
        cli::Keys::List { json } => {
            let keys: wire::List<wire::Key> = client.get("/admin/keys")?;
            if *json {
                ui::out(serde_json::to_string_pretty(&keys)?);
            } else if keys.data.is_empty() {
                ui::out("no keys; `selvedge keys create NAME` makes one");
            } else {
                let mut rows = vec![vec!["id".into(), "name".into(), "made".into()]];
                rows.extend(
                    keys.data.into_iter().map(|k| vec![k.id, k.name, date_text(k.created_ms)]),
                );
                ui::out(ui::table(&rows));
            }
        }
        cli::Keys::Revoke { id } => {
            let done: wire::Done = client.delete(&format!("/admin/keys/{}", escaped(id)))?;
            ui::out(done.done);
        }
    }
    Ok(())
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
}
