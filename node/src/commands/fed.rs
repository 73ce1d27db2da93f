//! `selvedge fed`: learning across nodes.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use selvedge_federated::fixed::MODEL_BITS;
use selvedge_federated::privacy::accountant::MicroEpsilon;
use selvedge_federated::round::{Guard, Job, Mode};
use selvedge_runtime::{BaseModel, DataParts, JobSpec, custody};
use selvedge_train::{Requests, Source, Subject, Tuner, Tuning, read};

mod export;
mod fits;
mod show;
mod verify;
mod watch;

use super::keys::escaped;
use crate::bridge::method;
use crate::cli;
use crate::client::Client;
use crate::config::Config;
use crate::home::{Contact, Home};
use crate::http::wire;
use crate::pull::{Store, Stored};
use crate::ui;
use show::show;
use watch::watch;

/// More than any job file; what is longer is refused by its length.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Carries out a command on federated rounds.
pub(crate) fn fed(home: &Home, config: &Config, command: &cli::Fed) -> Result<()> {
    match command {
        cli::Fed::Check { file, json } => check(home, config, file, *json),
        cli::Fed::Submit { file, watch, anyway } => submit(home, config, file, *watch, *anyway),
        cli::Fed::Status { job, json } => show(home, job.as_deref(), *json),
        cli::Fed::Watch { job, picture } => {
            watch(&Client::admin(&home.running()?), job, picture.as_deref())
        }
        cli::Fed::Model(cli::FedModel::Export { job, file, personal }) => {
            let client = Client::admin(&home.running()?);
            match personal {
                true => export::personal(&client, job, file),
                false => export::export(&client, job, file),
            }
        }
        cli::Fed::Anchors { job } => {
            let path = format!("/admin/federated-anchors/{}", escaped(job));
            let client = Client::admin(&home.running()?);
            let done: wire::Done = client.post(&path, &serde_json::json!({}))?;
            ui::out(done.done);
            ui::note(format_args!("`selvedge fed status {job}` shows the anchors of the round"));
            Ok(())
        }
        cli::Fed::Cancel { job } => {
            let path = format!("/admin/federated/{}", escaped(job));
            let done: wire::Done = Client::admin(&home.running()?).delete(&path)?;
            ui::out(done.done);
            Ok(())
        }
        cli::Fed::Verify(options) => verify::verify(options),
    }
}

fn check(home: &Home, config: &Config, file: &Path, json: bool) -> Result<()> {
    let text = text_of(file)?;
    if json {
        let told = fits::ask(&Client::admin(&home.running()?), config, &text, false)?;
        ui::out(serde_json::to_string_pretty(&told)?);
        return fits::may_start(&told, false);
    }
    let bases = own_models(home)?;
    let spec = JobSpec::from_toml(&text, &|name| BaseModel::facts(&bases, name))
        .with_context(|| format!("{} is no job", file.display()))?;
    let data = match config.data.get(&spec.data) {
        Some(parts) => own_data(&spec, parts, &bases),
        None => Ok(format!(
            "this node has no '{}' and would not train; a [[data]] table in {} gives it some, from \
             its next start on",
            spec.data,
            home.config_file().display()
        )),
    };
    let Ok(contact) = home.running() else {
        described(&spec, data?, None, None);
        ui::note("no node runs here: other members were not asked whether their data fit");
        return Ok(());
    };
    let members = members(&contact)?;
    let count = members.iter().filter(|member| !member.revoked).count();
    spec.has_room(count)?;
    free_name(&contact, &spec.name)?;
    // What others said is shown also where this node's own data do not fit.
    let (data, own) = match data {
        Ok(data) => (data, Ok(())),
        Err(why) => ("this node's own do not fit".to_owned(), Err(why)),
    };
    let client = Client::admin(&contact);
    let told = fits::ask(&client, config, &text, false);
    let left = told.as_ref().ok().and_then(|told| told.contributions_left);
    described(&spec, data, Some(count), left);
    let told = told?;
    fits::show(&told);
    let jobs = show::jobs(&client)?;
    let has_root = custody::root_key_path(home.path()).exists();
    hindrances(&told, &members, has_root, &jobs).iter().for_each(ui::note);
    own.and_then(|()| fits::may_start(&told, false))
}

/// What a job is, in a table; `left` are contributions that this node's data have left for it.
fn described(spec: &JobSpec, data: String, members: Option<usize>, left: Option<u64>) {
    let rules = spec.rules();
    ui::out(format_args!("the job file of '{}' is good", spec.name));
    let rows = [
        ("model", learned(&spec.subject, rules)),
        ("rounds", format!("{} by {}, {}", rules.rounds, method(rules.strategy), privacy(rules))),
        ("anchors", anchors(rules, members)),
        ("uploads", format!("{} a client and round", ui::bytes_text(spec.upload_bytes() as u64))),
        ("epsilon", epsilon(rules, left)),
        ("data", data),
    ];
    let rows = rows.map(|(what, text)| vec![what.to_owned(), text]);
    ui::out(ui::table(&rows));
    if let Some(warning) = drowned(rules) {
        ui::warn(warning);
    }
}

/// What to say of a job whose noise leaves nothing to learn. What rounds learn adds up, and their
/// noise grows with the root of their number. So noise of a round that is more than this root times
/// as long as an update is, at the job's end, longer than all that was learned, even where updates
/// agree and are as long as they may be. A client that has spent its epsilon gives no more rounds.
fn drowned(rules: &Job) -> Option<String> {
    let privacy = rules.privacy?;
    let tenths = privacy.noise_tenths(rules.dim, rules.target);
    let permille = u64::from(rules.sample_permille).max(1);
    let most = privacy.contributions().saturating_mul(1_000) / permille;
    let rounds = rules.rounds.min(most);
    if tenths.saturating_mul(tenths) <= rounds.saturating_mul(100) {
        return None;
    }
    let norm = f64::from(privacy.norm) / f64::from(1_u32 << MODEL_BITS);
    let together = f64::from(privacy.honest) * rules.target as f64;
    let noise = f64::from(privacy.noise_milli) / 1_000.0 * norm / together.sqrt();
    let learned = norm / (rules.dim as f64).sqrt();
    Some(format!(
        "a round's noise is {}.{} times as long as an update may be: {noise:.4} on each weight, \
         beside {learned:.4} of what is learned, and {rounds} rounds make up for {:.1} times at \
         most; the model will hardly learn. More clients in a round ('target', 'min_clients'), \
         fewer weights or less noise help",
        tenths / 10,
        tenths % 10,
        (rounds as f64).sqrt()
    ))
}

/// The models of this home that a job could tune.
fn own_models(home: &Home) -> Result<Vec<BaseModel>> {
    let base = |model: Stored| {
        let Stored { name, path, digest, .. } = model;
        BaseModel { name, path, digest: digest.0 }
    };
    Ok(Store::of(home).list()?.into_iter().map(base).collect())
}

/// What this node has for a job, of each part of its data that counts.
fn own_data(spec: &JobSpec, parts: &DataParts, bases: &[BaseModel]) -> Result<String> {
    let (mut said, most) = (Vec::new(), usize::from(spec.rules().per_node));
    for (at, (part, own)) in parts.iter().enumerate() {
        let name =
            part.as_ref().map_or_else(|| spec.data.clone(), |p| format!("{}.{p}", spec.data));
        if at >= most {
            said.push(format!("'{name}' of this node: not trained on, see clients_per_node"));
            continue;
        }
        if let Source::Requests(Requests { model }) = &own.source {
            let whose = "which the node reads when the job is submitted";
            said.push(format!("'{name}' of this node: labelled requests to '{model}', {whose}"));
            continue;
        }
        let examples = examples(&spec.subject, &own.source, bases)
            .with_context(|| format!("this node's data '{name}' does not fit"))?;
        said.push(format!("'{name}' of this node: {examples}"));
    }
    Ok(said.join("; "))
}

/// How many examples a source has for what is learned.
fn examples(subject: &Subject, source: &Source, bases: &[BaseModel]) -> Result<String> {
    match subject {
        Subject::Model(model) => Ok(format!("{} examples", read(source, &model.schema)?.len())),
        Subject::Tuning(tuning) => {
            let base = bases.iter().find(|base| base.digest == tuning.digest);
            let base = base.context("the base model is gone")?;
            let windows = Tuner::open(&base.path, tuning)?.read(source)?.len();
            Ok(format!("{windows} windows of {} tokens", tuning.window))
        }
    }
}

fn learned(subject: &Subject, rules: &Job) -> String {
    match subject.as_tuning() {
        None => format!("{} weights", rules.dim),
        Some(Tuning { base, rank, targets, .. }) => {
            let targets = targets.iter().map(|target| format!("{target:?}").to_lowercase());
            let targets = targets.collect::<Vec<_>>().join(", ");
            format!("{} weights of rank {rank} beside {targets} of '{base}'", rules.dim)
        }
    }
}

fn submit(home: &Home, config: &Config, file: &Path, stay: bool, anyway: bool) -> Result<()> {
    let text = text_of(file)?;
    let client = Client::admin(&home.running()?);
    let told = fits::ask(&client, config, &text, true)?;
    fits::show(&told);
    fits::may_start(&told, anyway)?;
    // The members were asked. The node reads its own data for it first, which may be many files.
    let request = serde_json::to_value(wire::FederatedRequest { text, anyway: true })?;
    let (job, _): (wire::FederatedJob, String) = client.ask("/admin/federated", &request)?;
    ui::out(format_args!("job '{}' runs at the nodes of the mesh as they hear of it", job.name));
    let anchors = job.anchors.join(", ");
    let rows = [("digest", job.job.clone()), ("anchors", anchors)];
    let rows = rows.map(|(what, text)| vec![what.to_owned(), text]);
    ui::out(ui::table(&rows));
    if let Some(why) = &job.not_training {
        ui::note(format_args!("this node does not train: {why}"));
    }
    if stay {
        return watch(&client, &job.name, None);
    }
    ui::note(format_args!("`selvedge fed watch {}` shows its rounds", job.name));
    Ok(())
}

fn text_of(file: &Path) -> Result<String> {
    let failed = || format!("cannot read {} as text", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(failed)?;
    match opened.take(MAX_FILE_BYTES).read_to_string(&mut text) {
        Err(error) if error.kind() == ErrorKind::InvalidData => bail!(
            "{} is no text, and a job file is TOML: `selvedge fed --help` has an example",
            file.display()
        ),
        read => read.with_context(failed)?,
    };
    Ok(text)
}

/// The members of the mesh.
fn members(contact: &Contact) -> Result<Vec<wire::Member>> {
    let list: wire::List<wire::Member> = Client::admin(contact).get("/admin/members")?;
    Ok(list.data)
}

/// For what `fed submit` will refuse a job at this node whose file and data are good. Who holds the
/// root key signs with it where the node is no steward.
fn hindrances(
    told: &wire::FederatedCheck,
    members: &[wire::Member],
    has_root: bool,
    jobs: &[wire::FederatedJob],
) -> Vec<String> {
    let mut found = Vec::new();
    let is_steward = |own: &&wire::FederatedFit| {
        members.iter().any(|member| member.node == own.id && member.steward)
    };
    let may_sign = |own: &&wire::FederatedFit| has_root || is_steward(own);
    if let Some(own) = told.nodes.iter().find(|one| one.me).filter(|own| !may_sign(own)) {
        found.push(format!(
            "this node is no steward, so `selvedge fed submit` will be refused here: do it at a \
             steward (`selvedge mesh members` lists them), or make this node one with `selvedge \
             mesh promote {}` on the node that holds the mesh's root key",
            own.node
        ));
    }
    let name = &told.name;
    if jobs.iter().any(|job| job.name == *name) {
        found.push(format!(
            "there is a job '{name}' already, so `selvedge fed submit` will be refused: cancel it \
             with `selvedge fed cancel {name}`, or give this one another name"
        ));
    }
    found
}

/// Refuses a name that something else has.
fn free_name(contact: &Contact, name: &str) -> Result<()> {
    let path = format!("/admin/federated-name/{}", escaped(name));
    let told: wire::FederatedName = Client::admin(contact).get(&path)?;
    told.taken.map_or(Ok(()), |why| Err(anyhow!(why)))
}

fn privacy(rules: &Job) -> String {
    let floor = rules.min_clients;
    let several = match rules.per_node {
        1 => String::new(),
        most => format!(", up to {most} clients of each,"),
    };
    match rules.mode {
        Mode::Secure => {
            let groups = rules.guard.filter(|guard| guard.groups > 1);
            let groups = groups.map_or_else(String::new, |Guard { groups, rule }| {
                format!("; {groups} of them in a round, the {rule} of whose means counts")
            });
            format!("in sums of at least {floor} nodes{several} that nobody can take apart{groups}")
        }
        Mode::Plain(rule) => {
            let seen = "every anchor SEES every update";
            format!("by the {rule} of updates from {floor} nodes{several}; {seen}")
        }
    }
}

/// What differential privacy promises to a client that is in every round: a part of a node's data,
/// or all of them. `left` are contributions that this node's data have left for it, by their own
/// bound and after what earlier jobs had.
fn epsilon(rules: &Job, left: Option<u64>) -> String {
    let Some(privacy) = &rules.privacy else { return "no differential privacy".to_owned() };
    let of = |epsilon: MicroEpsilon| epsilon.0.div_ceil(10_000);
    let text = |hundredths: u64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let all = text(of(privacy.spent(rules.rounds)));
    let (most, allowed) = (text(of(privacy.epsilon)), privacy.contributions());
    let due = fits::due(rules.rounds, rules.sample_permille.into());
    if let Some(left) = left.filter(|&left| left < allowed.min(due)) {
        return format!(
            "{all} for all rounds, and a client may spend {most}; {}, and where too few are left \
             the job does not end",
            fits::own_left(left)
        );
    }
    if allowed < due {
        return format!(
            "{all} for all rounds, and a client may spend {most}: it leaves after {allowed} \
             contributions, and \
             where too few are left the job does not end"
        );
    }
    format!("{all} for a client in all rounds, of {most} that it may spend")
}

fn anchors(rules: &Job, members: Option<usize>) -> String {
    let wanted = rules.scheme.anchors();
    match members {
        Some(count) => format!("{wanted} of the mesh's {count} members"),
        None => format!("{wanted}; no node runs here that could say how many members there are"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// A job with privacy, of so many nodes in a sum and such hidden layers.
    fn private(clients: usize, hidden: &str) -> JobSpec {
        let file = format!(
            "name = 'wear'\ndata = 'line3'\nrounds = 30\nmin_clients = {clients}\n\
             [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{hidden}]\n\
             [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.2\n\
             [privacy]\nnoise = 4.0\nnorm = 1.0\ndelta = 1e-5\nepsilon = 8.0\n"
        );
        JobSpec::from_toml(&file, &|_| Err("there is none here".to_owned())).unwrap()
    }

    fn warned(clients: usize, hidden: &str) -> Option<String> {
        drowned(private(clients, hidden).rules())
    }

    #[test]
    fn what_this_nodes_data_have_left_counts() {
        let spec = private(8, "{ dense = 8 }");
        let fresh = epsilon(spec.rules(), None);
        assert!(fresh.ends_with("a client in all rounds, of 8.00 that it may spend"), "{fresh}");
        assert_eq!(epsilon(spec.rules(), Some(30)), fresh, "it is enough");
        let some = epsilon(spec.rules(), Some(3));
        assert!(
            some.contains("; this node's data have epsilon left for 3 contributions ("),
            "{some}"
        );
        let one = epsilon(spec.rules(), Some(1));
        assert!(one.contains("left for 1 contribution ("), "{one}");
        // Three of 30 are what a client that is asked in every tenth round gives.
        let mut rules = spec.rules().clone();
        rules.sample_permille = 100;
        assert!(!epsilon(&rules, Some(3)).contains("left for"));
        assert!(epsilon(&rules, Some(2)).contains("left for 2 contributions ("));
    }

    #[test]
    fn a_file_that_is_no_text_is_told_what_a_job_is() {
        let scratch = Scratch::new("job");
        let file = scratch.path().join("x.parquet");
        std::fs::write(&file, b"PAR1\xff\xfe").unwrap();
        let refused = format!("{:#}", text_of(&file).unwrap_err());
        assert!(refused.contains("a job file is TOML"), "{refused}");
        std::fs::write(&file, "name = 'wear'").unwrap();
        assert_eq!(text_of(&file).unwrap(), "name = 'wear'");
    }

    #[test]
    fn what_submit_would_refuse_is_said_by_check() {
        let own = wire::FederatedFit {
            node: "n2".to_owned(),
            id: "12D3KooWbbbbbb".to_owned(),
            me: true,
            ..wire::FederatedFit::default()
        };
        let told = wire::FederatedCheck {
            name: "wear".to_owned(),
            nodes: vec![own],
            ..wire::FederatedCheck::default()
        };
        let member = |node: &str, steward| wire::Member {
            node: node.to_owned(),
            steward,
            ..wire::Member::default()
        };
        let members =
            |steward| vec![member("12D3KooWaaaaaa", true), member("12D3KooWbbbbbb", steward)];
        assert!(hindrances(&told, &members(true), false, &[]).is_empty());
        assert!(hindrances(&told, &members(false), true, &[]).is_empty(), "the root key signs");
        let said = hindrances(&told, &members(false), false, &[]).concat();
        assert!(said.contains("is no steward") && said.contains("mesh promote n2"), "{said}");
        let job = |name: &str| wire::FederatedJob {
            name: name.to_owned(),
            ..wire::FederatedJob::default()
        };
        assert!(hindrances(&told, &members(true), false, &[job("other")]).is_empty());
        let said = hindrances(&told, &members(true), false, &[job("other"), job("wear")]).concat();
        assert!(said.contains("`selvedge fed cancel wear`"), "{said}");
    }

    #[test]
    fn the_rule_of_a_job_is_told_with_its_numbers() {
        let told = |mode: &str| {
            let file = format!(
                "name = 'wear'\ndata = 'line3'\nrounds = 30\nmin_clients = 7\n\
                 [model]\nshape = {{ flat = 2 }}\nclasses = 2\n\
                 [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.2\n[mode]\n{mode}"
            );
            let spec = JobSpec::from_toml(&file, &|_| Err("none".to_owned())).unwrap();
            privacy(spec.rules())
        };
        for (rule, words) in [
            ("'mean'", "by the mean of updates from 7 nodes; every anchor SEES"),
            ("'median'", "by the median of updates from 7"),
            ("{ trimmed = { cut = 2 } }", "by the trimmed mean (cut 2) of"),
            (
                "{ multi-krum = { byzantine = 2, keep = 5 } }",
                "by the multi-Krum (byzantine 2, keep 5) of updates",
            ),
        ] {
            let said = told(&format!("kind = 'plain'\nrule = {rule}\n"));
            assert!(said.contains(words), "{said}");
        }
        let groups = told("kind = 'secure'\ngroups = 3\nrule = { trimmed = { cut = 1 } }\n");
        assert!(groups.ends_with("the trimmed mean (cut 1) of whose means counts"), "{groups}");
        assert!(!told("kind = 'secure'\n").contains("mean"), "a sum has no other rule");
    }

    #[test]
    fn a_job_whose_noise_drowns_what_is_learned_is_warned_of() {
        let small = "{ dense = 8 }";
        // 30 rounds make up for 5.48 times. 42 weights: 4 * sqrt(42 / (7 * 8)) is 3.5.
        assert_eq!(warned(8, small), None);
        // Of five nodes, four of them honest, 5.8: such a job was seen to learn nothing.
        let five = warned(5, small).unwrap();
        assert!(five.contains("noise is 5.7 times as long"), "{five}");
        assert!(five.contains("30 rounds make up for 5.5 times at most"), "{five}");
        let few = warned(2, small).unwrap();
        assert!(few.contains("noise is 18.3 times as long"), "{few}");
        // 502 weights: 11.9 times; a round of 17 is below, with 5.43.
        let wide = warned(8, "{ dense = 100 }").unwrap();
        assert!(wide.contains("noise is 11.9 times as long"), "{wide}");
        assert!(wide.contains("0.5345 on each weight, beside 0.0446 of"), "{wide}");
        assert!(warned(16, "{ dense = 100 }").is_some());
        assert_eq!(warned(17, "{ dense = 100 }"), None);
    }
}
