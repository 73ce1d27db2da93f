//! Where a model can come from.
//!
//! Owns the texts people type for it and the places those stand for. Every part of a text that
//! later becomes an argument, an address or a file name is checked here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};

use super::builtin::BuiltIn;
use super::folder::BuiltInFolder;

/// What a person typed: a built-in model, or one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    BuiltIn(&'static BuiltIn),
    /// A built-in model that is a directory.
    Folder(&'static BuiltInFolder),
    At(Place),
}

/// One place a file can be fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file in a repository on the model hub.
    Hub { owner: String, repo: String, revision: String, file: String },
    /// Any address.
    Url(String),
    /// A file on this machine.
    File(PathBuf),
    /// A file inside a Python package's wheel.
    Package { package: String, version: Option<String>, file: String },
}

impl Source {
    pub(crate) const fn built_in(&self) -> Option<&'static BuiltIn> {
        match self {
            Self::BuiltIn(built_in) => Some(built_in),
            Self::At(_) | Self::Folder(_) => None,
        }
    }

    /// Where to look, best first.
    pub(crate) fn places(&self) -> Vec<Place> {
        match self {
            Self::BuiltIn(built_in) => built_in.places(),
            Self::Folder(_) => Vec::new(),
            Self::At(place) => vec![place.clone()],
        }
    }

    /// What to call the model when the person does not say.
    pub(crate) fn default_name(&self) -> String {
        let file = match self {
            Self::BuiltIn(built_in) => return built_in.name.to_owned(),
            Self::Folder(folder) => return folder.name.to_owned(),
            Self::At(Place::Hub { file, .. } | Place::Package { file, .. }) => file.clone(),
            Self::At(Place::Url(url)) => {
                url.split(['?', '#']).next().unwrap_or_default().to_owned()
            }
            Self::At(Place::File(path)) => path.to_string_lossy().into_owned(),
        };
        let file = file.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
        let stem =
            file.strip_suffix(".gguf").or_else(|| file.strip_suffix(".onnx")).unwrap_or(&file);
        let tidy = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        stem.chars().map(tidy).collect::<String>().trim_matches(['-', '.']).to_owned()
    }
}

impl Place {
    /// The address of a place that has one.
    pub(crate) fn url(&self, hub: &str) -> Option<String> {
        match self {
            Self::Hub { owner, repo, revision, file } => {
                Some(format!("{hub}/{owner}/{repo}/resolve/{revision}/{file}"))
            }
            Self::Url(url) => Some(url.clone()),
            Self::File(_) | Self::Package { .. } => None,
        }
    }

    /// Tells places apart in file names, so that no part is continued from elsewhere.
    pub(crate) fn key(&self) -> String {
        let text = match self {
            // As typed: what is left out on a screen may select another file.
            Self::Url(url) => url.clone(),
            Self::Hub { .. } | Self::File(_) | Self::Package { .. } => self.to_string(),
        };
        blake3::hash(text.as_bytes()).to_hex()[..12].to_owned()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(built_in) => f.write_str(built_in.name),
            Self::Folder(folder) => f.write_str(folder.name),
            Self::At(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { owner, repo, revision, file } if revision == "main" => {
                write!(f, "hf:{owner}/{repo}/{file}")
            }
            Self::Hub { owner, repo, revision, file } => {
                write!(f, "hf:{owner}/{repo}@{revision}/{file}")
            }
            Self::Url(url) => f.write_str(&without_credentials(url)),
            Self::File(path) => path.display().fmt(f),
            Self::Package { package, version, file } => {
                let version = version.as_ref().map_or(String::new(), |v| format!("=={v}"));
                write!(f, "pip:{package}{version}/{file}")
            }
        }
    }
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(built_in) = BuiltIn::find(text) {
            return Ok(Self::BuiltIn(built_in));
        }
        if let Some(folder) = BuiltInFolder::find(text) {
            return Ok(Self::Folder(folder));
        }
        Ok(Self::At(if let Some(rest) = text.strip_prefix("hf:") {
            hub(text, rest)?
        } else if let Some(rest) = text.strip_prefix("pip:") {
            package(text, rest)?
        } else if text.starts_with("https://") || text.starts_with("http://") {
            if text.contains(char::is_whitespace) || text.len() > MAX_URL_BYTES {
                bail!("'{text}' is not an address");
            }
            Place::Url(text.to_owned())
        } else if text.contains('/') || text.ends_with(".gguf") || text.ends_with(".onnx") {
            Place::File(std::path::absolute(text)?)
        } else {
            bail!(
                "'{text}' is no model this program knows by name (it knows: {}) and no source; \
                 sources look like hf:OWNER/REPO/FILE, https://…, /path/to/file.gguf or \
                 pip:PACKAGE/FILE",
                [BuiltIn::names(), BuiltInFolder::names()].join(", ")
            );
        }))
    }
}

/// Longer ones are refused by most servers.
const MAX_URL_BYTES: usize = 8_000;

fn hub(text: &str, rest: &str) -> Result<Place> {
    let mut pieces = rest.splitn(3, '/');
    let (Some(owner), Some(repo), Some(file)) = (pieces.next(), pieces.next(), pieces.next())
    else {
        bail!("'{text}' lacks a part: expected hf:OWNER/REPO/FILE");
    };
    let (repo, revision) = repo.split_once('@').unwrap_or((repo, "main"));
    if ![owner, repo, revision].iter().all(|piece| is_plain(piece)) || !is_plain_path(file) {
        bail!("'{text}' has unusual characters: expected hf:OWNER/REPO/FILE");
    }
    Ok(Place::Hub {
        owner: owner.to_owned(),
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        file: file.to_owned(),
    })
}

fn package(text: &str, rest: &str) -> Result<Place> {
    let Some((package, file)) = rest.split_once('/') else {
        bail!("'{text}' lacks the file: expected pip:PACKAGE/PATH/IN/THE/PACKAGE.gguf");
    };
    let (package, version) = match package.split_once("==") {
        Some((package, version)) => (package, Some(version)),
        None => (package, None),
    };
    if !is_plain(package) || !version.is_none_or(is_plain) || !is_plain_path(file) {
        bail!("'{text}' has unusual characters: expected pip:PACKAGE==VERSION/FILE");
    }
    Ok(Place::Package {
        package: package.to_owned(),
        version: version.map(ToOwned::to_owned),
        file: file.to_owned(),
    })
}

/// A name that is safe as an argument, in an address and in a path: it begins with a letter or
/// digit, so it is no option and no `..`.
fn is_plain(piece: &str) -> bool {
    piece.len() <= 128
        && piece.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && piece.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
}

fn is_plain_path(path: &str) -> bool {
    path.split('/').all(is_plain)
}

/// An address as it may be shown and stored: without user, password, query and fragment.
fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn every_kind_of_source_is_understood() {
        assert!(parsed("smollm2-135m-instruct").built_in().is_some());
        let hub = parsed("hf:Owner/Repo-GGUF/Model.Q4_K_M.gguf");
        assert_eq!(
            hub.places()[0].url("http://h").unwrap(),
            "http://h/Owner/Repo-GGUF/resolve/main/Model.Q4_K_M.gguf"
        );
        assert_eq!(hub.default_name(), "model.q4_k_m");
        assert_eq!(parsed(&hub.to_string()), hub);
        let pinned = parsed("hf:o/r@abc123/sub/f.gguf");
        assert!(pinned.places()[0].url("http://h").unwrap().ends_with("/abc123/sub/f.gguf"));
        assert_eq!(parsed(&pinned.to_string()), pinned);
        let wheel = parsed("pip:some-package==1.2.3/pkg/m.gguf");
        assert_eq!(
            wheel,
            Source::At(Place::Package {
                package: "some-package".into(),
                version: Some("1.2.3".into()),
                file: "pkg/m.gguf".into()
            })
        );
        assert_eq!(parsed("/tmp/My Model.gguf").default_name(), "my-model");
        assert_eq!(parsed("https://h/a/B.gguf?sig=1#x").default_name(), "b");
        assert!(matches!(parsed("m.gguf"), Source::At(Place::File(path)) if path.is_absolute()));
    }

    #[test]
    fn texts_that_could_do_something_else_are_refused() {
        for wrong in [
            "nonesuch",
            "hf:owner/repo",
            "hf:../../etc/passwd",
            "hf:owner/repo/../../x",
            "hf:owner/repo?x/f",
            "pip:-rrequirements.txt/x",
            "pip:--index-url=x/y",
            "pip:package",
            "pip:pkg==1;rm/x",
            "pip:pkg/../x",
            "https://host/a b",
        ] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong} was taken");
        }
        let error = "nonesuch".parse::<Source>().unwrap_err().to_string();
        assert!(error.contains("smollm2-135m-instruct"), "{error}");
    }

    #[test]
    fn credentials_are_not_shown() {
        let text = parsed("https://user:pass@host/dir/m.gguf?token=secret").to_string();
        assert_eq!(text, "https://host/dir/m.gguf");
    }
}
