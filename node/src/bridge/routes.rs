//! Routes, this node's own and those of the mesh, between the admin API's words and the runtime's.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_proto::settings::{SettingKey, Which};
use selvedge_runtime::SharedEntry;
use serde_json::Value;

use super::{Bridge, done, said};
use crate::http::wire;

impl Bridge {
    pub(super) fn routes(&self) -> Result<Value, Refusal> {
        let book = self.admin.routes();
        let troubles = self.admin.routes_troubles();
        let savings = self.admin.routes_savings().into_iter();
        let savings = savings.map(|(route, known)| wire::RouteSaving {
            route,
            answers: known.answers,
            escalated: known.escalated,
            paid_micro_dollars: known.paid,
            instead_micro_dollars: known.instead,
        });
        let savings = savings.collect();
        said(&wire::Routes { sequence: book.sequence, text: book.text, troubles, savings })
    }

    pub(super) async fn routes_set(&self, text: String) -> Result<Value, Refusal> {
        let number = self.admin.routes_set(text).await?;
        done(format!("routes {number} are in force at this node"))
    }

    pub(super) async fn routes_roll_back(&self) -> Result<Value, Refusal> {
        let number = self.admin.routes_roll_back().await?;
        done(format!("the routes before are in force again at this node, as {number}"))
    }

    pub(super) fn mesh_routes(&self) -> Result<Value, Refusal> {
        listed(self.admin.shared_routes())
    }

    pub(super) async fn mesh_routes_set(&self, text: &str) -> Result<Value, Refusal> {
        listed(self.admin.shared_set(text).await?)
    }

    pub(super) fn mesh_route_history(&self, key: &SettingKey) -> Result<Value, Refusal> {
        let all = self.admin.shared_history(key);
        if all.is_empty() {
            let message = format!("there is no '{}' in this mesh", key.name);
            return Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message));
        }
        listed(all)
    }

    pub(super) async fn mesh_route_remove(&self, key: SettingKey) -> Result<Value, Refusal> {
        listed(self.admin.shared_remove(key).await?)
    }

    pub(super) async fn mesh_route_roll_back(
        &self,
        key: SettingKey,
        which: Which,
    ) -> Result<Value, Refusal> {
        listed(self.admin.shared_roll_back(key, which).await?)
    }
}

fn listed(entries: Vec<SharedEntry>) -> Result<Value, Refusal> {
    let line = |entry: SharedEntry| wire::RouteEntry {
        kind: entry.kind.to_owned(),
        name: entry.name,
        version: entry.version,
        label: entry.label,
        issued_ms: entry.issued.0,
        signer: entry.signer.map(|node| node.to_string()),
        removed: entry.removed,
        text: entry.text,
        trouble: entry.trouble,
    };
    said(&wire::List { data: entries.into_iter().map(line).collect() })
}
