//! What operators write and what is signed from it: books of routes and tables of providers.
//!
//! Holds: refused with a reason, or written as bytes and read back as the same.

use std::collections::BTreeMap;

use selvedge_core::catalogue::Catalogue;
use selvedge_core::routes::{Item, RouteBook, Routes};
use selvedge_core::upstream::RawProvider;
use selvedge_core::upstream::provider::check_all;

use super::{Target, none};

/// The names under which bytes are read as entries.
const NAME: &str = "chat";
const MODEL: &str = "openai/gpt-5";

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "file.routes",
        holds: "refused with a reason, or written as bytes and read back as the same",
        check: check_routes,
        shares: &[],
        seeds: none,
        words: &[
            "[[route]]\n",
            "[[target]]\n",
            "[[model]]\n",
            "name = \"*\"\n",
            "policy = \"weighted\"\n",
            "weight = 0\n",
            "[aliases]\n",
            "\"a\" = \"a\"\n",
            "1979-05-27T07:32:00Z",
            "inf",
            "nan",
            "\"\"\"",
            "'''",
            "{ a = { a = ",
        ],
    },
    Target {
        name: "file.routes.bytes",
        holds: "as the text's, for the signed bytes",
        check: check_bytes,
        shares: &[],
        seeds: entries,
        words: &[],
    },
    Target {
        name: "file.providers",
        holds: "refused with reasons that name a field, or written and read back as the same",
        check: check_providers,
        shares: &[],
        seeds: none,
        words: &[
            "\"kind\":\"bedrock\"",
            "\"base_url\":\"https://a:0/\"",
            "\"base_url\":\"http://[::1]:99999\"",
            "\"region\"",
            "\"keys\"",
            "\"models\"",
            "\"limits\"",
            "\"requests_per_minute\":0",
        ],
    },
];

fn check_routes(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match RouteBook::from_toml(&text) {
        Ok(book) => check_book(&book),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

fn check_bytes(bytes: &[u8]) {
    for key in [Item::key_of_name(NAME.to_owned()), Item::key_of_model(MODEL.to_owned())] {
        match Item::of_setting(&key, bytes) {
            Ok(item) => check_item(&item),
            Err(refused) => assert!(!refused.to_string().is_empty()),
        }
    }
}

/// An entry is written and read as the same, as bytes and as text.
fn check_item(item: &Item) {
    let Ok(bytes) = item.to_bytes() else { return };
    let again = Item::of_setting(&item.key(), &bytes);
    assert_eq!(again.as_ref(), Ok(item), "written and read, it is another");
}

fn check_book(book: &RouteBook) {
    let Ok(catalogue) = Catalogue::built_in() else { panic!("no catalogue") };
    let checked = Routes::check(book, &BTreeMap::new(), catalogue);
    if let Ok(routes) = checked {
        let names: Vec<String> = routes.names().collect();
        assert_eq!(names.len(), book.routes.len() + book.aliases.len(), "{names:?}");
    }
    Item::all_of(book).iter().for_each(check_item);
}

/// Entries as bytes, under the names that are tried.
fn entries() -> Vec<Vec<u8>> {
    let text = format!(
        "[[route]]\nname = \"{NAME}\"\npolicy = \"fixed\"\n[[route.target]]\nmesh = \"m\"\n\
         [[model]]\nkind = \"openai\"\nid = \"gpt-5\"\nprice = {{ input = 7 }}\n"
    );
    let Ok(book) = RouteBook::from_toml(&text) else { panic!("not a book: {text}") };
    Item::all_of(&book).iter().filter_map(|item| item.to_bytes().ok()).collect()
}

fn check_providers(json: &[u8]) {
    let Ok(raw) = serde_json::from_slice::<Vec<RawProvider>>(json) else { return };
    match check_all(&raw) {
        Ok(specs) => assert_eq!(specs.len(), raw.len()),
        Err(errors) => {
            assert!(!errors.is_empty() && errors.iter().all(|error| !error.to_string().is_empty()));
        }
    }
    let written = serde_json::to_vec(&raw).unwrap_or_else(|error| panic!("not written: {error}"));
    let again = serde_json::from_slice::<Vec<RawProvider>>(&written)
        .unwrap_or_else(|error| panic!("written, but not read: {error}"));
    assert_eq!(again, raw, "written and read, it is another");
}
