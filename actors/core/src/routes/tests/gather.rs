//! What is in force of a node's own entries and those of the mesh, and what of them is told.

use proptest::prelude::*;

use super::*;

fn items(text: &str) -> Vec<Item> {
    Item::all_of(&RouteBook::from_toml(text).unwrap())
}

fn gather(own: &str, shared: &str) -> Gathered {
    Routes::gather(&items(own), &items(shared), &providers(), Catalogue::built_in().unwrap())
}

fn to(name: &str, target: &str) -> String {
    let target = match target.split_once('/') {
        None => format!("mesh = \"{target}\""),
        Some((provider, model)) => format!("provider = \"{provider}\"\nmodel = \"{model}\""),
    };
    format!("[[route]]\nname = \"{name}\"\npolicy = \"fixed\"\n[[route.target]]\n{target}\n")
}

fn answers(gathered: &Gathered, name: &str) -> Option<String> {
    let decision = gathered.routes.decide(&request(name), &facts(), NOW)?;
    Some(decision.verdicts[0].model.clone())
}

fn trouble(notes: &BTreeMap<SettingKey, Trouble>, name: &str) -> String {
    notes[&Item::key_of_name(name.to_owned())].as_str().to_owned()
}

use selvedge_proto::settings::SettingKey;

#[test]
fn both_count_and_a_nodes_own_come_first() {
    let aliases = "[aliases]\nquick = \"chat\"\n";
    let gathered = gather(
        &to("chat", "small"),
        &format!("{aliases}{}{}", to("chat", "large"), to("code", "large")),
    );
    assert_eq!(answers(&gathered, "chat").as_deref(), Some("small"));
    assert_eq!(answers(&gathered, "quick").as_deref(), Some("small"));
    assert_eq!(answers(&gathered, "code").as_deref(), Some("large"));
    assert!(gathered.own.is_empty());
    assert_eq!(gathered.shared.len(), 1);
    let key = Item::key_of_name("chat".to_owned());
    assert_eq!(gathered.shared[&key], Trouble::Shadowed);
}

#[test]
fn a_target_whose_provider_is_not_here_is_left_out_and_said() {
    let both = "[[route]]\nname = \"chat\"\npolicy = \"fallback\"\n\
                [[route.target]]\nprovider = \"elsewhere\"\nmodel = \"big\"\n\
                [[route.target]]\nmesh = \"small\"\n";
    let gathered = gather("", &format!("{both}{}", to("only", "elsewhere/big")));
    assert_eq!(answers(&gathered, "chat").as_deref(), Some("small"));
    assert_eq!(answers(&gathered, "only"), None);
    assert!(trouble(&gathered.shared, "chat").contains("provider 'elsewhere' is unknown"));
    assert!(trouble(&gathered.shared, "only").contains("provider 'elsewhere' is unknown"));

    let rising = "[[route]]\nname = \"chat\"\npolicy = { small-first = {} }\n\
                  [[route.target]]\nmesh = \"small\"\nup_to = 20\n\
                  [[route.target]]\nprovider = \"elsewhere\"\nmodel = \"big\"\n";
    assert_eq!(answers(&gather("", rising), "chat").as_deref(), Some("small"));
}

#[test]
fn what_is_wrong_takes_nothing_else_with_it() {
    let shared = "[aliases]\nlost = \"nowhere\"\nround = \"about\"\nabout = \"round\"\n\
                  good = \"chat\"\n\
                  [[model]]\nkind = \"openai\"\nid = \"undated\"\n\
                  [[model]]\nkind = \"openai\"\nid = \"gpt-5\"\nprice = { input = 7 }\n\
                  [[route]]\nname = \"bad\"\npolicy = \"fixed\"\n";
    let gathered = gather("", &format!("{shared}{}", to("chat", "small")));
    assert_eq!(answers(&gathered, "good").as_deref(), Some("small"));
    for name in ["lost", "round", "about", "bad"] {
        assert!(matches!(gathered.shared[&Item::key_of_name(name.to_owned())], Trouble::Out(_)));
        assert_eq!(answers(&gathered, name), None);
    }
    let undated = Item::key_of_model("openai/undated".to_owned());
    assert!(gathered.shared[&undated].as_str().contains("as_of"));
    assert_eq!(gathered.shared.len(), 5);
    let found = gathered.routes.catalogue().find(ProviderKind::OpenAi, "gpt-5").unwrap();
    let known = Catalogue::built_in().unwrap().find(ProviderKind::OpenAi, "gpt-5").unwrap();
    assert_ne!(found.model().price, known.model().price);
}

/// A bad alias of this node's own does not take away the mesh's of that name.
#[test]
fn an_own_entry_that_cannot_be_used_shadows_nothing() {
    let own = "[aliases]\nquick = \"code*\"\n";
    let shared = format!("[aliases]\nquick = \"chat\"\n{}", to("chat", "small"));
    let gathered = gather(own, &shared);
    assert_eq!(answers(&gathered, "quick").as_deref(), Some("small"));
    assert!(gathered.shared.is_empty() && gathered.own.len() == 1);
}

#[test]
fn an_entry_travels_as_bytes_and_says_its_own_name() {
    let text = "[aliases]\na = \"r\"\n[[route]]\nname = \"r\"\n\
                policy = { weighted = { by = \"user\" } }\n[[route.target]]\nmesh = \"small\"\n\
                weight = 3\n[[model]]\nkind = \"openai\"\nid = \"gpt-5\"\nprice = { input = 7 }\n";
    let all = items(text);
    assert_eq!(all.len(), 3);
    for item in &all {
        let (key, bytes) = (item.key(), item.to_bytes().unwrap());
        assert_eq!(bytes[0], ITEM_VERSION);
        assert_eq!(Item::of_setting(&key, &bytes).as_ref(), Ok(item));
        for cut in 0..bytes.len() {
            assert!(Item::of_setting(&key, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes.clone();
        newer[0] += 1;
        let error = Item::of_setting(&key, &newer).unwrap_err();
        assert_eq!(error, RouteError::Newer { kind: key.kind, version: 2 });
        let unheard = SettingKey { kind: 77, ..key.clone() };
        let error = Item::of_setting(&unheard, &bytes).unwrap_err();
        assert_eq!(error, RouteError::Newer { kind: 77, version: 1 });
    }
    let other = Item::key_of_name("other".to_owned());
    let route = all.iter().find(|item| item.kind() == "route").unwrap();
    let error = Item::of_setting(&other, &route.to_bytes().unwrap()).unwrap_err();
    assert!(error.to_string().contains("it says 'r'"), "{error}");
    assert_eq!(items(&Item::to_toml(&all).unwrap()), all);
}

/// The bytes are what is signed: they must not change under an unchanged version.
#[test]
fn the_bytes_of_version_1_stay_what_they_are() {
    let all = items(&format!("[aliases]\na = \"r\"\n{}", to("r", "m")));
    let route: &[u8] = &[
        1, 1, 1, // The content's version; the codec's version and format.
        0, 1, b'r', 0, 0, 0, 0, // A route: name, policy, needs, min_context, keep_budget.
        1, 1, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 0, // One target: mesh; nothing else.
    ];
    assert_eq!(all[0].to_bytes().unwrap(), route);
    assert_eq!(all[1].to_bytes().unwrap(), [1, 1, 1, 1, 1, b'r']);
}

proptest! {
    /// Whatever entries there are, what is in force can be asked for, and all else is told.
    #[test]
    fn every_entry_is_in_force_or_told(
        own in proptest::collection::btree_map("[a-e]", "[a-e*]", 0..4),
        shared in proptest::collection::btree_map("[a-e]", "[a-e*]", 0..6),
        route in "[a-e]",
    ) {
        let alias = |(name, to): (String, String)| Item::Alias { name, to };
        let own: Vec<Item> = own.into_iter().map(alias).collect();
        let mut all: Vec<Item> = shared.into_iter().map(alias).collect();
        all.retain(|item| item.key().name != route);
        all.extend(items(&to(&route, "small")));
        let base = Catalogue::built_in().unwrap();
        let gathered = Routes::gather(&own, &all, &providers(), base);
        for (items, notes) in [(&own, &gathered.own), (&all, &gathered.shared)] {
            for item in items {
                let name = item.key().name;
                let answered = answers(&gathered, &name).is_some();
                match notes.get(&item.key()) {
                    None => prop_assert!(answered, "{name} is in force"),
                    Some(Trouble::Shadowed | Trouble::Out(_) | Trouble::Partly(_)) => {}
                }
            }
        }
        for name in gathered.routes.names() {
            prop_assert!(answers(&gathered, &name).is_some(), "{name} leads somewhere");
        }
    }
}
