//! Jobs of learning, between the admin API's words and the runtime's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{BoxStream, StreamExt as _};
use selvedge_base::{NodeId, Refusal, RequestId, Wall};
use selvedge_federated::fits::{Answer, Outlook};
use selvedge_federated::round::{Mode, OpenRound};
use selvedge_federated::server::Strategy;
use selvedge_runtime::{
    Admin, Announced, FitsReport, Gateway, JobProgress, JobRun, JobView, Labelled, Labeller,
    MeshView, NodeFits, PartProgress, PersonalProgress, RoundMeasured, name_taken,
};
use serde_json::Value;

use super::{Bridge, done, said};
use crate::http::{FederatedOrder, wire};

impl Bridge {
    pub(super) async fn federated(&self, order: FederatedOrder) -> Result<Value, Refusal> {
        match order {
            FederatedOrder::List => said(&listed(&self.admin, &self.gateway)),
            FederatedOrder::Name(name) => {
                said(&wire::FederatedName { taken: taken(&self.gateway, &name) })
            }
            FederatedOrder::Label(id, labels) => {
                said(&self.labelled(id, Labeller::Operator, labels).await?)
            }
            FederatedOrder::Forget(model) => {
                let count = self.admin.labelled_forget(&model).await?;
                done(format!("forgot {count} labelled requests to {model}"))
            }
            FederatedOrder::Submit(text, anyway) => self.federated_submit(&text, anyway).await,
            FederatedOrder::Check(text, starts) => {
                said(&checked(&self.admin.federated_check(&text, starts).await?))
            }
            FederatedOrder::Cancel(name) => {
                self.admin.federated_cancel(&name).await?;
                done(format!("cancelled {name}"))
            }
            FederatedOrder::Reseat(name) => {
                let nodes = self.admin.federated_reseat(&name).await?;
                let view = self.gateway.view();
                let names: Vec<String> = nodes.iter().map(|node| view.name_of(node)).collect();
                done(format!(
                    "{} are to be the anchors of {name} once those before them have ended their \
                     next round",
                    names.join(", ")
                ))
            }
            FederatedOrder::Personal(name) => {
                let bytes = self.admin.federated_personal(&name).await?;
                said(&wire::FederatedPiece { base64: bytes.map(|bytes| STANDARD.encode(bytes)) })
            }
            FederatedOrder::Piece(name, piece) => {
                let bytes = self.admin.federated_piece(&name, piece).await?;
                said(&wire::FederatedPiece { base64: bytes.map(|bytes| STANDARD.encode(bytes)) })
            }
        }
    }

    /// The jobs, now and again whenever they are shown otherwise.
    pub(super) fn federated_changes(&self) -> BoxStream<'static, wire::List<wire::FederatedJob>> {
        let mut changes = self.admin.federated_changes();
        // The first look is due at once.
        changes.mark_changed();
        let (admin, gateway) = (self.admin.clone(), self.gateway.clone());
        futures::stream::unfold((admin, gateway, changes), |(admin, gateway, mut changes)| async {
            // Fails only when the node is gone; then the stream ends.
            changes.changed().await.ok()?;
            let now = listed(&admin, &gateway);
            Some((now, (admin, gateway, changes)))
        })
        .boxed()
    }

    /// Gives a request its labels.
    pub(super) async fn labelled(
        &self,
        id: RequestId,
        by: Labeller,
        labels: Vec<u32>,
    ) -> Result<wire::Labelled, Refusal> {
        let Labelled { model, kept, forgotten } = self.gateway.label(id, by, labels).await?;
        Ok(wire::Labelled { model, kept, forgotten })
    }

    async fn federated_submit(&self, text: &str, anyway: bool) -> Result<Value, Refusal> {
        let name = self.admin.federated_submit(text, anyway).await?;
        let views = self.admin.federated_jobs();
        let told = views.iter().find(|view| view.name == name);
        said(&told.map(|view| job(view, &self.gateway)).unwrap_or_default())
    }
}

fn listed(admin: &Admin, gateway: &Gateway) -> wire::List<wire::FederatedJob> {
    wire::List { data: admin.federated_jobs().iter().map(|view| job(view, gateway)).collect() }
}

/// What members said of a job.
fn checked(report: &FitsReport) -> wire::FederatedCheck {
    let verdict = &report.verdict;
    let outlook = match verdict.outlook() {
        Outlook::Enough => "enough",
        Outlook::Unsure => "unsure",
        Outlook::TooFew => "few",
    };
    wire::FederatedCheck {
        name: report.name.clone(),
        data: report.data.clone(),
        outlook: outlook.to_owned(),
        needed: verdict.needed as u64,
        fit: verdict.nodes as u64,
        clients: verdict.clients as u64,
        unsaid: verdict.unsaid as u64,
        away: verdict.away as u64,
        anchors: report.anchors as u64,
        anchors_reached: report.anchors_reached as u64,
        max_examples: report.max_examples.map(u64::from),
        rounds: report.rounds,
        sample_permille: report.sample_permille.into(),
        contributions_allowed: report.allowed,
        contributions_left: report.left,
        // This node is the first one.
        nodes: (0..).zip(&report.nodes).map(|(at, one)| fit(one, at == 0)).collect(),
    }
}

fn fit(one: &NodeFits, me: bool) -> wire::FederatedFit {
    let (answer, fit) = match one.answer {
        Answer::Said(fit) => (if fit.trains() { "fits" } else { "unfit" }, fit),
        Answer::Busy => ("busy", Default::default()),
        Answer::Late => ("late", Default::default()),
        Answer::Older => ("older", Default::default()),
        Answer::Unreached => ("unreached", Default::default()),
        Answer::Away => ("away", Default::default()),
    };
    wire::FederatedFit {
        node: one.name.clone(),
        id: one.node.to_string(),
        me,
        answer: answer.to_owned(),
        reason: fit.misfit.map(|misfit| misfit.word().to_owned()),
        why: one.why.clone(),
        clients: fit.clients.into(),
        examples: fit.examples,
    }
}

/// Why a job's model would not answer to a name, if so.
fn taken(gateway: &Gateway, name: &str) -> Option<String> {
    gateway.name_taken(name).map(|what| name_taken(name, what))
}

fn job(view: &JobView, gateway: &Gateway) -> wire::FederatedJob {
    let name = view.name.clone();
    match &view.run {
        JobRun::Not { why } => {
            let not_here = Some(why.clone());
            wire::FederatedJob { name, not_here, ..wire::FederatedJob::default() }
        }
        JobRun::Runs { job, told, progress, sent, data_spent, wanted } => {
            let (served, not_served) = match (told.task.subject.as_model(), &progress.answers) {
                (Some(_), _) => {
                    let not_served = taken(gateway, &name);
                    let is_there = progress.round > 0 && not_served.is_none();
                    (is_there.then_some(progress.round), not_served)
                }
                (None, Some(Ok(round))) => (Some(*round), None),
                (None, Some(Err(why))) => (None, Some(why.clone())),
                (None, None) => (None, taken(gateway, &name)),
            };
            let writes_text = told.task.subject.as_tuning().is_some();
            let view = gateway.view();
            let job = running((name, job.clone(), *sent), told, progress, &view);
            let data_epsilon_millionths = data_spent.map(|spent| spent.0);
            let anchors_wanted = wanted.iter().map(|node| view.name_of(node)).collect();
            wire::FederatedJob {
                data_epsilon_millionths,
                served,
                not_served,
                writes_text,
                anchors_wanted,
                ..job
            }
        }
    }
}

fn running(
    (name, job, sent_bytes): (String, String, u64),
    told: &Announced,
    progress: &JobProgress,
    mesh: &MeshView,
) -> wire::FederatedJob {
    let rules = &told.job;
    let measured = progress.measured.iter().map(measured);
    let contributions = progress.contributions.iter().map(|(node, count)| wire::FederatedClient {
        node: mesh.name_of(node),
        contributions: *count,
    });
    let is_usable =
        |node: &&NodeId| mesh.nodes.iter().any(|one| one.node == **node && one.is_usable());
    let lost = progress.anchors.iter().filter(|node| !is_usable(node));
    let refusals = progress.refusals.iter().map(|(node, reasons)| wire::FederatedRefusal {
        node: mesh.name_of(node),
        id: node.to_string(),
        reasons: reasons.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
    });
    wire::FederatedJob {
        name,
        not_here: None,
        job,
        round: progress.round,
        rounds: rules.rounds,
        strategy: method(rules.strategy).to_owned(),
        secure: matches!(rules.mode, Mode::Secure),
        rule: rules.rule().to_string(),
        groups: rules.groups().into(),
        min_clients: rules.min_clients as u64,
        clients_per_node: rules.per_node.into(),
        weights: rules.dim as u64,
        data: told.task.data.clone(),
        record: progress.record.clone(),
        model: progress.model.clone(),
        served: None,
        not_served: None,
        writes_text: false,
        anchors: progress.anchors.iter().map(|node| mesh.name_of(node)).collect(),
        anchors_not_reached: lost.map(|node| mesh.name_of(node)).collect(),
        anchors_needed: rules.gathering() as u64,
        anchors_wanted: Vec::new(),
        open_round: progress.open.as_ref().map(|open| {
            let needed = rules.floor() as u64;
            let too_few = progress.too_few == Some(open.round);
            wire::FederatedRound { needed, too_few, ..open_round(open, mesh) }
        }),
        contributions: contributions.collect(),
        refused: progress.refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
        refusals: refusals.collect(),
        examples: progress.examples,
        not_training: progress.why_not.clone(),
        has_left: progress.has_left,
        stopped: progress.stopped.clone(),
        training: progress.training,
        counted: progress.counted,
        expired: progress.expired,
        epsilon_spent_millionths: progress.spent.map(|spent| spent.0),
        data_epsilon_millionths: None,
        epsilon_millionths: rules.privacy.map(|privacy| privacy.epsilon.0),
        measured: measured.collect(),
        parts: progress.parts.iter().filter_map(part).collect(),
        clients: progress.parts.iter().filter(|one| one.examples.is_some()).map(gave).collect(),
        personal: progress.personal.as_ref().map(personal),
        sent_bytes,
        lines: progress.lines.clone(),
    }
}

fn open_round(open: &OpenRound, mesh: &MeshView) -> wire::FederatedRound {
    let OpenRound { round, phase, proposer, nodes } = *open;
    wire::FederatedRound {
        round,
        phase: phase.word().to_owned(),
        proposer: proposer.map(|node| mesh.name_of(&node)),
        here: proposer == Some(mesh.me),
        contributed: nodes as u64,
        ..wire::FederatedRound::default()
    }
}

/// What one of the node's clients gave.
fn gave(one: &PartProgress) -> wire::FederatedContributed {
    wire::FederatedContributed {
        part: one.part.clone(),
        client: format!("{:016x}", one.client),
        written: one.written,
        receipted: one.receipted,
        under_way: one.under_way,
    }
}

/// A part of the data; all of them together are the node's own row.
fn part(one: &PartProgress) -> Option<wire::FederatedPart> {
    Some(wire::FederatedPart {
        part: one.part.clone()?,
        examples: one.examples,
        not_training: one.why_not.clone(),
        has_left: one.has_left,
        training: one.training,
        counted: one.counted,
        expired: one.expired,
        epsilon_spent_millionths: one.spent.map(|spent| spent.0),
        data_epsilon_millionths: one.data_spent.map(|spent| spent.0),
        measured: one.measured.iter().map(measured).collect(),
    })
}

fn measured(one: &RoundMeasured) -> wire::FederatedMeasured {
    let RoundMeasured { round, right, examples, loss_micronats } = *one;
    wire::FederatedMeasured { round, right, examples, loss_micronats }
}

fn personal(own: &PersonalProgress) -> wire::FederatedPersonal {
    let refused = own.refused.iter().map(|(why, count)| ((*why).to_owned(), *count));
    wire::FederatedPersonal {
        no_quorum_since_s: own.no_quorum_since.map(Wall::as_secs),
        round: own.round,
        age: own.age,
        mixed: own.mixed,
        refused: refused.collect(),
        measured: own.measured.as_ref().map(measured),
    }
}

/// What people call a strategy.
pub(crate) const fn method(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Average { proximal_permille: 0 } => "FedAvg",
        Strategy::Average { .. } => "FedProx",
        Strategy::Adam { .. } => "FedAdam",
        Strategy::Scaffold { .. } => "SCAFFOLD",
    }
}
