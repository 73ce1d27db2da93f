//! `selvedge models quantize`: a model file in another form, and what that costs and brings.
//!
//! Owns the files and the table. The forms and the measures are the engine's.

use std::fs::File;
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use selvedge_engine::{EngineError, Gauge, Mixture, Quantized, Recipe, SHARES, quantize};
use selvedge_net::clock;
use serde_json::json;

use crate::cli;
use crate::home::Home;
use crate::pull::Store;
use crate::ui::{self, Ink, Progress, bytes_text, paint_err};

/// Tokens that are written to see how fast: a second or two of the default model.
const WRITTEN: usize = 64;
/// A text to measure with: its first part is read, and nobody measures with books.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Writes a model in another form.
pub(super) fn run(home: &Home, options: &cli::Quantize) -> Result<()> {
    let mixture: Mixture = options.kind.parse()?;
    let from = source(home, &options.from)?;
    let to = &options.to;
    may_be_written(&from, to, options.force)?;
    if options.measure.is_some() && from.is_dir() {
        bail!(
            "--measure compares two files that run here, and a directory is none: write it as F16 \
             first, then quantize that file"
        );
    }
    let text = options.measure.as_deref().map(read_text).transpose()?;
    let recipe = Recipe { mixture, again: options.again };
    let found = write((&from, to), recipe, options.force)?;
    let measured = text.map(|text| -> Result<_> {
        Ok([measure(&from, &text, options)?, measure(to, &text, options)?])
    });
    let unmeasured = || format!("{} is written, but could not be measured", to.display());
    let measured = measured.transpose().with_context(unmeasured)?;
    if options.json {
        ui::out(format_args!("{:#}", as_value(&found, mixture, measured.as_ref())));
        return Ok(());
    }
    show(&found, (&from, to), mixture, measured.as_ref());
    if options.pruning {
        show_pruning(&found);
    }
    ui::note(format_args!("Next: `selvedge models pull {}`", absolute(to).display()));
    Ok(())
}

/// A file, or the file of a model of this home.
fn source(home: &Home, from: &str) -> Result<PathBuf> {
    let path = Path::new(from);
    if path.exists() {
        return Ok(path.to_owned());
    }
    // What is no name is no model's name.
    match Store::of(home).find(from).ok().flatten() {
        Some(stored) => Ok(stored.path),
        None => bail!(
            "{from} is no file, no directory and no model of this home; `selvedge models list` \
             lists them"
        ),
    }
}

/// Refuses a place where there is something that is not to be written over.
fn may_be_written(from: &Path, to: &Path, force: bool) -> Result<()> {
    if to.is_dir() || to.file_name().is_none() {
        bail!("'{}' is a directory; name the file to write", to.display());
    }
    if same(from, to) {
        bail!("{} would be written over itself; name another file", from.display());
    }
    // Not what a link leads to: the link is what would go.
    if to.symlink_metadata().is_err() {
        return Ok(());
    }
    if !force {
        bail!("{} exists; name another file, or add --force", to.display());
    }
    // A device would be gone until the machine starts anew.
    if to.exists() && !to.is_file() {
        bail!("{} is no file, and --force writes over files alone", to.display());
    }
    let beside = to.parent().is_some_and(|parent| same(from, whole(parent)));
    if beside && !is_gguf(to) {
        bail!(
            "{} belongs to the directory that is read; name another file, one that ends in .gguf",
            to.display()
        );
    }
    Ok(())
}

/// A parent of nothing is the directory at hand.
fn whole(parent: &Path) -> &Path {
    if parent.as_os_str().is_empty() { Path::new(".") } else { parent }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

fn same(from: &Path, to: &Path) -> bool {
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(from), Ok(to)) => from == to,
        _ => false,
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn read_text(path: &Path) -> Result<String> {
    let size =
        std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if size.len() > MAX_TEXT_BYTES {
        bail!(
            "{} has {}; a text to measure with has {} at most",
            path.display(),
            bytes_text(size.len()),
            bytes_text(MAX_TEXT_BYTES)
        );
    }
    std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {} as text in UTF-8", path.display()))
}

/// Writes beside the file and puts it in its place when it is whole: nobody finds half a model.
fn write((from, to): (&Path, &Path), recipe: Recipe, force: bool) -> Result<Quantized> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let cannot = || format!("cannot write {}", part.display());
    // Never what somebody else has there: it may be another run's, or no file of ours at all.
    let file = match File::options().write(true).create_new(true).open(&part) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} exists: another run writes it, or one was interrupted; remove it if not",
            part.display()
        ),
        opened => opened.with_context(cannot)?,
    };
    let written = quantized(from, (&file, to), recipe).and_then(|found| {
        file.sync_all().with_context(cannot)?;
        // Nobody is handed a file that a node would refuse.
        Gauge::check(&part).context("what was written is no model that runs here")?;
        // Minutes have gone by since this was asked first.
        may_be_written(from, to, force)?;
        std::fs::rename(&part, to).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(found)
    });
    if written.is_err() {
        // What failed is said; a file that cannot be removed either is the smaller trouble.
        let _removed = std::fs::remove_file(&part);
    }
    written
}

fn quantized(from: &Path, (file, to): (&File, &Path), recipe: Recipe) -> Result<Quantized> {
    let mut progress = Progress::bytes("quantized", None);
    let found = quantize(from, BufWriter::new(file), recipe, &mut |done, all| {
        progress.set_total(Some(all));
        progress.at(done);
    });
    progress.done();
    match found {
        Err(EngineError::Quantized { .. }) => {
            found.map_err(anyhow::Error::from).context("add --again to quantize it all the same")
        }
        Err(EngineError::Written(error)) => Err(error).with_context(|| {
            format!("cannot write {}; make room, or name a file elsewhere", to.display())
        }),
        found => Ok(found?),
    }
}

/// How well and how fast a file does.
struct Measured {
    perplexity: f64,
    tokens: usize,
    read_per_second: f64,
    written_per_second: f64,
}

fn measure(path: &Path, text: &str, options: &cli::Quantize) -> Result<Measured> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let what = format!("measured {}", path.display());
    let mut gauge = Gauge::open(path, threads)?;
    let bar = ui::bar(u64::from(options.tokens), "{bar:28.cyan/blue} {pos}/{len} tokens  {eta}");
    let begun = clock::mono();
    let gauged = gauge.foretell(text, options.tokens as usize, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    let read = clock::mono();
    let count = gauge.write(text, WRITTEN)?;
    let wrote = clock::mono();
    bar.finish_and_clear();
    ui::note(what);
    let rate = |count: usize, micros: u64| count as f64 * 1e6 / micros.max(1) as f64;
    Ok(Measured {
        perplexity: gauged.perplexity,
        tokens: gauged.tokens,
        read_per_second: rate(gauged.tokens, read.since(begun).0),
        written_per_second: rate(count, wrote.since(read).0),
    })
}

fn show(
    found: &Quantized,
    (from, to): (&Path, &Path),
    mixture: Mixture,
    measured: Option<&[Measured; 2]>,
) {
    ui::out(format_args!(
        "{} {} as {mixture}: {}",
        paint_err(Ink::Green, "wrote"),
        from.display(),
        to.display()
    ));
    let row = |cells: [String; 4]| cells.to_vec();
    let mut rows = vec![row(["", "before", "after", ""].map(str::to_owned))];
    let smaller = found.bytes_before as f64 / found.bytes_after.max(1) as f64;
    rows.push(row([
        "size".to_owned(),
        bytes_text(found.bytes_before),
        bytes_text(found.bytes_after),
        format!("{smaller:.2} times smaller"),
    ]));
    if let Some([before, after]) = measured {
        let change = (after.perplexity / before.perplexity - 1.0) * 100.0;
        rows.push(row([
            "perplexity".to_owned(),
            format!("{:.3}", before.perplexity),
            format!("{:.3}", after.perplexity),
            format!("{change:+.2} % on {} tokens", after.tokens),
        ]));
        for (what, rate) in [
            ("reads", (before.read_per_second, after.read_per_second)),
            ("writes", (before.written_per_second, after.written_per_second)),
        ] {
            rows.push(row([
                what.to_owned(),
                format!("{:.0}/s", rate.0),
                format!("{:.0}/s", rate.1),
                format!("{:.2} times as fast", rate.1 / rate.0),
            ]));
        }
    }
    ui::out(ui::table(&rows));
    let worst = found.tensors.iter().max_by(|a, b| a.error.total_cmp(&b.error));
    if let Some(worst) = worst.filter(|worst| worst.error > 0.0) {
        ui::out(format_args!(
            "most is lost of {} ({} to {}): {:.1} % of its length",
            worst.name,
            worst.from,
            worst.to,
            worst.error * 100.0
        ));
    }
}

fn show_pruning(found: &Quantized) {
    ui::out("if the smallest weights of all matrices became nothing (they do not):");
    for (share, lost) in SHARES.iter().zip(found.pruned) {
        ui::out(format_args!("  {share} % of them: {:.2} % of the length lost", lost * 100.0));
    }
}

fn as_value(
    found: &Quantized,
    mixture: Mixture,
    measured: Option<&[Measured; 2]>,
) -> serde_json::Value {
    let tensors: Vec<_> = found
        .tensors
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "from": tensor.from,
                "to": tensor.to,
                "elements": tensor.elements,
                "error": tensor.error,
            })
        })
        .collect();
    let told = |one: &Measured| {
        json!({
            "perplexity": one.perplexity,
            "tokens": one.tokens,
            "read_per_second": one.read_per_second,
            "written_per_second": one.written_per_second,
        })
    };
    let pruned: Vec<_> = SHARES
        .iter()
        .zip(found.pruned)
        .map(|(share, lost)| json!({ "percent": share, "lost": lost }))
        .collect();
    json!({
        "type": mixture.to_string(),
        "bytes_before": found.bytes_before,
        "bytes_after": found.bytes_after,
        "before": measured.map(|[before, _]| told(before)),
        "after": measured.map(|[_, after]| told(after)),
        "pruning": pruned,
        "tensors": tensors,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn only_files_that_are_not_read_are_written_over_and_only_when_asked() {
        let scratch = Scratch::new("quantize");
        let place = |name: &str| scratch.path().join(name);
        let (from, other, weights) = (place("a.gguf"), place("b.gguf"), place("model.safetensors"));
        for file in [&from, &other, &weights] {
            std::fs::write(file, "GGUF").unwrap();
        }
        std::os::unix::fs::symlink(&from, place("link")).unwrap();
        std::os::unix::fs::symlink(place("nowhere"), place("dangling")).unwrap();
        let said = |from: &Path, to: &Path, force| {
            may_be_written(from, to, force).map_err(|error| error.to_string()).err()
        };
        let refused = |from: &Path, to: &Path, force, expected: &str| {
            let said = said(from, to, force).unwrap();
            assert!(said.contains(expected), "{said}");
        };
        assert_eq!(said(&from, &place("new.gguf"), false), None);
        refused(&from, &other, false, "--force");
        assert_eq!(said(&from, &other, true), None);
        refused(&from, &from, true, "over itself");
        refused(&from, &place("link"), true, "over itself");
        refused(&other, &place("link"), false, "--force");
        refused(&from, &place("dangling"), false, "--force");
        assert_eq!(said(&from, &place("dangling"), true), None);
        refused(&from, scratch.path(), true, "is a directory");
        refused(&from, Path::new(""), true, "is a directory");
        refused(&from, Path::new("/dev/null"), true, "is no file");
        // Of a directory that is read its own files stay.
        refused(scratch.path(), &weights, true, "belongs to the directory");
        assert_eq!(said(scratch.path(), &other, true), None);
        assert_eq!(said(scratch.path(), &place("new"), false), None);
    }
}
