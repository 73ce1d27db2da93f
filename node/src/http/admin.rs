//! The admin API: an operator's orders, from path and body to an [`Order`].
//!
//! Owns paths, methods and bodies. Whoever gets here has shown the admin token; carrying orders
//! out is the backend's business.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use hyper::{Method, Response, StatusCode};
use selvedge_base::{Code, Micros};
use selvedge_dialect::objects;
use selvedge_proto::settings::{SettingKey, Which};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::{Backend, FederatedOrder, Order};
use super::body::{Answer, json, lines};
use super::errors::Problem;
use super::guard::ROUTES;
use super::stop::Stop;
use super::wire;

/// How long a join code works unless told: time to walk to the next machine and type it.
const DEFAULT_TTL_S: u64 = 3_600;
/// The longest a join code may work: one week.
const LONGEST_TTL_S: u64 = 7 * 24 * 3_600;

/// Methods of what is only read.
const READ: &str = "GET, HEAD, OPTIONS";
/// Methods of orders.
const SEND: &str = "POST, OPTIONS";
/// Methods of what is read, and added to.
const BOTH: &str = "GET, HEAD, POST, OPTIONS";
/// Methods of one thing of a list.
const TAKE_AWAY: &str = "DELETE, OPTIONS";

/// The paths after `/admin/` and the methods of each. What stands in braces is the rest of a path,
/// slashes included; a path without comes before.
pub(super) const PATHS: [(&str, &str); 45] = [
    ("status", READ),
    ("members", READ),
    ("watch", READ),
    ("invite", SEND),
    ("revoke", SEND),
    ("promote", SEND),
    ("leave", SEND),
    ("shutdown", SEND),
    ("root/rotate", SEND),
    ("routes", BOTH),
    ("routes/rollback", SEND),
    ("mesh-routes", BOTH),
    ("mesh-routes/rollback", SEND),
    ("mesh-routes/remove", SEND),
    ("mesh-routes/name/{name}", READ),
    ("mesh-routes/model/{name}", READ),
    ("tenants", BOTH),
    ("tenants/suspend", SEND),
    ("keys", BOTH),
    ("keys/{id}", TAKE_AWAY),
    ("budgets", BOTH),
    // An account may be called like one of these orders: it is read, they are sent.
    ("budgets/lower", BOTH),
    ("budgets/remove", BOTH),
    ("budgets/renew", BOTH),
    ("budgets/{account}", READ),
    ("models", BOTH),
    ("models/{name}", TAKE_AWAY),
    ("variants", READ),
    ("providers", BOTH),
    ("providers/{name}", TAKE_AWAY),
    ("provider-keys", BOTH),
    ("provider-keys/{name}", TAKE_AWAY),
    ("federated", BOTH),
    ("federated/{name}", TAKE_AWAY),
    ("federated-check", SEND),
    ("federated-anchors/{name}", SEND),
    ("federated-watch", READ),
    ("federated-chain/{piece}", READ),
    ("federated-personal/{name}", READ),
    ("federated-name/{name}", READ),
    ("cache", READ),
    ("cache/purge", SEND),
    ("requests/{id}", READ),
    ("labels", SEND),
    ("labels/{model}", TAKE_AWAY),
];

/// The methods of an admin path; `None` when there is no such path.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    let fits = |template: &str| match template.split_once('{') {
        Some((before, _)) => path.strip_prefix(before).is_some_and(|rest| !rest.is_empty()),
        None => template == path,
    };
    PATHS.iter().find(|(template, _)| fits(template)).map(|(_, methods)| *methods)
}

/// Carries out what `path` (after `/admin/`, decoded) orders.
pub(super) async fn answer(
    method: &Method,
    path: &str,
    body: &[u8],
    backend: &dyn Backend,
    stop: &Stop,
) -> Result<Response<Answer>, Problem> {
    match path {
        "status" => Ok(json(StatusCode::OK, &backend.status())),
        "watch" => Ok(lines(watched(backend.watch(), stop))),
        "federated-watch" => Ok(lines(watched(backend.federated_watch(), stop))),
        "models" if *method != Method::POST => {
            let nodes = backend.status().nodes.into_iter();
            let data = nodes.filter(|node| node.me).flat_map(|node| node.models).collect();
            Ok(json(StatusCode::OK, &wire::List { data }))
        }
        _ if path.split('/').next() == Some("budgets") && *method != Method::POST => {
            let account = path.split_once('/').map(|(_, account)| account);
            Ok(json(StatusCode::OK, &wire::List { data: backend.budgets(account) }))
        }
        "shutdown" => {
            nothing_in(body)?;
            stop.request();
            Ok(json(StatusCode::ACCEPTED, &wire::Done { done: "stopping".to_owned() }))
        }
        _ => {
            let order = order(method, path, body)?;
            let result = backend.manage(order).await?;
            Ok(json(StatusCode::OK, &result))
        }
    }
}

/// A line of JSON for every change, the first one at once, until the surface ends. Lines that a
/// slow reader did not take in time are told as one.
fn watched<T: Serialize + 'static>(
    changes: BoxStream<'static, T>,
    stop: &Stop,
) -> BoxStream<'static, Bytes> {
    let stop = stop.clone();
    let ended = async move { stop.requested().await };
    let line = |now: T| {
        // Plain structs always serialize; an empty line would be the visible sign.
        let mut line = serde_json::to_vec(&now).unwrap_or_default();
        line.push(b'\n');
        Bytes::from(line)
    };
    changes.map(line).take_until(Box::pin(ended)).boxed()
}

fn order(method: &Method, path: &str, body: &[u8]) -> Result<Order, Problem> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let post = *method == Method::POST;
    match (first, rest) {
        ("invite", "") => invite(body),
        ("members", "") => Ok(Order::Members),
        ("revoke", "") => node(body).map(Order::Revoke),
        ("promote", "") => node(body).map(Order::Promote),
        ("root", "rotate") => nothing_in(body).map(|()| Order::RotateRoot),
        ("leave", "") => nothing_in(body).map(|()| Order::Leave),
        ("keys", "") if post => key(body),
        ("keys", "") => Ok(Order::Keys),
        ("keys", id) => Ok(Order::KeyRevoke(id.to_owned())),
        ("tenants", "") if post => decode(body).map(Order::TenantCreate),
        ("tenants", "") => Ok(Order::Tenants),
        ("tenants", "suspend") => {
            decode::<wire::PathRequest>(body).map(|request| Order::TenantSuspend(request.path))
        }
        ("budgets", "") => budget(body),
        ("budgets", "lower") => decode(body).map(Order::BudgetLower),
        ("budgets", "remove") => decode(body).map(Order::BudgetRemove),
        ("budgets", "renew") => nothing_in(body).map(|()| Order::BudgetRenew),
        ("routes", "rollback") => nothing_in(body).map(|()| Order::RoutesRollBack),
        ("routes", _) if post => {
            decode::<wire::Routes>(body).map(|routes| Order::RoutesSet(routes.text))
        }
        ("routes", _) => Ok(Order::Routes),
        ("mesh-routes", rest) => mesh_routes(rest, post, body),
        ("providers", "") if post => {
            decode(body).map(|provider| Order::ProviderAdd(Box::new(provider)))
        }
        ("providers", "") => Ok(Order::Providers),
        ("providers", name) => Ok(Order::ProviderRemove(name.to_owned())),
        ("provider-keys", "") if post => decode(body).map(Order::ProviderKeyAdd),
        ("provider-keys", "") => Ok(Order::ProviderKeys),
        ("provider-keys", name) => Ok(Order::ProviderKeyRemove(name.to_owned())),
        ("labels", "") => label(body),
        ("labels", model) => Ok(Order::Federated(FederatedOrder::Forget(model.to_owned()))),
        ("federated", rest) => federated(rest, post, body),
        ("federated-check", "") => {
            let wire::FederatedQuestion { text, starts } = decode(body)?;
            Ok(Order::Federated(FederatedOrder::Check(text, starts)))
        }
        ("federated-anchors", name) => {
            let order = Order::Federated(FederatedOrder::Reseat(name.to_owned()));
            nothing_in(body).map(|()| order)
        }
        ("federated-chain", rest) => piece(rest),
        ("federated-personal", name) => {
            Ok(Order::Federated(FederatedOrder::Personal(name.to_owned())))
        }
        ("federated-name", name) => Ok(Order::Federated(FederatedOrder::Name(name.to_owned()))),
        ("cache", "purge") => purge(body),
        ("cache", _) => Ok(Order::Cache),
        ("models", "") => model(body),
        ("variants", _) => Ok(Order::Variants),
        ("models", name) => Ok(Order::ModelRemove(name.to_owned())),
        ("requests", id) => id
            .parse()
            .map(Order::Record)
            .map_err(|error| Problem::invalid("id", format!("{error}"))),
        _ => Err(super::router::not_found()),
    }
}

/// The piece that a path names: `JOB/NUMBER`.
fn piece(rest: &str) -> Result<Order, Problem> {
    let (name, number) = rest.rsplit_once('/').ok_or_else(super::router::not_found)?;
    let number = number.parse().map_err(|_| Problem::invalid("piece", "a piece has a number"))?;
    Ok(Order::Federated(FederatedOrder::Piece(name.to_owned(), number)))
}

fn label(body: &[u8]) -> Result<Order, Problem> {
    let wire::LabelOrder { id, labels } = decode(body)?;
    let id = id.parse().map_err(|error| Problem::invalid("id", format!("{error}")))?;
    Ok(Order::Federated(FederatedOrder::Label(id, labels)))
}

fn federated(rest: &str, post: bool, body: &[u8]) -> Result<Order, Problem> {
    match rest {
        "" if post => {
            let wire::FederatedRequest { text, anyway } = decode(body)?;
            Ok(Order::Federated(FederatedOrder::Submit(text, anyway)))
        }
        "" => Ok(Order::Federated(FederatedOrder::List)),
        name => Ok(Order::Federated(FederatedOrder::Cancel(name.to_owned()))),
    }
}

fn mesh_routes(rest: &str, post: bool, body: &[u8]) -> Result<Order, Problem> {
    match rest {
        "" if post => decode::<wire::Routes>(body).map(|it| Order::MeshRoutesSet(it.text)),
        "" => Ok(Order::MeshRoutes),
        "remove" => {
            let wire::EntryOrder { kind, name, to } = decode(body)?;
            match to {
                None => Ok(Order::MeshRouteRemove(kind.key(name))),
                Some(_) => Err(Problem::invalid("to", "only a rollback goes to a version")),
            }
        }
        "rollback" => {
            let wire::EntryOrder { kind, name, to } = decode(body)?;
            Ok(Order::MeshRouteRollBack(kind.key(name), to.map_or(Which::Before, Which::Labelled)))
        }
        entry => entry_key(entry).map(Order::MeshRouteHistory).ok_or_else(super::router::not_found),
    }
}

/// The entry that a path names: `name/NAME` or `model/KIND/ID`.
fn entry_key(path: &str) -> Option<SettingKey> {
    let (kind, name) = path.split_once('/')?;
    let kinds = [wire::EntryKind::Name, wire::EntryKind::Model];
    let kind = kinds.into_iter().find(|known| known.as_str() == kind)?;
    (!name.is_empty()).then(|| kind.key(name.to_owned()))
}

fn invite(body: &[u8]) -> Result<Order, Problem> {
    let request = match body.is_empty() {
        true => wire::InviteRequest::default(),
        false => decode(body)?,
    };
    let ttl_s = request.ttl_s.unwrap_or(DEFAULT_TTL_S);
    if !(1..=LONGEST_TTL_S).contains(&ttl_s) {
        let message = format!("'ttl_s' must be 1 to {LONGEST_TTL_S}");
        return Err(Problem::invalid("ttl_s", message));
    }
    Ok(Order::Invite { ttl: Micros::secs(ttl_s) })
}

fn purge(body: &[u8]) -> Result<Order, Problem> {
    match body.is_empty() {
        true => Ok(Order::CachePurge(wire::CachePurge::default())),
        false => decode(body).map(Order::CachePurge),
    }
}

fn node(body: &[u8]) -> Result<selvedge_base::NodeId, Problem> {
    let request: wire::NodeRequest = decode(body)?;
    request.node.parse().map_err(|error| Problem::invalid("node", format!("{error}")))
}

fn model(body: &[u8]) -> Result<Order, Problem> {
    let wire::ModelRequest { path, name, digest } = decode(body)?;
    let digest = digest.parse().map_err(|error| Problem::invalid("digest", format!("{error}")))?;
    Ok(Order::ModelAdd { path, name, digest })
}

fn key(body: &[u8]) -> Result<Order, Problem> {
    let request: wire::KeyRequest = decode(body)?;
    let limited =
        request.expires_s.is_some() || !(request.models.is_empty() && request.routes.is_empty());
    if request.account.is_none() && limited {
        let message = "only keys with an account can be limited; give 'account'";
        return Err(Problem::invalid("account", message));
    }
    if let Some(route) = request.routes.iter().find(|route| !ROUTES.contains(&route.as_str())) {
        let message = format!("'{route}' is no endpoint: 'routes' may hold {}", ROUTES.join(", "));
        return Err(Problem::invalid("routes", message));
    }
    Ok(Order::KeyCreate(request))
}

fn budget(body: &[u8]) -> Result<Order, Problem> {
    let request: wire::BudgetRequest = decode(body)?;
    let amount = request.amount.parse().map_err(|why: String| Problem::invalid("amount", why))?;
    Ok(Order::BudgetSet { request, amount })
}

fn nothing_in(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() || body.trim_ascii() == b"{}" {
        return Ok(());
    }
    Err(bad("this order takes no parameters: send no body, or {}"))
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| *first != b'{') {
        return Err(bad("the body is not right: it must be a JSON object"));
    }
    objects::from_slice(body).map_err(|error| Problem::json("the body is not right", &error))
}

fn bad(message: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::InvalidRequest.as_str(), message)
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
