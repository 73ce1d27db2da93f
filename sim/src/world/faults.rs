//! How faults begin and end.

use selvedge_base::Micros;
use selvedge_proto::swim::SwimInput;

use super::{Load, Packet, World};
use crate::marks::Mark;
use crate::plan::FaultKind;
use crate::watch::{Event, EventKind};

impl World<'_> {
    pub(super) fn begin(&mut self, index: usize) {
        let plan = self.plan;
        let kind = &plan.faults[index].kind;
        *self.counters.faults.entry(kind.as_str().to_owned()).or_default() += 1;
        self.record("fault", [index, 0], kind.as_str().as_bytes());
        self.show_fault(EventKind::FaultBegan, index);
        let now = self.now.0;
        match kind {
            FaultKind::Crash { node, reset } => {
                self.die(*node);
                if *reset {
                    self.say_goodbye(*node);
                }
                self.fired(index);
            }
            FaultKind::TornCrash { node }
            | FaultKind::Wipe { node }
            | FaultKind::DiskRot { node }
            | FaultKind::Death { node }
            | FaultKind::LostWrites { node, .. }
            | FaultKind::Upgrade { node }
            | FaultKind::BootBack { node, .. }
            | FaultKind::Boot1970 { node } => {
                self.die(*node);
                self.fired(index);
            }
            FaultKind::Backup { node } => self.nodes[*node].disk.back_up(now),
            FaultKind::Pause { node } => {
                self.nodes[*node].pauses += 1;
                self.show(EventKind::Stopped, *node, None, String::new);
                self.fired(index);
            }
            FaultKind::Freeze { node } => {
                self.nodes[*node].freezes += 1;
                if self.nodes[*node].memory.engine.owners().next().is_some() {
                    self.hit(Mark::ServerFroze);
                }
                self.nodes[*node].memory.engine.frozen = true;
                self.fired(index);
            }
            FaultKind::RevokeNode { node, by } => self.revoke_node(index, *node, *by),
            FaultKind::Lower { .. } | FaultKind::Suspend { .. } => self.cut(index, kind),
            FaultKind::RevokeKey { tenant, node } => self.revoke_keys(index, *tenant, *node),
            FaultKind::Relimit { tenant, permille } => self.relimit(index, *tenant, *permille),
            FaultKind::Reroute { node, how } => self.reroute(index, *node, *how),
            FaultKind::Join { node } => self.begin_to_join(index, *node),
            FaultKind::GuessCode { node } => self.guess_code(index, *node),
            FaultKind::Leave { node } => self.leave(index, *node),
            FaultKind::Purge { node, account, model } => {
                self.purge(index, *node, (account.as_deref(), model.as_deref()));
            }
            FaultKind::Garble { node } => self.garble(index, *node),
            FaultKind::Forge { node } => self.forge(index, *node),
            FaultKind::Replay { node } => self.replay(index, *node),
            FaultKind::Equivocate { node } => self.equivocate(index, *node),
            parts => self.begin_in_parts(index, parts),
        }
        self.learn_truth();
    }

    /// What goes wrong with a part of a machine, or between machines.
    fn begin_in_parts(&mut self, index: usize, kind: &FaultKind) {
        let now = self.now.0;
        match kind {
            FaultKind::Throttle { node, times } => {
                self.nodes[*node].throttles.push(*times);
                self.set_throttle(*node);
                self.fired(index);
            }
            FaultKind::ShortOfMemory { node } => {
                self.nodes[*node].shortages += 1;
                self.nodes[*node].memory.engine.squeeze(true);
                self.fired(index);
            }
            FaultKind::OutOfMemory { node } => {
                let well = self.nodes[*node].load_failures == 0;
                self.fail_engine(*node, true);
                if well {
                    self.fail_engine(*node, false);
                }
                self.fired(index);
            }
            FaultKind::LoadFailure { node } => {
                self.nodes[*node].load_failures += 1;
                self.fail_engine(*node, true);
                self.fired(index);
            }
            FaultKind::LowBattery { .. } | FaultKind::Hot { .. } => {
                self.strained(kind, true);
                self.fired(index);
            }
            FaultKind::DiskSlow { node, by } => {
                self.nodes[*node].disk.slow = *by;
            }
            FaultKind::DiskFull { node } => self.nodes[*node].disk.full += 1,
            FaultKind::DiskErrors { node, permille } => {
                self.nodes[*node].disk.errors_permille = *permille;
            }
            FaultKind::PowerLost { node, ahead: by } | FaultKind::ClockOff { node, by } => {
                self.nodes[*node].clock.step(*by);
                self.show(EventKind::ClockSet, *node, None, || format!("off by {by} ms"));
                self.fired(index);
            }
            FaultKind::ClockDrift { node, ppm } => {
                self.nodes[*node].clock.drift(now, Some(*ppm));
                self.fired(index);
            }
            FaultKind::FalseAdvert { node } => {
                self.nodes[*node].boasts += 1;
                self.fired(index);
            }
            FaultKind::Provider { provider, how, by } => {
                self.clouds[*provider].begin(index, *how, *by);
            }
            FaultKind::InternetCut { left } => self.cuts.push((index, left.clone())),
            cut => self.network.begin(index, now, cut),
        }
    }

    pub(super) fn end(&mut self, index: usize) {
        let plan = self.plan;
        let kind = &plan.faults[index].kind;
        self.record("healed", [index, 0], kind.as_str().as_bytes());
        self.show_fault(EventKind::FaultEnded, index);
        let now = self.now.0;
        match kind {
            FaultKind::Crash { node, .. } | FaultKind::TornCrash { node } => self.rise(*node),
            FaultKind::Wipe { node } | FaultKind::DiskRot { node } => {
                self.nodes[*node].disk.wipe();
                self.set_up_settings(*node);
                self.secrets.forget(*node);
                self.rise(*node);
            }
            FaultKind::LostWrites { node, back } => {
                if self.nodes[*node].disk.forget(now, *back) {
                    self.hit(Mark::RolledBack);
                }
                self.disk_forgot(*node);
                self.rise(*node);
            }
            FaultKind::Upgrade { node } => {
                self.nodes[*node].version = selvedge_base::codec::VERSION;
                self.rise(*node);
            }
            FaultKind::Boot1970 { node } => {
                self.nodes[*node].clock.begin_in_1970(Some(now));
                self.hit(Mark::ClockBefore2000);
                self.show(EventKind::ClockSet, *node, None, || "in 1970".to_owned());
                self.rise(*node);
            }
            FaultKind::PowerLost { node, .. } => {
                self.die(*node);
                self.nodes[*node].clock.set();
                self.show(EventKind::ClockSet, *node, None, || "right".to_owned());
                self.rise(*node);
            }
            FaultKind::BootBack { node, by } => {
                self.nodes[*node].clock.step(-by.saturating_abs());
                self.show(EventKind::ClockSet, *node, None, || format!("set back by {by} ms"));
                self.rise(*node);
            }
            FaultKind::Backup { node } => {
                self.die(*node);
                if self.nodes[*node].disk.restore() {
                    self.hit(Mark::RolledBack);
                }
                self.disk_forgot(*node);
                self.fired(index);
                self.rise(*node);
            }
            FaultKind::Pause { node } => {
                self.nodes[*node].pauses -= 1;
                if self.nodes[*node].acts() {
                    self.learn_truth();
                    self.checker.went_on(now, *node);
                    self.show(EventKind::WentOn, *node, None, String::new);
                    self.go_on(*node);
                }
            }
            parts => self.end_in_parts(index, parts),
        }
        self.learn_truth();
    }

    /// A part of a machine, or the way between machines, is well again.
    fn end_in_parts(&mut self, index: usize, kind: &FaultKind) {
        match kind {
            FaultKind::Freeze { node } => self.thaw(*node),
            FaultKind::Throttle { node, times } => {
                let throttles = &mut self.nodes[*node].throttles;
                if let Some(at) = throttles.iter().position(|one| one == times) {
                    throttles.remove(at);
                }
                self.set_throttle(*node);
            }
            FaultKind::LowBattery { .. } | FaultKind::Hot { .. } => self.strained(kind, false),
            FaultKind::ShortOfMemory { node } => {
                self.nodes[*node].shortages -= 1;
                let short = self.nodes[*node].shortages > 0;
                self.nodes[*node].memory.engine.squeeze(short);
            }
            FaultKind::LoadFailure { node } => {
                self.nodes[*node].load_failures -= 1;
                if self.nodes[*node].load_failures == 0 {
                    self.fail_engine(*node, false);
                }
            }
            FaultKind::DiskSlow { node, .. } => {
                self.nodes[*node].disk.slow = Micros::ZERO;
                self.fired_if(index, self.nodes[*node].disk.writes > 0);
            }
            FaultKind::DiskFull { node } => {
                self.nodes[*node].disk.full -= 1;
                self.fired_if(index, self.nodes[*node].disk.failures > 0);
            }
            FaultKind::DiskErrors { node, .. } => {
                self.nodes[*node].disk.errors_permille = 0;
                self.fired_if(index, self.nodes[*node].disk.failures > 0);
            }
            FaultKind::ClockOff { node, .. } | FaultKind::ClockDrift { node, .. } => {
                self.nodes[*node].clock.set();
                self.show(EventKind::ClockSet, *node, None, || "right".to_owned());
            }
            FaultKind::FalseAdvert { node } => self.nodes[*node].boasts -= 1,
            FaultKind::Provider { provider, .. } => self.end_outside(index, Some(*provider)),
            FaultKind::InternetCut { .. } => self.end_outside(index, None),
            FaultKind::Death { .. }
            | FaultKind::Join { .. }
            | FaultKind::GuessCode { .. }
            | FaultKind::Leave { .. }
            | FaultKind::Purge { .. }
            | FaultKind::RevokeNode { .. }
            | FaultKind::Relimit { .. }
            | FaultKind::Reroute { .. }
            | FaultKind::Lower { .. }
            | FaultKind::Suspend { .. }
            | FaultKind::RevokeKey { .. }
            | FaultKind::OutOfMemory { .. }
            | FaultKind::Garble { .. }
            | FaultKind::Forge { .. }
            | FaultKind::Replay { .. }
            | FaultKind::Equivocate { .. } => {}
            _ => {
                let hit = self.network.fired.remove(&index).is_some();
                self.fired_if(index, hit);
                self.network.end(index);
            }
        }
    }

    /// An engine computes again, unless another fault keeps it from that.
    fn thaw(&mut self, node: usize) {
        self.nodes[node].freezes -= 1;
        let frozen = self.nodes[node].freezes > 0;
        self.nodes[node].memory.engine.frozen = frozen;
        if frozen {
            return;
        }
        self.memory_awakes(node);
        if std::mem::take(&mut self.nodes[node].memory.engine.stalled) {
            self.later(node, self.now.0, super::Own::StepEnded);
        }
    }

    /// A provider, or the way to all of them, is well again.
    fn end_outside(&mut self, index: usize, provider: Option<usize>) {
        let met = match provider.and_then(|provider| self.clouds.get_mut(provider)) {
            Some(cloud) => {
                cloud.end(index);
                cloud.met.remove(&index)
            }
            None => {
                self.cuts.retain(|(known, _)| *known != index);
                self.cuts_met.remove(&index)
            }
        };
        self.fired_if(index, met);
    }

    /// A fault had an effect.
    pub(super) fn fired(&mut self, index: usize) {
        let name = self.plan.faults[index].kind.as_str();
        *self.counters.fired.entry(name.to_owned()).or_default() += 1;
    }

    fn fired_if(&mut self, index: usize, hit: bool) {
        if hit {
            self.fired(index);
        }
    }

    fn show_fault(&mut self, kind: EventKind, index: usize) {
        if self.watch.wants_events() {
            let fault = &self.plan.faults[index].kind;
            let event = Event {
                at: self.now.0,
                kind,
                node: fault.node(),
                peer: fault.peer(),
                request: None,
                span: Some(index as u64),
                budget: None,
                amount: None,
                text: fault.as_str().to_owned(),
            };
            self.watch.event(event);
        }
    }

    /// The process dies.
    pub(super) fn die(&mut self, node: usize) {
        self.nodes[node].crashes += 1;
        if self.nodes[node].crashes > 1 {
            return;
        }
        self.show(EventKind::Crashed, node, None, String::new);
        self.lose_requests(node);
        if self.nodes[node].disk.crash(self.now.0) {
            self.hit(Mark::CrashWithPendingWrite);
        }
        self.learn_truth();
    }

    /// The process starts again, unless another fault keeps it down.
    fn rise(&mut self, node: usize) {
        self.nodes[node].crashes -= 1;
        if self.nodes[node].crashes == 0 {
            self.checker.restarted(node);
            self.show(EventKind::Started, node, None, String::new);
            self.boot(node);
        }
    }

    /// A process that ends in good order closes its connections.
    pub(super) fn say_goodbye(&mut self, node: usize) {
        for peer in 0..self.nodes.len() {
            let Some(end) = self.nodes[node].memory.link(peer) else { continue };
            if let Some(delay) = self.network.reliable(self.now.0, node, peer) {
                self.deliver(peer, delay, Packet { from: node, conn: end.conn, load: Load::Reset });
            }
        }
    }

    /// A stopped process goes on: its socket is full, its timers are late.
    fn go_on(&mut self, node: usize) {
        self.memory_awakes(node);
        let backlog = std::mem::take(&mut self.nodes[node].memory.backlog);
        for packet in backlog {
            self.deliver(node, Micros::ZERO, packet);
        }
        let late = std::mem::take(&mut self.nodes[node].memory.late);
        for own in late {
            self.later(node, self.now.0, own);
        }
    }

    fn begin_to_join(&mut self, index: usize, node: usize) {
        if !self.belongs(node) {
            self.fired(index);
        }
        self.nodes[node].may_join = true;
        self.wants_in(node);
    }

    fn set_throttle(&mut self, node: usize) {
        let most = self.nodes[node].throttles.iter().copied().max().unwrap_or(1);
        self.nodes[node].memory.engine.throttle = most.max(1);
    }

    /// A steward puts a node out of the mesh. It is not told.
    fn revoke_node(&mut self, index: usize, node: usize, by: usize) {
        use selvedge_proto::records;
        if !self.nodes[by].acts() || node == by {
            return;
        }
        let wall = self.nodes[by].now(self.now.0).wall;
        if self.nodes[by].memory.roster.may_date(wall).is_err() {
            return self.hit(Mark::UndatedRefused);
        }
        let (mesh, id) = (self.nodes[by].memory.roster.mesh(), self.id(node));
        let notice = records::revoke(&self.names.root, None, mesh, id, wall);
        let roster = &mut self.nodes[by].memory.roster;
        if roster.apply_revocation(notice, wall).is_ok() {
            self.nodes[node].is_revoked = true;
            self.nodes[node].revoked_at = Some(wall);
            self.fired(index);
            self.hit(Mark::NodeRevoked);
            self.show(EventKind::PolicyChanged, by, node, || "put out of the mesh".to_owned());
            self.revocation_learnt(by, node);
        }
    }

    /// A node learns that another was put out.
    pub(super) fn revocation_learnt(&mut self, node: usize, peer: usize) {
        self.store_roster(node);
        if node == peer {
            return;
        }
        let id = self.id(peer);
        self.nodes[node].memory.rows.forget(&id);
        self.close(node, peer);
        self.step(node, SwimInput::PeerForgotten { node: id });
    }
}
