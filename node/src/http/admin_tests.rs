//! Every path of the admin API.

use std::sync::Arc;

use selvedge_base::{ModelDigest, NodeId, RequestId};

use super::super::script::Script;
use super::*;

async fn order(method: Method, path: &str, body: &str) -> Result<Order, Problem> {
    let script = Script::hello();
    let stop = Stop::new();
    let backend: Arc<Script> = Arc::clone(&script);
    answer(&method, path, body.as_bytes(), backend.as_ref(), &stop).await?;
    let order = script.orders.lock().pop();
    Ok(order.expect("an order was carried out"))
}

#[tokio::test]
async fn paths_and_bodies_become_orders() {
    let node = NodeId([9; 32]);
    let by_node = format!("{{\"node\": \"{node}\"}}");
    let digest = ModelDigest([3; 32]);
    let model = format!("{{\"path\": \"/m\", \"name\": \"m\", \"digest\": \"{digest}\"}}");
    let added = Order::ModelAdd { path: "/m".to_owned(), name: "m".to_owned(), digest };
    let request = format!("requests/{}", RequestId(0xfeed));
    let named = |name: &str| {
        Order::KeyCreate(wire::KeyRequest { name: name.to_owned(), ..Default::default() })
    };
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let submit = |anyway| Order::Federated(FederatedOrder::Submit("x".to_owned(), anyway));
    let check = |starts| Order::Federated(FederatedOrder::Check("x".to_owned(), starts));
    let piece = Order::Federated(FederatedOrder::Piece("digits".to_owned(), 3));
    let own = Order::Federated(FederatedOrder::Personal("digits".to_owned()));
    let reseat = Order::Federated(FederatedOrder::Reseat("digits".to_owned()));
    let cancel = Order::Federated(FederatedOrder::Cancel("digits".to_owned()));
    let table = [
        (&post, "invite", "", Order::Invite { ttl: Micros::secs(3_600) }),
        (&post, "invite", "{}", Order::Invite { ttl: Micros::secs(3_600) }),
        (&post, "invite", "{\"ttl_s\": 60}", Order::Invite { ttl: Micros::secs(60) }),
        (&get, "members", "", Order::Members),
        (&post, "revoke", &by_node, Order::Revoke(node)),
        (&post, "promote", &by_node, Order::Promote(node)),
        (&post, "root/rotate", "{}", Order::RotateRoot),
        (&post, "leave", "", Order::Leave),
        (&post, "keys", "{\"name\": \"a\"}", named("a")),
        (&get, "keys", "", Order::Keys),
        (&post, "models", &model, added),
        (&delete, "models/a/b", "", Order::ModelRemove("a/b".to_owned())),
        (&get, "federated", "", Order::Federated(FederatedOrder::List)),
        (&post, "federated", "{\"text\": \"x\"}", submit(false)),
        (&post, "federated", "{\"text\": \"x\", \"anyway\": true}", submit(true)),
        (&post, "federated-check", "{\"text\": \"x\"}", check(false)),
        (&post, "federated-check", "{\"text\": \"x\", \"starts\": true}", check(true)),
        (&delete, "federated/digits", "", cancel),
        (&post, "federated-anchors/digits", "", reseat),
        (&get, "federated-chain/digits/3", "", piece),
        (&get, "federated-personal/digits", "", own),
        (
            &get,
            "federated-name/digits",
            "",
            Order::Federated(FederatedOrder::Name("digits".into())),
        ),
        (&get, &request, "", Order::Record(RequestId(0xfeed))),
    ];
    for (method, path, body, wanted) in table {
        assert!(methods(path).expect(path).contains(method.as_str()), "{method} {path}");
        assert_eq!(order(method.clone(), path, body).await, Ok(wanted), "{method} {path}");
    }
}

#[tokio::test]
async fn routes_of_the_mesh_have_their_orders() {
    let (get, post) = (Method::GET, Method::POST);
    let (chat, gpt) = (wire::EntryKind::Name.key("a/*".to_owned()), "openai/gpt-5".to_owned());
    let gpt = wire::EntryKind::Model.key(gpt);
    let model = "{\"kind\": \"model\", \"name\": \"openai/gpt-5\", \"to\": \"3\"}";
    let third = Which::Labelled("3".to_owned());
    let table = [
        (&get, "mesh-routes", "", Order::MeshRoutes),
        (&post, "mesh-routes", "{\"text\": \"x\"}", Order::MeshRoutesSet("x".to_owned())),
        (&get, "mesh-routes/name/a/*", "", Order::MeshRouteHistory(chat.clone())),
        (&get, "mesh-routes/model/openai/gpt-5", "", Order::MeshRouteHistory(gpt.clone())),
        (&post, "mesh-routes/remove", "{\"name\": \"a/*\"}", Order::MeshRouteRemove(chat.clone())),
        (
            &post,
            "mesh-routes/rollback",
            "{\"name\": \"a/*\"}",
            Order::MeshRouteRollBack(chat, Which::Before),
        ),
        (&post, "mesh-routes/rollback", model, Order::MeshRouteRollBack(gpt, third)),
    ];
    for (method, path, body, wanted) in table {
        assert!(methods(path).expect(path).contains(method.as_str()), "{method} {path}");
        assert_eq!(order(method.clone(), path, body).await, Ok(wanted), "{method} {path}");
    }
    for path in ["mesh-routes/", "mesh-routes/name", "mesh-routes/name/", "mesh-routes/other/x"] {
        assert_eq!(methods(path), None, "{path}");
    }
    let to = "{\"name\": \"a\", \"to\": \"3\"}";
    assert!(order(post.clone(), "mesh-routes/remove", to).await.is_err());
}

#[tokio::test]
async fn accounts_and_budgets_have_their_orders() {
    let tenant = wire::TenantRequest { path: "a/b".to_owned(), title: "B".to_owned() };
    let budget = wire::BudgetRequest {
        path: "a".to_owned(),
        amount: "2.5 usd/day".to_owned(),
        scope: vec!["cloud".to_owned()],
        reclaimable: true,
        ..Default::default()
    };
    let amount = "2.50 usd/day".parse().expect("an amount");
    let (path, name) = ("a".to_owned(), "b".to_owned());
    let lower =
        wire::LowerRequest { path: path.clone(), name: name.clone(), limit: "5".to_owned() };
    let set = "{\"path\": \"a\", \"amount\": \"2.5 usd/day\", \"scope\": [\"cloud\"], \
               \"reclaimable\": true}";
    let named = "{\"path\": \"a\", \"name\": \"b\"}";
    let table = [
        ("tenants", "{\"path\": \"a/b\", \"title\": \"B\"}", Order::TenantCreate(tenant)),
        ("tenants/suspend", "{\"path\": \"a\"}", Order::TenantSuspend("a".to_owned())),
        ("budgets", set, Order::BudgetSet { request: budget, amount }),
        (
            "budgets/lower",
            "{\"path\": \"a\", \"name\": \"b\", \"limit\": \"5\"}",
            Order::BudgetLower(lower),
        ),
        ("budgets/remove", named, Order::BudgetRemove(wire::RemoveRequest { path, name })),
        ("budgets/renew", "{}", Order::BudgetRenew),
    ];
    for (path, body, wanted) in table {
        assert!(methods(path).expect(path).contains("POST"), "{path}");
        assert_eq!(order(Method::POST, path, body).await, Ok(wanted), "{path}");
    }
    assert_eq!(order(Method::GET, "tenants", "").await, Ok(Order::Tenants));
}

#[tokio::test]
async fn budgets_are_read_by_account() {
    let (script, stop) = (Script::hello(), Stop::new());
    for (path, account) in [("budgets", None), ("budgets/a/lower", Some("a/lower"))] {
        assert!(methods(path).expect(path).contains("GET"), "{path}");
        answer(&Method::GET, path, b"", script.as_ref(), &stop).await.expect(path);
        let asked = script.looked.lock().pop().expect("looked at");
        assert_eq!(asked.as_deref(), account);
    }
}

#[tokio::test]
async fn wrong_bodies_are_refused() {
    let table = [
        ("tenants", "{}"),
        ("federated", "{\"file\": \"x\"}"),
        ("federated-check", "{}"),
        ("budgets", "{\"path\": \"a\", \"amount\": \"5\"}"),
        ("budgets", "{\"path\": \"a\", \"amount\": \"5 usd/day\", \"limit\": 3}"),
        ("budgets/lower", "{\"path\": \"a\", \"name\": \"b\", \"limit\": 5}"),
        ("keys", "{\"name\": \"a\", \"models\": [\"m\"]}"),
        ("keys", "{\"name\": \"a\", \"account\": \"b\", \"routes\": [\"admin\"]}"),
        ("invite", "{\"ttl_s\": 0}"),
        ("invite", "{\"ttl_s\": 604801}"),
        ("invite", "{\"ttl\": 1}"),
        ("invite", "x"),
        ("revoke", ""),
        ("revoke", "{\"node\": \"me\"}"),
        ("promote", "{}"),
        ("root/rotate", "{\"force\": true}"),
        ("leave", "now"),
        ("keys", "{}"),
        // The fields in their order, which a decoder would take.
        ("cache/purge", "[null, null]"),
        ("routes", "[0, \"\"]"),
        ("providers", "{\"name\": \"a\", \"models\": [[\"m\"]]}"),
        ("providers", "{\"name\": \"a\", \"limits\": [1, 2, 3]}"),
        ("keys", "{\"name\": \"a\", \"name\": \"b\"}"),
        ("models", "{\"path\": \"/m\", \"name\": \"m\", \"digest\": \"abc\"}"),
    ];
    for (path, body) in table {
        let problem = order(Method::POST, path, body).await.expect_err(body);
        assert_eq!(problem.status.as_u16(), 400, "{path} {body}");
    }
    let problem = order(Method::GET, "requests/latest", "").await.expect_err("no id");
    assert_eq!(problem.param.as_deref(), Some("id"));
    let problem = order(Method::DELETE, "keys/ab", "").await.expect_err("the node's refusal");
    assert_eq!(problem.message, "ab");
}

#[tokio::test]
async fn shutdown_asks_for_the_end() {
    let (script, stop) = (Script::hello(), Stop::new());
    answer(&Method::POST, "shutdown", b"{}", script.as_ref(), &stop).await.expect("taken");
    assert!(stop.is_requested());
}

#[tokio::test]
async fn status_and_models_need_no_order() {
    let (script, stop) = (Script::hello(), Stop::new());
    for path in ["status", "models"] {
        answer(&Method::GET, path, b"", script.as_ref(), &stop).await.expect(path);
    }
    assert!(script.orders.lock().is_empty());
}
