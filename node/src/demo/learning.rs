//! `selvedge demo --learning`: five nodes on this machine learn handwritten digits together, and
//! the one that proposes is killed in the middle of its round.
//!
//! Owns the story: which clients there are, the job, who dies and when that node comes back, and
//! what is checked at the end. The demo checks what it claims: that no other node had the end of
//! the round in which one died, that all came to one model, and that it tells digits which no node
//! ever had. Nothing is asked of a node that a person could not ask.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use selvedge_net::clock;
use selvedge_train::Examples;

use super::cast::{self, Cast, Player, Role};
use super::digits::{self, CLASSES, Dealt, INK, PIXELS};
use super::picture::{Curve, Picture};
use super::rounds::{Proposer, Rounds, Share};
use super::stage::{self, Stage};
use crate::commands::classes_of;
use crate::home::Home;
use crate::http::wire::{FederatedClient, FederatedJob, FederatedRequest};
use crate::scratch::Scratch;
use crate::ui::{Ink, paint, span_text};

/// The nodes; all five are the job's anchors, which is the least that a job has.
const ROLES: [Role; 5] = [Role::ALDER, Role::BIRCH, Role::CEDAR, Role::ELDER, Role::HAZEL];
/// Clients of each node, one for each part of its data.
const PARTS: [&str; 2] = ["ward-a", "ward-b"];
/// What job and data are called.
const JOB: &str = "digits";
/// What two shards by label teach ten clients is learned by then.
const ROUNDS: u64 = 15;
/// The next node that proposes once so many rounds are over dies: the curve still rises.
const KILLED_AFTER: u64 = 3;
/// It is started again when so many more are: the others have learned on without it by then.
const BACK_AFTER: u64 = 3;
/// Of the digits at least so much must be told right in the end. Rounds as these come to 0.9 on
/// other divisions as well; a model that lacks two kinds of ten does not come so far.
const LEAST: f64 = 0.82;
/// The same of the few digits that no node had: with 99 of them chance is worth some points.
const LEAST_UNSEEN: f64 = 0.75;

/// The nodes, and what they said and showed so far.
struct Story<'a> {
    cast: &'a Cast<'a>,
    players: Vec<Player>,
    rounds: Rounds,
    picture: Picture,
    curve: Curve,
    /// Who died in the middle of its round, and in which.
    killed: Option<Proposer>,
}

/// Shows it to its end.
pub(super) fn learn(home: &Home, picture: Option<&Path>, verbose: u8) -> Result<()> {
    let picture = Picture::at(picture)?;
    let mut stage = Stage::default();
    stage.title("Five nodes on this machine learn together; one dies while it decides a round.");
    let place = Scratch::within(&home.path().join("demo"), "learn")
        .with_context(|| format!("cannot write in {}", home.path().display()))?;
    let cast = Cast { place: place.path(), verbose };
    let unseen = deal(&mut stage, &cast)?;
    let players = gather(&mut stage, &cast)?;
    let rounds = Rounds::of(JOB);
    let mut story =
        Story { cast: &cast, players, rounds, picture, curve: Curve::default(), killed: None };
    submit(&mut stage, &story)?;
    story.follow(&mut stage)?;
    story.check(&mut stage)?;
    story.ask(&mut stage, &unseen)?;
    stage.act("What to type next");
    stage.say(format_args!(
        "The curve of all nodes, and of each, is in {}",
        stage.strong(story.picture.file().display())
    ));
    drop(story);
    next_steps(&stage, home);
    Ok(())
}

/// Writes each node's data and configuration into its home; the digits that no node gets.
fn deal(stage: &mut Stage, cast: &Cast<'_>) -> Result<Examples> {
    stage.act("Digits, so divided that nobody has enough");
    let clients = ROLES.len() * PARTS.len();
    let Dealt { clients: dealt, unseen } = digits::dealt(clients)?;
    let count: usize = dealt.iter().map(Examples::len).sum();
    stage.say(format_args!(
        "{count} digits that people wrote by hand, {PIXELS} pixels each, go to {clients} clients \
         on {} nodes: two clients a node, a few kinds of digits a client.",
        ROLES.len()
    ));
    for (role, parts) in ROLES.into_iter().zip(dealt.chunks(PARTS.len())) {
        furnish(cast, role, parts)?;
        let said = |(part, own): (&str, &Examples)| {
            format!("{part} has {} digits: {}", own.len(), digits::kinds(own))
        };
        let said: Vec<String> = PARTS.into_iter().zip(parts).map(said).collect();
        stage.say(format_args!("{}  {}", stage::named(role.name), said.join("; ")));
    }
    stage.say(format_args!(
        "{} more go to nobody: the model is asked about them in the end.",
        unseen.len()
    ));
    stage.remark(
        "From \"Optical Recognition of Handwritten Digits\" by E. Alpaydin and C. Kaynak, 1998, \
         CC BY 4.0, doi.org/10.24432/C50P49.",
    );
    Ok(unseen)
}

/// A home with data in two parts, as a person would name them to a node.
fn furnish(cast: &Cast<'_>, role: Role, parts: &[Examples]) -> Result<()> {
    let home = Home::locate(Some(&cast.home(role)))?;
    home.make_dir(home.path())?;
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut config = String::new();
    for (part, own) in PARTS.into_iter().zip(parts) {
        let path = home.path().join(format!("{part}.csv"));
        write(&path, &digits::as_csv(own))?;
        // As TOML writes texts: a path may hold anything.
        let path = toml::Value::String(path.to_string_lossy().into_owned());
        config += &format!(
            "[[data]]\nname = \"{JOB}\"\npart = \"{part}\"\nkind = \"csv\"\npath = {path}\n\
             label = \"digit\"\nscale = {INK:.1}\n\n"
        );
    }
    write(&home.config_file(), &config)
}

/// Starts the nodes one after the other and waits until they know each other.
fn gather(stage: &mut Stage, cast: &Cast<'_>) -> Result<Vec<Player>> {
    stage.act("Five nodes, five processes");
    let begun = clock::mono();
    let mut players: Vec<Player> = Vec::new();
    for role in ROLES {
        let code = players.first().map(Player::invite).transpose()?;
        let player = cast.start(role, None, code.as_deref())?;
        let what = match code {
            None => "makes a mesh",
            Some(_) => "joins by a code from alder",
        };
        stage.say(format_args!("{}", player.introduction(what)));
        players.push(player);
    }
    cast::meet(&players, 0)?;
    stage.say(format_args!(
        "All five know each other, {} after the first was started.",
        span_text(clock::mono().since(begun).0)
    ));
    Ok(players)
}

/// The job as a person would write it. The floor is of nodes: with one of them dead it must be
/// reached. A round waits for all clients, but for no more than its patience.
fn job() -> String {
    let (nodes, each) = (ROLES.len(), PARTS.len());
    format!(
        "name = \"{JOB}\"\ndata = \"{JOB}\"\nrounds = {ROUNDS}\nmin_clients = {}\n\
         clients_per_node = {each}\ntarget = {}\nheld_out_permille = 200\n\
         [model]\nshape = {{ flat = {PIXELS} }}\nclasses = {CLASSES}\nhidden = [{{ dense = 64 }}]\n\
         [training]\nepochs = 5\nbatch = 8\nlearning_rate = 0.4\n\
         [pace]\ntick_ms = 100\nstagger_ms = 200\ngather_ms = 300\npatience_ms = 1500\n",
        nodes - 1,
        nodes * each
    )
}

/// Hands the job to one node, from which the others hear of it.
fn submit(stage: &mut Stage, story: &Story<'_>) -> Result<()> {
    stage.act("A job for all of them");
    let first = story.players.first().context("there are no nodes")?;
    stage.question(&format!("selvedge fed submit {JOB}.toml"));
    let text = job();
    stage.file(&text);
    for (at, player) in story.players.iter().enumerate() {
        story.rounds.listen(at, player)?;
    }
    // Their data were written just now: nobody has to be asked.
    let request = FederatedRequest { text, anyway: true };
    let job: FederatedJob = first.client().post("/admin/federated", &request)?;
    stage.say(format_args!(
        "{} has it, and tells the others. A model of {} weights is trained where the digits are; \
         what leaves a node are shares of its update, of which anchors add up no sum of fewer than \
         {} nodes. There is no server.",
        stage::named(first.name()),
        stage.strong(job.weights),
        job.min_clients
    ));
    Ok(())
}

impl Story<'_> {
    /// Shows each round as it ends, kills the node that proposes in the middle of one, and starts
    /// it again later.
    fn follow(&mut self, stage: &mut Stage) -> Result<()> {
        stage.act("Rounds: how much of the digits that nodes hold out is told right");
        let mut next = 0;
        loop {
            self.rounds.hear(&self.players)?;
            while let Some(share) = self.rounds.share(next, &self.players) {
                self.show(stage, next, share)?;
                next += 1;
            }
            let is_over = next > ROUNDS;
            let dead = self.players.iter().position(|player| !player.lives());
            let killed = self.killed.as_ref().map(|proposer| proposer.round);
            match (killed, dead) {
                (None, _) if is_over => {
                    bail!("no node was caught while it proposed; run the demo again")
                }
                (None, _) if next > KILLED_AFTER => self.strike(stage)?,
                (Some(round), Some(at)) if is_over || next > round + BACK_AFTER => {
                    self.bring_back(stage, at, next)?;
                }
                (Some(_), None) if is_over && self.rounds.are_over(ROUNDS, ROLES.len()) => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn show(&mut self, stage: &Stage, round: u64, share: Share) -> Result<()> {
        let living = self.players.iter().filter(|player| player.lives()).count();
        let dead = if living < ROLES.len() { format!("{living} nodes") } else { String::new() };
        stage.bar(round, share.part(), &dead);
        self.curve.all.push((round, share.part()));
        self.picture.draw(&self.curve, &self.rounds.own())
    }

    /// Kills the node that proposes, if one does now, and asks the others whether it died in time:
    /// then none of them has the end of its round.
    fn strike(&mut self, stage: &Stage) -> Result<()> {
        let Some(proposer) = self.rounds.proposer() else { return Ok(()) };
        let Some(player) = self.players.get_mut(proposer.at) else { return Ok(()) };
        player.kill();
        self.rounds.forget(proposer.at);
        let (name, round) = (player.name(), proposer.round + 1);
        let order = paint(Ink::Red, format_args!("[kill -9 {name}]"));
        if !self.rounds.is_open(proposer.round, &self.players)? {
            stage.say(format_args!(
                "{order} too late: round {round} was over elsewhere. It is started again, and the \
                 next one that proposes dies."
            ));
            return self.start_again(proposer.at);
        }
        let what = match proposer.phase.as_str() {
            "asking" => "asks the anchors what they hold",
            _ => "proposes what shall count",
        };
        stage.say(format_args!(
            "{order} in the middle of round {round}, while it {what}. Checked: no other node has \
             the end of that round."
        ));
        self.curve.marks.push((round, format!("{name} killed as it proposes")));
        self.killed = Some(proposer);
        Ok(())
    }

    fn bring_back(&mut self, stage: &Stage, at: usize, next: u64) -> Result<()> {
        self.start_again(at)?;
        let player = self.players.get(at).context("the dead node is none of ours")?;
        let order = paint(Ink::Green, format_args!("[{} is back]", player.name()));
        stage.say(format_args!("{order} process {}; it goes on from its disk.", player.pid()));
        self.curve.marks.push((next.min(ROUNDS), format!("{} is back", player.name())));
        Ok(())
    }

    /// Starts a node that was killed, in the home that it had.
    fn start_again(&mut self, at: usize) -> Result<()> {
        let player = self.players.get_mut(at).context("the dead node is none of ours")?;
        *player = self.cast.start(player.role(), None, None)?;
        self.rounds.listen(at, player)
    }

    /// Holds what the nodes came to against what was promised.
    fn check(&self, stage: &mut Stage) -> Result<()> {
        stage.act("What they came to");
        let clients = ROLES.len() * PARTS.len();
        let job = self.rounds.outcome(clients)?;
        let last = self.curve.all.last().context("no round was shown")?.1;
        ensure!(
            last >= LEAST,
            "only {:.1} % of the digits are told right after {ROUNDS} rounds",
            last * 100.0
        );
        self.picture.draw(&self.curve, &self.rounds.own())?;
        stage.say(format_args!(
            "{} all {} nodes hold the same model, byte for byte ({}…), after {ROUNDS} rounds, \
             in {}.",
            paint(Ink::Green, "Checked:"),
            ROLES.len(),
            job.model.get(..16).unwrap_or(&job.model),
            span_text(self.rounds.taken().0)
        ));
        let one =
            |one: &FederatedClient| format!("{} {}", stage::named(&one.node), one.contributions);
        let counted: Vec<String> = job.contributions.iter().map(one).collect();
        stage.say(format_args!("Contributions, by their record: {}.", counted.join(", ")));
        stage.say(format_args!(
            "Each trained on its own digits alone, and {} % of all kinds are told right.",
            stage.strong(format_args!("{:.1}", last * 100.0))
        ));
        Ok(())
    }

    /// Asks the node that died about the digits that no node had.
    fn ask(&self, stage: &mut Stage, unseen: &Examples) -> Result<()> {
        stage.act("A digit that no node has seen");
        let dead = self.killed.as_ref().context("no node died")?.at;
        let asked = self.players.get(dead).context("the dead node is none of ours")?;
        let values: Vec<f32> = unseen.values().iter().map(|value| value / INK).collect();
        let (told, version) = classes_of(asked.client(), JOB, &values, PIXELS)?;
        ensure!(told.len() == unseen.len(), "{} answers for {}", told.len(), unseen.len());
        let (class, likely) = told.first().copied().context("there is no digit to ask about")?;
        stage.as_is(&digits::drawn(unseen.row(0)));
        stage.say(format_args!(
            "{}, which died and came back, is asked by `selvedge infer`'s way: {} ({:.1} % sure), \
             by version {version} of the model. It was meant to be {}.",
            stage::named(asked.name()),
            stage.strong(format_args!("a {class}")),
            likely * 100.0,
            unseen.labels()[0]
        ));
        let is_right = |(told, label): &(&(usize, f64), &u32)| told.0 == **label as usize;
        let right = told.iter().zip(unseen.labels()).filter(is_right).count();
        ensure!(
            right as f64 >= LEAST_UNSEEN * unseen.len() as f64,
            "only {right} of {} digits that no node had are told right",
            unseen.len()
        );
        stage.say(format_args!(
            "{} it tells {} of {} such digits right.",
            paint(Ink::Green, "Checked:"),
            stage.strong(right),
            unseen.len()
        ));
        Ok(())
    }
}

fn next_steps(stage: &Stage, home: &Home) {
    let (program, at) = (stage::program(), super::named_home(home));
    stage.say(
        "On your own machines: start a node on each, name its data in a [[data]] table of its \
         config.toml, and write a job file as above.",
    );
    stage.lines(&[
        (format!("{program} up{at}"), "start this machine's node; prints how others join"),
        (
            format!("{program} fed check{at} job.toml"),
            "read a job file, and ask all nodes if it fits",
        ),
        (format!("{program} fed submit{at} job.toml --watch"), "start it, and watch its rounds"),
        (format!("{program} infer{at} JOB --input rows.csv"), "ask the model, at any node"),
    ]);
    stage.remark("docs/federated.md says how it works, and what nobody learns of whose data.");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use selvedge_runtime::{BaseModel, JobSpec};

    use super::*;

    #[test]
    fn the_job_is_one_that_survives_a_death() {
        let spec = JobSpec::from_toml(&job(), &|name| BaseModel::facts(&[], name)).unwrap();
        let rules = spec.rules();
        assert_eq!((spec.name.as_str(), spec.data.as_str()), (JOB, JOB));
        assert_eq!((rules.rounds, rules.min_clients, rules.target), (ROUNDS, 4, 10));
        assert_eq!((usize::from(rules.per_node), rules.scheme.anchors()), (2, ROLES.len()));
        spec.has_room(ROLES.len()).unwrap();
        // Killed, dead for some rounds, and back for as many again.
        const { assert!(KILLED_AFTER + 2 * BACK_AFTER + 2 <= ROUNDS) };
    }

    #[test]
    fn a_node_of_the_demo_has_two_parts_of_data() {
        let place = Scratch::new("learning");
        let cast = Cast { place: place.path(), verbose: 0 };
        let Dealt { clients, .. } = digits::dealt(10).unwrap();
        furnish(&cast, Role::ELDER, &clients[..2]).unwrap();
        let file = cast.home(Role::ELDER).join("config.toml");
        let config = crate::config::load(&file, true, &crate::config::Env::new(), |_| {}).unwrap();
        assert_eq!(config.data.get(JOB).unwrap().len(), PARTS.len());
    }
}
