//! Those who look on while a run is made: the grid on the terminal, the bar, several at once.

use indicatif::ProgressBar;
use selvedge_sim::grid::Grid;
use selvedge_sim::watch::Record;
use selvedge_sim::{Event, Plan, Standing, Watch};

use crate::ui;

/// Several who look on.
pub(super) struct Watchers<'a>(pub(super) Vec<&'a mut dyn Watch>);

impl Watch for Watchers<'_> {
    fn wants_events(&self) -> bool {
        self.0.iter().any(|one| one.wants_events())
    }

    fn wants_records(&self) -> bool {
        self.0.iter().any(|one| one.wants_records())
    }

    fn event(&mut self, event: Event) {
        let Some((last, others)) = self.0.split_last_mut() else { return };
        for one in others {
            one.event(event.clone());
        }
        last.event(event);
    }

    fn standing(&mut self, standing: Standing) {
        for one in &mut self.0 {
            one.standing(standing);
        }
    }

    fn record(&mut self, record: Record<'_>) {
        for one in &mut self.0 {
            one.record(record);
        }
    }
}

/// Prints the grid as the run goes on.
pub(super) struct Lines(Grid);

impl Lines {
    /// Prints the header, too.
    pub(super) fn new(plan: &Plan) -> Self {
        let grid = Grid::new(plan);
        ui::out(grid.header());
        Self(grid)
    }
}

impl Watch for Lines {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, event: Event) {
        if let Some(line) = self.0.line(&event) {
            ui::out(line);
        }
    }

    fn standing(&mut self, standing: Standing) {
        self.0.stand(&standing);
    }
}

/// Shows on a terminal how far virtual time has come.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(plan: &Plan) -> Self {
        Self(ui::bar(plan.span.0 / MILLIS, "{bar:28.cyan/blue} {percent:>3}%  {msg}"))
    }

    pub(super) fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    pub(super) fn done(&self) {
        self.0.finish_and_clear();
    }
}

/// Microseconds of virtual time to a step of the bar.
const MILLIS: u64 = 1_000;

impl Watch for Bar {
    fn wants_events(&self) -> bool {
        self.is_shown()
    }

    fn event(&mut self, event: Event) {
        self.0.set_position(event.at.0 / MILLIS);
        self.0.set_message(format!("{} s of virtual time", event.at.0 / 1_000_000));
    }
}
