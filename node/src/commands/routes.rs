//! `selvedge routes`: which targets a model's name leads to.

use anyhow::{Context as _, Result};

use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui;

/// Carries out a command on routes.
pub(crate) fn routes(home: &Home, command: &cli::Routes) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Routes::Set { file } => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let routes = wire::Routes { sequence: 0, text };
            let done: wire::Done = client.post("/admin/routes", &routes)?;
            ui::out(done.done);
        }
        cli::Routes::Show => {
            let routes: wire::Routes = client.get("/admin/routes")?;
            if routes.sequence == 0 {
                ui::out("no routes; `selvedge routes set FILE` puts some in force");
            } else {
                ui::note(format_args!("routes {}", routes.sequence));
                ui::out(routes.text.trim_end());
            }
        }
        cli::Routes::Rollback => {
            let done: wire::Done = client.post("/admin/routes/rollback", &serde_json::json!({}))?;
            ui::out(done.done);
        }
    }
    Ok(())
}
