//! Whether nodes' data fit a job before it starts: the question to the node that runs, and what
//! members said in words.
//!
//! Owns those words, and when a job is not started. Which nodes are enough is the runtime's to say.

use anyhow::{Result, bail};

use crate::client::Client;
use crate::config::Config;
use crate::http::wire::{FederatedCheck, FederatedFit, FederatedQuestion};
use crate::ui;

/// What the columns of the table of members are.
const HEAD: [&str; 4] = ["NODE", "DATA", "EXAMPLES", "WHY"];
/// Members that one line names: a line of a terminal.
const MAX_NAMED: usize = 4;
/// Of a job's `max_examples` the part that the largest client should have: with a quarter it weighs
/// 16 of 64ths, and rounding moves weights by 3 % at most.
const COARSE: u64 = 4;

/// Asks the node that runs; its members have some seconds to say. With `starts` they are not asked
/// of a job that the node may not sign, or whose name is in use. `config` is what the
/// disk says now.
pub(super) fn ask(
    client: &Client,
    config: &Config,
    text: &str,
    starts: bool,
) -> Result<FederatedCheck> {
    if ui::fancy_stderr() {
        ui::note("asking the members whether their data fit, for 12 seconds at most");
    }
    let request = serde_json::to_value(FederatedQuestion { text: text.to_owned(), starts })?;
    let (mut told, _): (FederatedCheck, String) = client.ask("/admin/federated-check", &request)?;
    if config.data.contains_key(&told.data) {
        wants_restart(&mut told);
    }
    Ok(told)
}

/// The configuration on disk names the data. A node that says it has none was started before that:
/// a table, which is its own advice, is there.
fn wants_restart(told: &mut FederatedCheck) {
    let data = &told.data;
    let own = told.nodes.iter_mut().find(|one| one.me && one.reason.as_deref() == Some("source"));
    if let Some(own) = own {
        own.why = Some(format!(
            "the node runs with the configuration it was started with; restart it (`selvedge up`) \
             so that it sees '{data}'"
        ));
    }
}

/// Shows what each member said, and what follows.
pub(super) fn show(told: &FederatedCheck) {
    let head = HEAD.map(str::to_owned).to_vec();
    let rows = told.nodes.iter().map(|one| row(told, one));
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    ui::out(ui::table(&rows));
    ui::out(verdict(told));
    if let Some(warning) = coarse(told) {
        ui::warn(warning);
    }
    match leaves(told) {
        Some(warning) => ui::warn(warning),
        None if told.contributions_allowed.is_some() => ui::note(
            "what others' data have left of epsilon only they know: they may leave before the last \
             round",
        ),
        None => {}
    }
}

/// What this node's data have left, where that is less than the job allows. Whether a bound of
/// their own leaves so little or what earlier jobs had, the node does not tell apart.
pub(super) fn own_left(left: u64) -> String {
    format!(
        "this node's data have epsilon left for {} (their own bound or the job's, less what \
         earlier jobs had)",
        contributions(left)
    )
}

/// Contributions that rounds take of a client: it is asked in so many of a thousand.
pub(super) const fn due(rounds: u64, permille: u64) -> u64 {
    rounds.saturating_mul(permille).div_ceil(1_000)
}

fn contributions(count: u64) -> String {
    if count == 1 { "1 contribution".to_owned() } else { format!("{count} contributions") }
}

/// What to say of a job whose epsilon is spent before its last round, as far as this node knows.
fn leaves(told: &FederatedCheck) -> Option<String> {
    let FederatedCheck { name, rounds, needed, contributions_left: left, .. } = told;
    let allowed = told.contributions_allowed?;
    let most = left.unwrap_or(allowed);
    if most >= due(*rounds, told.sample_permille) {
        return None;
    }
    let (who, raise) = match left {
        Some(left) if *left < allowed => (own_left(*left), ", or raise the bound of the data"),
        Some(_) | None => {
            (format!("the job's epsilon allows a client {}", contributions(most)), "")
        }
    };
    Some(format!(
        "{who}, fewer than {rounds} rounds take, and others may leave earlier: only they know \
         what their data have left. No round ends once fewer than {needed} nodes are left; then \
         `selvedge fed cancel {name}`, or now more epsilon, more noise or fewer rounds{raise}"
    ))
}

/// What to say where clients have so few examples that rounding makes them weigh alike. Only where
/// all that are there have said: another may have more.
fn coarse(told: &FederatedCheck) -> Option<String> {
    let most = told.max_examples.filter(|_| told.unsaid == 0)?;
    // What a node has is told for all of its clients together: each has as much at most.
    let largest =
        told.nodes.iter().filter(|one| one.answer == "fits").filter_map(|one| one.examples);
    let largest = largest.max().filter(|&largest| largest > 0 && most > largest * COARSE)?;
    // As a round rounds it.
    let weight = ((largest * 64 + most / 2) / most).max(1);
    Some(format!(
        "max_examples is {most} and no client that fits has more than {largest}: weights are whole \
         numbers from 1 to 64, and the largest would be {weight}, so that clients with other \
         numbers of examples weigh alike; say about what the largest client has"
    ))
}

/// Refuses a job that the node would not start: its own data do not fit, or too few members that
/// could be its anchors are reached. And one of which no round could end with the nodes that are
/// there, unless it is wanted all the same.
pub(super) fn may_start(told: &FederatedCheck, anyway: bool) -> Result<()> {
    let FederatedCheck { name, needed, anchors, anchors_reached, .. } = told;
    if let Some(own) = told.nodes.iter().find(|one| one.me && is_refused(one)) {
        let why = own.why.as_deref().unwrap_or("its log says more");
        bail!(
            "a node starts no job that its own data do not fit: {why}; mend them, or take their \
             [[data]] table out of its configuration"
        );
    }
    if anchors_reached < anchors {
        bail!(
            "the job wants {anchors} anchors, and {anchors_reached} members that could be one are \
             reached now: it can be started once the others are back"
        );
    }
    match told.outlook.as_str() {
        "few" if !anyway => {}
        "few" => {
            ui::warn(format_args!(
                "no round of '{name}' ends before {needed} nodes have such data"
            ));
            return Ok(());
        }
        "unsure" => {
            ui::warn(format_args!("whether rounds of '{name}' can end shows once it has started"));
            return Ok(());
        }
        _ => return Ok(()),
    }
    let unfit = told.nodes.iter().filter(|one| one.answer == "unfit");
    let unfit = unfit.filter(|one| !one.me && one.reason.as_deref() != Some("source"));
    let unfit: Vec<&str> = unfit.map(|one| one.node.as_str()).collect();
    let mut hints = Vec::new();
    let own = told.nodes.iter().find(|one| one.me && one.answer == "unfit");
    if let Some(why) = own.and_then(|one| one.why.as_deref()) {
        hints.push(format!("of this node: {why}"));
    }
    if !unfit.is_empty() {
        let more = unfit.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = unfit.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        hints.push(format!("mend the data of {named}{more}"));
    }
    match told.away {
        0 => {}
        1 => hints.push("1 member is away".to_owned()),
        away => hints.push(format!("{away} members are away")),
    }
    // Of files without any examples the node that starts a job would refuse it all the same.
    if own.is_none_or(|one| one.reason.as_deref() != Some("few")) {
        let anyway = "`--anyway` of `selvedge fed submit` starts it for nodes that come later";
        hints.push(anyway.to_owned());
    }
    bail!("{}; {}", verdict(told), hints.join("; "))
}

/// Whether the node that starts a job refuses it for what its own data are. Without any, or with
/// none that this job may have, it starts the job for others.
fn is_refused(own: &FederatedFit) -> bool {
    let reason = own.reason.as_deref().unwrap_or_default();
    matches!(reason, "file" | "content" | "columns" | "classes" | "large" | "base")
}

/// How many fit, beside how many it takes.
fn verdict(told: &FederatedCheck) -> String {
    let FederatedCheck { fit, clients, needed, unsaid, .. } = told;
    let fits = match fit {
        1 => "1 node fits".to_owned(),
        _ => format!("{fit} nodes fit"),
    };
    let clients = if clients > fit { format!(" with {clients} clients") } else { String::new() };
    let follows = match told.outlook.as_str() {
        "enough" => "enough".to_owned(),
        "unsure" => format!("it takes some of the {unsaid} that did not say"),
        _ => "too few".to_owned(),
    };
    format!("{fits}{clients}, and a round needs {needed} nodes: {follows}")
}

fn row(told: &FederatedCheck, one: &FederatedFit) -> Vec<String> {
    let name = if one.me { format!("{} (this node)", one.node) } else { one.node.clone() };
    let data = match one.answer.as_str() {
        "fits" => "fits",
        "unfit" => "does not fit",
        "away" | "unreached" => "not reached",
        _ => "does not say",
    };
    let examples = one.examples.map_or_else(|| "-".to_owned(), |count| count.to_string());
    vec![name, data.to_owned(), examples, why(told, one)]
}

/// Why a member would not train, and what to do.
fn why(told: &FederatedCheck, one: &FederatedFit) -> String {
    match one.answer.as_str() {
        "fits" | "unfit" => {}
        "busy" => return "it looks for others: ask again".to_owned(),
        "late" => return "it did not say in time; it may train".to_owned(),
        "older" => return "(older program); it may train".to_owned(),
        "unreached" => return "it is there, but not reached from here; it may train".to_owned(),
        "away" => return "it may come later".to_owned(),
        other => return other.to_owned(),
    }
    let Some(reason) = one.reason.as_deref() else { return String::new() };
    let but = if one.answer == "fits" { "not all of its data: " } else { "" };
    if let Some(why) = &one.why {
        return format!("{but}{why}");
    }
    let (text, is_seen_there) = in_words(reason);
    let text = text.replace("{data}", &told.data);
    let there = match is_seen_there {
        true => "; there, `selvedge fed check` with this job file says where",
        false => "",
    };
    format!("{but}{text}{there}")
}

/// A reason in words, and whether a look at the node itself says more.
fn in_words(reason: &str) -> (&'static str, bool) {
    match reason {
        "source" => (
            "no data '{data}': a [[data]] table of its configuration gives it some, and a restart, \
             if it was added since the node started",
            false,
        ),
        "file" => ("a file is missing or cannot be read", true),
        "content" => ("something in its data is not what the job wants", true),
        "columns" => ("columns, sizes or the kind of examples are not the job's", true),
        "classes" => ("labels or classes are not the job's", true),
        "few" => ("it has no examples to train on", true),
        "large" => ("its data are more than a node reads", true),
        "privacy" => ("its data have a bound of epsilon, and the job has no [privacy]", false),
        "spent" => (
            "its data's bound of epsilon is spent, or without one what the job promises; there, \
             `epsilon = N` in their [[data]] table says what all jobs together may spend",
            false,
        ),
        "base" => ("the model that the job tunes is not there", true),
        "program" => ("its program does not know such a job: update selvedge there", false),
        "processor" => ("first weights come out differently on its processor", false),
        "full" => ("as many jobs run there as may: cancel those that are done", false),
        // Of a newer node, too.
        _ => ("it failed as it looked; its log says more", false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fit(node: &str, answer: &str, reason: Option<&str>) -> FederatedFit {
        FederatedFit {
            node: node.to_owned(),
            answer: answer.to_owned(),
            reason: reason.map(str::to_owned),
            examples: (answer == "fits").then_some(9),
            ..FederatedFit::default()
        }
    }

    fn told(outlook: &str, nodes: Vec<FederatedFit>) -> FederatedCheck {
        FederatedCheck {
            name: "wear".to_owned(),
            data: "line3".to_owned(),
            outlook: outlook.to_owned(),
            needed: 3,
            fit: nodes.iter().filter(|one| one.answer == "fits").count() as u64,
            nodes,
            ..FederatedCheck::default()
        }
    }

    #[test]
    fn each_answer_says_what_to_do() {
        let said = |answer: &str, reason: Option<&str>| {
            let one = fit("n1", answer, reason);
            row(&told("few", vec![one.clone()]), &one).join(" | ")
        };
        assert_eq!(said("fits", None), "n1 | fits | 9 | ");
        let cols = said("unfit", Some("columns"));
        assert!(cols.starts_with("n1 | does not fit | - | columns"), "{cols}");
        assert!(cols.ends_with("; there, `selvedge fed check` with this job file says where"));
        let none = said("unfit", Some("source"));
        assert!(none.contains("no data 'line3'") && none.contains("and a restart, if"), "{none}");
        assert!(said("fits", Some("few")).contains("not all of its data: it has no examples"));
        assert!(said("older", None).contains("does not say | - | (older program)"));
        assert!(said("away", None).contains("not reached | - | it may come later"));
        assert!(said("unreached", None).contains("not reached | - | it is there"));
        assert!(said("unfit", Some("spent")).contains("bound of epsilon is spent"));
        assert!(said("unfit", Some("of-a-newer-node")).contains("its log"));
        let own = FederatedFit {
            me: true,
            why: Some("its data: line 3".to_owned()),
            ..fit("n0", "unfit", Some("content"))
        };
        let own = row(&told("few", Vec::new()), &own).join(" | ");
        assert_eq!(own, "n0 (this node) | does not fit | - | its data: line 3");
    }

    #[test]
    fn a_job_that_could_not_end_a_round_is_started_only_if_it_is_wanted_so() {
        let nodes = || {
            vec![
                fit("n0", "fits", None),
                fit("n1", "unfit", Some("columns")),
                fit("n2", "unfit", Some("source")),
                fit("n3", "away", None),
            ]
        };
        let few = FederatedCheck { away: 1, ..told("few", nodes()) };
        let refused = may_start(&few, false).unwrap_err().to_string();
        assert!(
            refused.starts_with("1 node fits, and a round needs 3 nodes: too few"),
            "{refused}"
        );
        assert!(refused.contains("mend the data of n1;"), "{refused}");
        assert!(refused.contains("1 member is away") && refused.contains("--anyway"), "{refused}");
        assert!(may_start(&few, true).is_ok());
        for outlook in ["enough", "unsure"] {
            assert!(may_start(&told(outlook, nodes()), false).is_ok(), "{outlook}");
        }
    }

    #[test]
    fn why_this_nodes_own_data_do_not_fit_is_in_the_refusal() {
        let own = FederatedFit {
            me: true,
            why: Some("its data 'line3' do not fit: no column 'heat'".to_owned()),
            ..fit("n0", "unfit", Some("columns"))
        };
        for (outlook, anyway) in [("few", false), ("few", true), ("enough", false)] {
            let told = told(outlook, vec![own.clone()]);
            let refused = may_start(&told, anyway).unwrap_err().to_string();
            assert!(refused.contains("data 'line3' do not fit: no column 'heat'"), "{refused}");
            assert!(!refused.contains("--anyway"), "it does not help: {refused}");
        }
        // Some parts of them train, and the node refuses the job for the others.
        let some = FederatedFit { answer: "fits".to_owned(), ..own };
        assert!(may_start(&told("enough", vec![some]), false).is_err());
        for reason in ["source", "privacy", "spent"] {
            let own = FederatedFit { me: true, ..fit("n0", "unfit", Some(reason)) };
            assert!(may_start(&told("enough", vec![own]), false).is_ok(), "{reason}");
        }
    }

    #[test]
    fn a_node_whose_configuration_on_disk_has_the_data_is_to_be_restarted() {
        let own = FederatedFit {
            me: true,
            why: Some("it has no data 'line3'".to_owned()),
            ..fit("n0", "unfit", Some("source"))
        };
        let other = fit("n1", "unfit", Some("source"));
        let mut asked = told("few", vec![own, other.clone()]);
        wants_restart(&mut asked);
        let row = row(&asked, &asked.nodes[0]).join(" | ");
        assert!(row.contains("restart it (`selvedge up`) so that it sees 'line3'"), "{row}");
        let refused = may_start(&asked, false).unwrap_err().to_string();
        assert!(refused.contains("of this node: the node runs with"), "{refused}");
        assert_eq!(asked.nodes[1], other, "the disk of another member is not known here");
        // What does not fit for another reason is not mended by a restart.
        let own = FederatedFit { me: true, ..fit("n0", "unfit", Some("columns")) };
        let mut columns = told("few", vec![own]);
        let before = columns.clone();
        wants_restart(&mut columns);
        assert_eq!(columns, before);
    }

    #[test]
    fn a_job_without_its_anchors_is_not_started() {
        let all = told("enough", vec![fit("n0", "fits", None)]);
        let some = FederatedCheck { anchors: 5, anchors_reached: 4, ..all };
        for anyway in [false, true] {
            let refused = may_start(&some, anyway).unwrap_err().to_string();
            assert!(refused.contains("5 anchors, and 4 members"), "{refused}");
        }
        assert!(may_start(&FederatedCheck { anchors_reached: 5, ..some }, false).is_ok());
    }

    #[test]
    fn weights_that_rounding_makes_alike_are_told_where_all_have_said() {
        let two = vec![fit("n0", "fits", None), fit("n1", "unfit", Some("columns"))];
        let asked = |most| FederatedCheck { max_examples: most, ..told("enough", two.clone()) };
        assert!(coarse(&asked(Some(37))).unwrap().contains("has more than 9: weights are"));
        assert_eq!((coarse(&asked(Some(36))), coarse(&asked(None))), (None, None));
        assert_eq!(coarse(&FederatedCheck { unsaid: 1, ..asked(Some(37)) }), None);
    }

    #[test]
    fn a_job_that_ends_early_is_warned_of_by_what_its_data_have_left() {
        let of = |allowed, left| FederatedCheck {
            rounds: 30,
            sample_permille: 1_000,
            contributions_allowed: allowed,
            contributions_left: left,
            ..told("enough", vec![fit("n0", "fits", None)])
        };
        assert_eq!(leaves(&of(None, None)), None, "it has no privacy");
        assert_eq!((leaves(&of(Some(30), None)), leaves(&of(Some(40), Some(30)))), (None, None));
        let had = leaves(&of(Some(11), Some(3))).unwrap();
        assert!(had.starts_with("this node's data have epsilon left for 3 contrib"), "{had}");
        assert!(had.contains("(their own bound or the job's, less what earlier jobs"), "{had}");
        assert!(had.contains("fewer than 30 rounds take, and others may leave"), "{had}");
        assert!(had.ends_with("or raise the bound of the data"), "{had}");
        assert!(had.contains("fewer than 3 nodes") && had.contains("fed cancel wear`"), "{had}");
        for left in [None, Some(11)] {
            let said = leaves(&of(Some(11), left)).unwrap();
            assert!(said.starts_with("the job's epsilon allows a client 11 contrib"), "{said}");
            assert!(!said.contains("bound of the data"), "it would not help: {said}");
        }
        // Rounds that ask 350 of 1000 take 10.5 contributions of a client.
        let some = |left| FederatedCheck { sample_permille: 350, ..of(Some(40), Some(left)) };
        assert!(leaves(&some(10)).is_some());
        assert_eq!(leaves(&some(11)), None);
    }

    #[test]
    fn what_is_enough_is_told_in_nodes_and_clients() {
        let all = FederatedCheck { clients: 4, ..told("enough", vec![fit("n0", "fits", None)]) };
        let all = FederatedCheck { fit: 3, ..all };
        assert_eq!(verdict(&all), "3 nodes fit with 4 clients, and a round needs 3 nodes: enough");
        let unsure = FederatedCheck { fit: 2, unsaid: 2, outlook: "unsure".to_owned(), ..all };
        assert!(verdict(&unsure).ends_with("it takes some of the 2 that did not say"));
    }
}
