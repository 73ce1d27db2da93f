//! `selvedge budget`: limits, and what is spent and left of them.

use anyhow::Result;

use super::keys::escaped;
use super::mesh::{date_text, find};
use crate::amount::{Amount, Measure, grouped};
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui::{self, Ink, paint, wait_text};

/// Characters of a budget's bar, and of a node's.
const BAR: usize = 40;
const NODE_BAR: usize = 16;

/// Carries out a command on budgets.
pub(crate) fn budgets(home: &Home, command: &cli::Budget) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Budget::Set(options) => {
            let request = request(&client, options)?;
            tell(&client.post("/admin/budgets", &request)?);
        }
        cli::Budget::Lower { path, name, limit } => {
            let (path, name, limit) = (path.clone(), name.clone(), limit.clone());
            let request = wire::LowerRequest { path, name, limit };
            let done: wire::Done = client.post("/admin/budgets/lower", &request)?;
            ui::out(done.done);
        }
        cli::Budget::Remove { path, name } => {
            let request = wire::RemoveRequest { path: path.clone(), name: name.clone() };
            tell(&client.post("/admin/budgets/remove", &request)?);
        }
        cli::Budget::Show { path, json } => {
            let path = path.as_deref().map(|path| format!("/{}", escaped(path)));
            let path = format!("/admin/budgets{}", path.unwrap_or_default());
            let budgets: wire::List<wire::Budget> = client.get(&path)?;
            if *json {
                ui::out(serde_json::to_string_pretty(&budgets)?);
            } else if budgets.data.is_empty() {
                ui::out("no budgets; `selvedge budget set PATH \"20000 tokens/hour\"` makes one");
            } else {
                ui::out(told(&budgets.data));
            }
        }
        cli::Budget::Renew => tell(&client.post("/admin/budgets/renew", &serde_json::json!({}))?),
    }
    Ok(())
}

fn request(client: &Client, options: &cli::BudgetSet) -> Result<wire::BudgetRequest> {
    let weight = |(node, weight): &(String, u32)| -> Result<wire::Weight> {
        Ok(wire::Weight { node: find(client, node)?.node, weight: *weight })
    };
    Ok(wire::BudgetRequest {
        path: options.path.clone(),
        amount: options.amount.to_string(),
        name: options.name.clone(),
        elastic: options.elastic.clone(),
        on_exhausted: options.on_exhausted.clone(),
        scope: options.scope.clone(),
        sub_windows: Some(options.sub_windows),
        reclaimable: options.reclaimable,
        weights: options.weight.iter().map(weight).collect::<Result<_>>()?,
    })
}

fn tell(enacted: &wire::Enacted) {
    ui::out(&enacted.done);
    if enacted.in_force {
        return;
    }
    let from = date_text(enacted.from_ms);
    if enacted.waiting_for.is_empty() {
        ui::note(format_args!("A change counts for windows that begin after {from}."));
    } else {
        ui::note(format_args!(
            "A change counts for windows that begin after {from}, and after these nodes have taken \
             it on: {}. Until then each node keeps to the smaller of its old and its new share.",
            enacted.waiting_for.join(", ")
        ));
    }
}

/// Budgets for people: what is spent and left, and who holds how much.
pub(super) fn told(budgets: &[wire::Budget]) -> String {
    budgets.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

fn one(budget: &wire::Budget) -> String {
    let amount = Amount { limit: budget.limit, measure: budget.unit, span: budget.period };
    let mut text = format!(
        "{}  {}  {amount}",
        paint(Ink::Bold, &budget.account),
        paint(Ink::Cyan, &budget.name)
    );
    if !budget.in_force {
        text.push_str(&format!("\n  {}", paint(Ink::Red, NOT_IN_FORCE)));
    }
    match budget.unit {
        // Nothing of a rate is ever spent: what there is to see is who may serve how much of it.
        Measure::Rate => {}
        Measure::Concurrent => counted(budget, "in use", &mut text),
        Measure::Tokens | Measure::Requests | Measure::MicroDollars => {
            counted(budget, "spent", &mut text);
        }
    }
    if budget.reclaimable {
        text.push_str(&format!("\n  {}", witnesses(budget)));
    }
    if !budget.nodes.is_empty() {
        for line in shares(budget).lines() {
            text.push_str(&format!("\n  {line}"));
        }
    }
    text
}

/// Whether what this node has left can be spent, and be taken over.
fn witnesses(budget: &wire::Budget) -> String {
    match (budget.witnesses_needed, budget.witnesses_reached) {
        (Some(needed), Some(reached)) if reached < needed => {
            let text = format!(
                "reclaimable: {reached} of {needed} witnesses in reach, so only what is witnessed \
                 already may be spent here"
            );
            paint(Ink::Yellow, &text)
        }
        (Some(needed), Some(reached)) => {
            format!("reclaimable: {needed} witnesses needed, {reached} in reach")
        }
        (None, _) | (_, None) => "reclaimable".to_owned(),
    }
}

/// What is used of a budget, reserved and left.
fn counted(budget: &wire::Budget, used: &str, text: &mut String) {
    let count = |count| budget.unit.text(count);
    let ink = match (budget.left, budget.left.saturating_mul(5) < budget.limit) {
        (0, _) => Ink::Red,
        (_, true) => Ink::Yellow,
        (_, false) => Ink::Green,
    };
    text.push_str(&format!(
        "\n  {}  {} left of {}",
        bar(budget.spent, budget.reserved, budget.limit, BAR),
        paint(ink, count(budget.left)),
        count(budget.limit)
    ));
    text.push_str(&format!(
        "\n  {used} {}, reserved {}",
        count(budget.spent),
        count(budget.reserved)
    ));
    if budget.debt > 0 {
        text.push_str(&format!(", owed from the next window {}", count(budget.debt)));
    }
    if let (Some(at), Some(wait)) = (budget.resets_ms, budget.resets_in_us) {
        text.push_str(&format!("; resets in {}, at {}", wait_text(wait), date_text(at)));
    }
    let shares_sum = budget.nodes.iter().fold(0_u64, |sum, share| sum.saturating_add(share.rights));
    if budget.period.is_some() && budget.in_force && shares_sum < budget.limit {
        text.push_str(&format!(
            "\n  the shares add up to {} now: the rest comes with the window's next step, or with \
             the next window",
            count(shares_sum)
        ));
    }
}

const NOT_IN_FORCE: &str = "nothing may be spent: no configuration is in force here; it ran out, \
                            or this node's clock is wrong";

fn shares(budget: &wire::Budget) -> String {
    let used = if budget.unit == Measure::Concurrent { "in use" } else { "spent" };
    let mut rows = vec![["node", "rights", used, "asked for", ""].map(ToOwned::to_owned).to_vec()];
    rows.extend(budget.nodes.iter().map(|share| {
        let mut name = if share.me { format!("{} (this)", share.name) } else { share.name.clone() };
        if let Some(by) = &share.reclaimed_by {
            name.push_str(&format!(", taken over by {by}"));
        }
        vec![
            name,
            budget.unit.text(share.rights),
            budget.unit.text(share.spent),
            rate_text(budget.unit, share.demand_milli),
            bar(share.spent, 0, share.rights, NODE_BAR),
        ]
    }));
    ui::table(&rows)
}

/// What is asked for per second, to a tenth.
fn rate_text(unit: Measure, milli: u64) -> String {
    match unit {
        Measure::MicroDollars => format!("{}/s", unit.text(milli / 1_000)),
        Measure::Tokens | Measure::Requests | Measure::Concurrent | Measure::Rate => {
            format!("{}.{}/s", grouped(milli / 1_000), milli % 1_000 / 100)
        }
    }
}

/// A part of a whole as a bar: what is spent is full, what is reserved is half.
fn bar(spent: u64, reserved: u64, whole: u64, width: usize) -> String {
    let cells = |part: u64| {
        let cells = u128::from(part) * width as u128 / u128::from(whole.max(1));
        usize::try_from(cells).unwrap_or(width).min(width)
    };
    let full = cells(spent);
    let half = cells(spent.saturating_add(reserved)).saturating_sub(full);
    let mut text = "━".repeat(full);
    text.push_str(&"╍".repeat(half));
    text.push_str(&"╌".repeat(width - full - half));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Span;

    fn budget() -> wire::Budget {
        let share = |name: &str, me, rights, spent| wire::Share {
            name: name.to_owned(),
            me,
            rights,
            spent,
            demand_milli: 1_250,
            ..wire::Share::default()
        };
        wire::Budget {
            account: "acme".to_owned(),
            name: "tokens-hour".to_owned(),
            unit: Measure::Tokens,
            period: Some(Span::Hour),
            limit: 20_000,
            spent: 6_000,
            reserved: 500,
            left: 13_500,
            debt: 0,
            spendable_here: 9_000,
            resets_ms: Some(1_795_345_200_000),
            resets_in_us: Some(1_380_000_000),
            in_force: true,
            reclaimable: false,
            witnesses_needed: None,
            witnesses_reached: None,
            nodes: vec![share("alder", true, 12_000, 3_000), share("birch", false, 8_000, 3_000)],
        }
    }

    #[test]
    fn a_budget_is_told_with_its_shares() {
        let text = told(&[budget()]);
        for part in [
            "acme  tokens-hour  20000 tokens/hour",
            "13,500 left of 20,000",
            "spent 6,000, reserved 500; resets in 23 min, at 2026-11-22 11:00 UTC",
            "alder (this)  12,000  3,000  1.2/s",
            "birch         8,000   3,000  1.2/s",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        for part in ["owed", "in force", "add up", "reclaimable"] {
            assert!(!text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn what_keeps_a_budget_from_being_spent_is_said() {
        let text = told(&[wire::Budget { limit: 50_000, ..budget() }]);
        assert!(text.contains("the shares add up to 20,000 now"), "{text}");
        let text = told(&[wire::Budget { in_force: false, debt: 7, ..budget() }]);
        assert!(text.contains("no configuration is in force"), "{text}");
        assert!(text.contains("owed from the next window 7"), "{text}");
    }

    #[test]
    fn a_reclaimable_budget_tells_its_witnesses_and_who_took_over() {
        let mut budget = wire::Budget { reclaimable: true, ..budget() };
        assert!(told(&[budget.clone()]).contains("reclaimable"));
        (budget.witnesses_needed, budget.witnesses_reached) = (Some(2), Some(3));
        budget.nodes[1].reclaimed_by = Some("alder".to_owned());
        let text = told(&[budget.clone()]);
        assert!(text.contains("reclaimable: 2 witnesses needed, 3 in reach"), "{text}");
        assert!(text.contains("birch, taken over by alder"), "{text}");
        budget.witnesses_reached = Some(1);
        let text = told(&[budget]);
        assert!(text.contains("1 of 2 witnesses in reach, so only what is witnessed"), "{text}");
    }

    #[test]
    fn bars_fill_from_the_left_and_never_overflow() {
        assert_eq!(bar(0, 0, 4, 4), "╌╌╌╌");
        assert_eq!(bar(1, 1, 4, 4), "━╍╌╌");
        assert_eq!(bar(9, 9, 4, 4), "━━━━");
        assert_eq!(bar(1, u64::MAX, 4, 4), "━╍╍╍");
        assert_eq!(bar(0, 0, 0, 2), "╌╌");
    }
}
