//! `selvedge fed model export`: the model of a job and the chain that proves it, as files.
//!
//! The node hands out the chain piece by piece; the model is what the chain makes of the first
//! weights, worked out here. So what is written is proven, whatever the node said. A node's own
//! model, which epidemic mode makes, is written as the node gives it: nothing proves it.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_runtime::{TrainedModel, verify_chain};

use super::escaped;
use crate::client::Client;
use crate::http::wire;
use crate::ui;

/// What PEFT calls the description beside an adapter, whatever the adapter's file is called here.
const PEFT_CONFIG: &str = "adapter_config.json";

/// Writes both files; where a language model was tuned, a third.
pub(super) fn export(client: &Client, name: &str, file: &Path) -> Result<()> {
    let jobs: wire::List<wire::FederatedJob> = client.get("/admin/federated")?;
    let Some(job) = jobs.data.into_iter().find(|job| job.name == name) else {
        bail!("there is no job '{name}'; `selvedge fed status` lists them");
    };
    may_be_written(&job)?;
    let chain = file.with_extension("chain");
    if chain == file {
        bail!("the model needs another extension than .chain, which its chain gets");
    }
    fetch(client, &job, &chain)?;
    let opened = File::open(&chain).with_context(|| format!("cannot read {}", chain.display()))?;
    let verified = verify_chain(BufReader::new(opened))
        .with_context(|| format!("what the node gave proves nothing: {}", chain.display()))?;
    let model = TrainedModel::of(name, &verified.told, &verified.tip)?;
    let peft = model.subject.as_tuning().map(|tuning| tuning.peft_config());
    let config = file.with_file_name(PEFT_CONFIG);
    if let Some(peft) = &peft {
        check_place(&config, peft)?;
    }
    std::fs::write(file, model.to_bytes()?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    if let Some(peft) = peft {
        std::fs::write(&config, peft)
            .with_context(|| format!("cannot write {}", config.display()))?;
        ui::out(format_args!("wrote {}, which PEFT reads beside it", config.display()));
    }
    let rounds = verified.tip.round;
    ui::out(format_args!("wrote {} after {rounds} of {} rounds", file.display(), job.rounds));
    ui::out(format_args!("wrote {}, which proves it", chain.display()));
    Ok(())
}

/// Refuses a job whose model nobody trained yet.
fn may_be_written(job: &wire::FederatedJob) -> Result<()> {
    let name = &job.name;
    if let Some(why) = &job.not_here {
        bail!("the job '{name}' does not run at this node: {why}");
    }
    if job.round == 0 {
        bail!(
            "no round of '{name}' is over at this node, so its weights are as they were drawn: \
             `selvedge fed watch {name}` shows when the first one is"
        );
    }
    Ok(())
}

/// Refuses a directory whose description is another adapter's, or was edited: PEFT knows one of a
/// directory, and the other adapter would be read by this one's.
fn check_place(config: &Path, text: &str) -> Result<()> {
    let known = match std::fs::read(config) {
        Ok(known) => known,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", config.display()));
        }
    };
    if known == text.as_bytes() {
        return Ok(());
    }
    bail!(
        "{} is there already and says something else, of another adapter or by another hand: \
         export into a directory of its own, or move that file away",
        config.display()
    );
}

/// Writes this node's own model of a job.
pub(super) fn personal(client: &Client, name: &str, file: &Path) -> Result<()> {
    let path = format!("/admin/federated-personal/{}", escaped(name));
    let told: wire::FederatedPiece = client.get(&path)?;
    let Some(text) = told.base64 else {
        bail!(
            "this node has no model of its own for '{name}': a job with [epidemic] makes one where \
             no round ends"
        );
    };
    std::fs::write(file, STANDARD.decode(text)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    ui::out(format_args!("wrote {}, which is this node's own: no chain proves it", file.display()));
    Ok(())
}

fn fetch(client: &Client, job: &wire::FederatedJob, chain: &Path) -> Result<()> {
    let failed = || format!("cannot write {}", chain.display());
    let mut to = BufWriter::new(File::create(chain).with_context(failed)?);
    let bar = ui::bar(job.round, "{bar:30} {pos} of {len} rounds");
    // The beginning, and the end of each round that was over when the job was looked at.
    for piece in 0..=job.round {
        let path = format!("/admin/federated-chain/{}/{piece}", escaped(&job.name));
        let told: wire::FederatedPiece = client.get(&path)?;
        let Some(text) = told.base64 else {
            bail!("round {piece} is not at this node any more: was the job cancelled?");
        };
        to.write_all(&STANDARD.decode(text)?).with_context(failed)?;
        bar.set_position(piece);
    }
    to.flush().with_context(failed)?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_trained_yet_is_not_written() -> Result<()> {
        let job = |round| wire::FederatedJob {
            name: "wear".to_owned(),
            round,
            rounds: 60,
            ..wire::FederatedJob::default()
        };
        let refused = may_be_written(&job(0)).err().context("refused")?.to_string();
        assert!(refused.contains("`selvedge fed watch wear` shows when"), "{refused}");
        let not_here = Some("32 jobs run here already".to_owned());
        let refused = may_be_written(&wire::FederatedJob { not_here, ..job(1) }).err();
        let refused = refused.context("refused")?.to_string();
        assert!(refused.ends_with("32 jobs run here already"), "{refused}");
        may_be_written(&job(1))
    }

    #[test]
    fn the_description_of_another_adapter_stays() -> Result<()> {
        let name = format!("selvedge-export-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        let config = folder.join(PEFT_CONFIG);
        check_place(&config, "{ \"r\": 8 }")?;
        std::fs::write(&config, "{ \"r\": 8 }")?;
        check_place(&config, "{ \"r\": 8 }")?;
        let refused = check_place(&config, "{ \"r\": 4 }").err().context("refused")?;
        let refused = refused.to_string();
        assert!(refused.contains("export into a directory of its own"), "{refused}");
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }
}
