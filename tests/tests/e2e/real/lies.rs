//! A member of a mesh that lies in the rounds of its jobs: every anchor refuses each lie and names
//! who told it, all honest nodes come to one model, and the liar is in no sum.
//!
//! The liar is this test: let in by a code, alive, with a name, and with the product's own machine
//! of a client to share what no trainer makes. Shares that lie on no polynomial that machine does
//! not make; they are made here, by the description of the bytes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use selvedge_base::{Dice, Machine as _, NodeId, Now};
use selvedge_crdt::escrow::Holder;
use selvedge_federated::field::Fp;
use selvedge_federated::fixed::LEVEL_MAX;
use selvedge_federated::mask::Seed;
use selvedge_federated::proof::CHECKS;
use selvedge_federated::round::{
    Client, ClientInput, ClientStored, ContributionId, Digest, Effect, Header, Job, MAX_STALENESS,
    Message, Mode, Payload, Pending, Tip,
};
use selvedge_federated::seal::seal;
use selvedge_runtime::ChainReader;
use selvedge_tests::output::Source;
use selvedge_tests::unsigned::Unsigned;
use selvedge_tests::{Deadline, Liar, Node, NodeSpec, Scenario, admin, scenario};
use serde_json::Value;

use super::learning;
use super::overheard::{MODES, until};

/// Rounds of a job: each takes a third of a second at least, and all lies a few seconds.
const ROUNDS: u64 = 60;
/// What the liar is called.
pub(super) const NAME: &str = "liar";
/// Which client of its node it says to be.
const CLIENT: u64 = 7;
/// Values of an update that is much too long.
const OVERSIZED: usize = 200_000;
/// Reasons that come to nodes that do all they should, too.
const OF_TIMING: [&str; 4] = ["ahead", "epoch", "no_anchor", "replayed"];

/// What each anchor is sent, in the order of the seats.
pub(super) type Shares = Vec<(NodeId, Message)>;

/// A lie: what it is, and the reason for which it must be refused.
struct Lie {
    what: &'static str,
    shares: Shares,
    why: &'static str,
}

/// A job as any member knows it: its rules, and the beginning of its chain.
pub(super) struct Known {
    pub(super) job: Arc<Job>,
    pub(super) name: Digest,
    first: Tip,
}

/// What base64 stands for (RFC 4648, section 4).
fn unbase64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        (bits, count) = (bits << 6 | u32::from(digit(letter)), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

impl Known {
    /// A job by the beginning of its chain, which a node has before any round is over.
    pub(super) fn of(node: &Node, name: &str) -> Result<Self> {
        let path = format!("/admin/federated-chain/{name}/0");
        let told = node.admin()?.client().get(&path)?.ok()?;
        let text = told["base64"].as_str().context("the job has no chain here")?;
        let told = ChainReader::open(&unbase64(text)[..])?.told().clone();
        let (name, first) = (told.job.digest(), told.first()?);
        Ok(Self { job: Arc::new(told.job), name, first })
    }

    /// What a client would contribute to the first round.
    pub(super) fn pending(&self, me: NodeId) -> Pending {
        let client = Holder { node: me, incarnation: CLIENT };
        let (id, levels) = (ContributionId { client, seq: 1 }, vec![1_000; self.job.payload_len()]);
        Pending { id, base_round: 0, examples: 60, levels, seed: Seed([5; 32]) }
    }

    /// What the product's client sends of it, by these rules.
    pub(super) fn shares(&self, job: &Arc<Job>, pending: Pending) -> Shares {
        let me = pending.id.client;
        let stored = ClientStored { tip: self.first.clone(), pending: Some(pending) };
        let mut client = Client::new(Arc::clone(job), me, Arc::new(Unsigned), stored);
        let mut effects = Vec::new();
        client.step(Now::default(), ClientInput::Ticked, &mut effects);
        let share = |effect| match effect {
            Effect::Send { to, message } if matches!(*message, Message::Share { .. }) => {
                Some((to, *message))
            }
            _ => None,
        };
        effects.into_iter().filter_map(share).collect()
    }

    /// All lies that are told of this job; `honest` is what somebody else contributed.
    fn lies(&self, me: NodeId, honest: Header) -> Result<Vec<Lie>> {
        let of = |change: &dyn Fn(&mut Pending)| {
            let mut pending = self.pending(me);
            change(&mut pending);
            self.shares(&self.job, pending)
        };
        let headed = |change: &dyn Fn(&mut Header)| {
            let mut shares = of(&|_| {});
            for (_, message) in &mut shares {
                if let Message::Share { header, .. } = message {
                    change(header);
                }
            }
            shares
        };
        let lie = |what, why, shares| Lie { what, shares, why };
        // The wire knows whole numbers alone: these are the bits of one that is none.
        let nan = f32::NAN.to_bits().cast_signed();
        let mut all = vec![
            lie("what another node contributed", "sender", headed(&|header| *header = honest)),
            lie("digests of other shares", "digest", headed(&|header| header.sharing = [0; 32])),
            lie("a number with a gap before it", "ahead", of(&|one| one.id.seq = 7)),
            lie("no examples", "update", of(&|one| one.examples = 0)),
            lie("an oversized update", "update", of(&|one| one.levels = vec![1; OVERSIZED])),
        ];
        match self.job.mode {
            Mode::Plain(_) => all.extend([
                lie("a value beyond the clip", "update", of(&|one| one.levels[0] = LEVEL_MAX + 1)),
                lie("no number", "update", of(&|one| one.levels[0] = nan)),
            ]),
            Mode::Secure => all.extend(self.sealed_lies(me)?),
        }
        Ok(all)
    }

    /// Those that only anchors which see no update have to find.
    fn sealed_lies(&self, me: NodeId) -> Result<[Lie; 3]> {
        let unguarded = Arc::new(Job { guard: None, ..(*self.job).clone() });
        let garbage = vec![vec![1; 500]; self.job.scheme.anchors()];
        let mut dice = Dice::keyed(7, "shares of no polynomial");
        let len = self.job.scheme.share_len(self.job.payload_len()) + CHECKS;
        let seats = self.first.committee.seats.iter().enumerate();
        let drawn = seats.map(|(place, seat)| {
            let share: Vec<Fp> = (0..len).map(|_| Fp::reduced(dice.next())).collect();
            let context = self.context(&self.pending(me).id, place);
            Ok(seal(&share, &seat.key, &Seed([place as u8 + 1; 32]), &context)?)
        });
        let drawn: Vec<Vec<u8>> = drawn.collect::<Result<_>>()?;
        let lie = |what, why, shares| Lie { what, shares, why };
        Ok([
            lie("shares without a proof", "unproven", self.shares(&unguarded, self.pending(me))),
            lie("what is sealed to nobody", "sealed", self.resealed(me, &garbage)?),
            lie("shares that lie on no polynomial", "unproven", self.resealed(me, &drawn)?),
        ])
    }

    /// A contribution with something else sealed in it, whose digests fit.
    fn resealed(&self, me: NodeId, sealed: &[Vec<u8>]) -> Result<Shares> {
        let digests: Vec<Digest> = sealed.iter().map(|one| *blake3::hash(one).as_bytes()).collect();
        let each = self.shares(&self.job, self.pending(me)).into_iter().zip(sealed);
        let other = each.map(|((to, message), sealed)| {
            let Message::Share { mut header, payload: Payload::Proven { proof, .. }, .. } = message
            else {
                bail!("a share without a proof");
            };
            header.sharing = sharing(&digests, &proof);
            let payload = Payload::Proven { sealed: sealed.clone(), proof };
            Ok((to, Message::Share { header, digests: digests.clone(), payload }))
        });
        other.collect()
    }

    /// What a share is sealed for.
    fn context(&self, id: &ContributionId, place: usize) -> Vec<u8> {
        let mut bytes = b"\x01selvedge federated share\0".to_vec();
        bytes.extend(self.name);
        bytes.extend(id.client.node.0);
        let numbers = [id.client.incarnation, id.seq, self.first.committee.epoch, place as u64];
        numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes
    }
}

/// The digest of all shares and of what proves them.
fn sharing(digests: &[Digest], proof: &[Fp]) -> Digest {
    let mut bytes = b"\x01selvedge federated sharing\0".to_vec();
    bytes.extend((digests.len() as u64).to_be_bytes());
    digests.iter().for_each(|digest| bytes.extend(digest));
    bytes.extend((proof.len() as u64).to_be_bytes());
    proof.iter().for_each(|one| bytes.extend(u64::from(one.residue()).to_be_bytes()));
    *blake3::hash(&bytes).as_bytes()
}

#[test]
fn a_member_that_lies_is_named_by_all_and_in_no_sum() {
    scenario(|s| {
        let specs: Vec<NodeSpec> = (0..5)
            .map(|node| learning::with_data(s.node(&format!("n{node}")), node))
            .collect::<Result<_>>()?;
        let mut nodes = s.mesh(&specs)?;
        s.step("two jobs run; all members are anchors");
        for (name, mode) in MODES {
            let file = s.path("job.toml");
            fs::write(&file, job(name, mode))?;
            nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
        }
        for (name, _) in MODES {
            let is_old = |job: &Value| job["round"].as_u64() > Some(MAX_STALENESS + 1);
            until(&nodes[0], name, "rounds enough", is_old)?;
        }

        let mut liar = joined(s, &nodes)?;
        let mut told = Vec::new();
        for (name, _) in MODES {
            let known = Known::of(&nodes[0], name)?;
            told.push((name, lies(s, &mut liar, &nodes, (name, &known))?));
            garbage(s, &liar, &nodes, &known)?;
        }

        let id = liar.node().to_string();
        for (name, reasons) in &told {
            s.step(&format!("{name}: one model everywhere, and everybody names the liar"));
            same_end(&nodes, name, |end| blames(end, &id, reasons))?;
            in_no_sum(s, &nodes[1], name, &id)?;
        }
        is_said(s, &nodes, &liar.node())?;

        s.step("whoever starts again still knows whom it refused");
        nodes[4].kill()?;
        nodes[4] = specs[4].up(s, &[])?;
        for (name, reasons) in &told {
            until(&nodes[4], name, "the liar", |job| blames(job, &id, reasons).is_ok())?;
        }
        Ok(())
    });
}

/// One member more, which lies.
pub(super) fn joined(s: &Scenario, nodes: &[Node]) -> Result<Liar> {
    s.step("another member joins, and is alive to all");
    let liar = Liar::join(NAME, &nodes[0].invite()?)?;
    for node in nodes {
        liar.meet(node.id.parse()?, node.quic)?;
    }
    for node in nodes {
        let is_alive = |view: &Value| admin::state(view, NAME) == "alive";
        node.admin()?.until("the liar", Deadline::patient(), is_alive)?;
    }
    Ok(liar)
}

fn job(name: &str, mode: &str) -> String {
    let job = learning::job(ROUNDS).replace("\"wear\"", &format!("\"{name}\""));
    job.replace("[pace]", &format!("{mode}[pace]"))
}

/// Tells all lies of a job while it runs, each to all anchors; the reasons for which they were
/// refused.
fn lies(
    s: &Scenario,
    liar: &mut Liar,
    nodes: &[Node],
    (name, known): (&str, &Known),
) -> Result<BTreeSet<&'static str>> {
    let asked = nodes[1].id.parse()?;
    let entries = liar.ask(asked, known.name, 0)?.certificate.close.entries;
    let honest = entries.first().context("an empty set")?.header;
    let mut reasons = BTreeSet::new();
    for Lie { what, shares, why } in known.lies(liar.node(), honest)? {
        s.step(&format!("{name}: {what}"));
        refused(liar, known, (what, shares), why)?;
        reasons.insert(why);
    }

    s.step(&format!("{name}: what is of a round long over is held, expires and counts nowhere"));
    let late = known.shares(&known.job, known.pending(liar.node()));
    let answers = liar.contribute(known.name, late.clone(), Deadline::patient())?;
    ensure!(answers.values().all(Result::is_ok), "{answers:?}");
    for node in nodes {
        until(node, name, "that it expired", |job| recorded(job) == Some(1))?;
    }
    s.step(&format!("{name}: the same bytes once more"));
    refused(liar, known, ("what is over", late), "replayed")?;
    reasons.insert("replayed");
    let now = until(&nodes[0], name, "the job", |_| true)?;
    ensure!(now["round"].as_u64() < Some(ROUNDS), "it was over before all lies were told: {now}");
    Ok(reasons)
}

/// All anchors refuse a contribution for this reason, and say so.
fn refused(
    liar: &mut Liar,
    known: &Known,
    (what, shares): (&str, Shares),
    why: &str,
) -> Result<()> {
    ensure!(shares.len() == known.first.committee.seats.len(), "{what}: {} shares", shares.len());
    for (anchor, answer) in liar.contribute(known.name, shares, Deadline::patient())? {
        let refused = answer.err().with_context(|| format!("{} took {what}", anchor.short()))?;
        ensure!(refused.kind() == why, "{what}: {refused}");
    }
    Ok(())
}

/// Contributions of the liar that were folded or expired.
pub(super) fn recorded(job: &Value) -> Option<u64> {
    let mut all = job["contributions"].as_array()?.iter();
    all.find(|one| one["node"] == NAME)?["contributions"].as_u64()
}

/// Bytes that mean nothing come to all nodes, and each says from whom.
fn garbage(s: &Scenario, liar: &Liar, nodes: &[Node], known: &Known) -> Result<()> {
    s.step("bytes that nobody can read");
    let shares = known.shares(&known.job, known.pending(liar.node()));
    let (_, share) = shares.into_iter().next().context("no share")?;
    let said = format!("node=\"{NAME}\" id=\"{}\" reason=\"malformed\"", liar.node().short());
    for node in nodes {
        let to = node.id.parse()?;
        for bytes in [&[][..], &[0xff; 64], &[0; 3_000]] {
            liar.babble(to, bytes)?;
        }
        liar.stammer(to, known.name, share.clone())?;
        node.process.output().wait(&mut 0, Deadline::patient(), "a warning", |line| {
            let is_it = line.text.contains("a node sent what cannot be read");
            (is_it && line.source == Source::Err && line.text.contains(&said)).then_some(())
        })?;
    }
    Ok(())
}

/// All nodes come to the end of a job with the same model and record, and each is as it should be.
fn same_end(nodes: &[Node], name: &str, is_good: impl Fn(&Value) -> Result<()>) -> Result<()> {
    let is_over = |job: &Value| job["round"].as_u64() == Some(ROUNDS);
    let ends: Vec<Value> =
        nodes.iter().map(|node| until(node, name, "the end", is_over)).collect::<Result<_>>()?;
    for (end, node) in ends.iter().zip(nodes) {
        for what in ["model", "record", "job"] {
            ensure!(end[what] == ends[0][what] && end[what] != "", "{what}: {end}, {}", ends[0]);
        }
        is_good(end).with_context(|| format!("{}: {end}", node.name()))?;
        let told = node.cli(&["fed", "status", name])?.success()?;
        ensure!(told.contains("refused of") && told.contains(&format!("{NAME} (")), "{told}");
    }
    Ok(())
}

/// A job's status names the liar with all these reasons, and nobody else for what honest nodes do
/// not come to.
fn blames(job: &Value, id: &str, reasons: &BTreeSet<&'static str>) -> Result<()> {
    let all = job["refusals"].as_array().context("no refusals")?;
    let (own, others): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|one| one["id"].as_str() == Some(id));
    let [own] = own[..] else { bail!("the liar is named {} times", own.len()) };
    for why in reasons {
        ensure!(own["reasons"][why].as_u64() >= Some(1), "not for {why}: {own}");
    }
    for other in others {
        let mut whys = other["reasons"].as_object().context("no reasons")?.keys();
        ensure!(whys.all(|why| OF_TIMING.contains(&why.as_str())), "blamed: {other}");
    }
    Ok(())
}

/// The chain has one contribution of the liar, the one that expired.
fn in_no_sum(s: &Scenario, node: &Node, name: &str, id: &str) -> Result<()> {
    let path = s.path(&format!("{name}.safetensors")).display().to_string();
    node.cli(&["fed", "model", "export", name, &path])?.success()?;
    let told = node.cli(&["fed", "verify", &path, "--json", "--contributions"])?.success()?;
    let told: Value = serde_json::from_str(&told)?;
    let each = told["each_contribution"].as_array().context("no contributions")?;
    let (own, others): (Vec<&Value>, Vec<&Value>) =
        each.iter().partition(|one| one["node"].as_str() == Some(id));
    let [own] = own[..] else { bail!("{} contributions of the liar", own.len()) };
    ensure!(own["weight"].is_null() && own["expired"] == "stale", "{own}");
    ensure!(others.len() as u64 >= 3 * ROUNDS, "{} of the others", others.len());
    let counted = told["contributions"].as_array().context("nobody counts")?;
    ensure!(counted.iter().all(|one| one["node"].as_str() != Some(id)), "{counted:?}");
    Ok(())
}

/// The log of each node warns of the liar, of each reason once, and of nobody else.
fn is_said(s: &Scenario, nodes: &[Node], liar: &NodeId) -> Result<()> {
    s.step("the logs warn of the liar, of each reason once, and of nobody else");
    let liar = liar.short();
    for node in nodes {
        let log = node.process.output().text(Source::Err);
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains("a contribution is refused")).collect();
        ensure!(lines.iter().all(|line| line.contains(&liar)), "{lines:#?}");
        for (name, _) in MODES {
            for why in ["sender", "digest", "update"] {
                let (job, reason) = (format!("job=\"{name}\""), format!("reason=\"{why}\""));
                let is_it = |line: &&&str| line.contains(&job) && line.contains(&reason);
                let found = lines.iter().filter(is_it).count();
                ensure!(found == 1, "{found} lines of {why} in {name}: {lines:#?}");
            }
        }
    }
    Ok(())
}
