#![allow(clippy::unwrap_used)]

use super::*;

/// Without a language model to tune.
fn read(text: &str) -> Result<JobSpec, SpecError> {
    JobSpec::from_toml(text, &|_| Err("there is none here".to_owned()))
}

const GOOD: &str = "\
name = \"digits\"
data = \"digits\"
rounds = 30
[model]
shape = { image = { channels = 1, height = 28, width = 28 } }
classes = 10
hidden = [{ dense = 100 }]
[training]
epochs = 2
batch = 32
learning_rate = 0.05
";

const PRIVATE: &str = "\
[privacy]
noise = 2.0
norm = 0.5
honest = 4
delta = 1e-5
epsilon = 8.0
";

#[test]
fn privacy_is_read_and_all_but_one_are_trusted_with_noise_where_nobody_sees_an_update() {
    let privacy = |text: &str| read(text).unwrap().rules().privacy;
    assert_eq!(privacy(GOOD), None, "it costs accuracy: a job says so");
    let wanted = Privacy {
        noise_milli: 2_000,
        norm: 1 << 19,
        honest: 4,
        delta: PicoDelta(10_000_000),
        epsilon: MicroEpsilon(8_000_000),
        adaptive: None,
    };
    let private = format!("{GOOD}{PRIVATE}");
    assert_eq!(privacy(&private), Some(wanted));
    let all = private.replace("honest = 4\n", "");
    assert_eq!(privacy(&all), Some(Privacy { honest: 7, ..wanted }));
    let plain = all.replace("dense = 100", "dense = 20");
    let plain = format!("{plain}[mode]\nkind = \"plain\"\nrule = \"mean\"\n");
    assert_eq!(privacy(&plain), Some(Privacy { honest: 1, ..wanted }));
    let adaptive = Some(Adaptive { quantile_permille: 600, rate_permille: 200 });
    let following = format!("{private}quantile = 0.6\n");
    assert_eq!(privacy(&following), Some(Privacy { adaptive, ..wanted }));
    let adaptive = Some(Adaptive { quantile_permille: 600, rate_permille: 50 });
    let slowly = format!("{following}norm_rate = 0.05\n");
    assert_eq!(privacy(&slowly), Some(Privacy { adaptive, ..wanted }));
    assert!(said(&format!("{private}quantile = 1.5\n")).contains("quantile of 1 to 999"));
    let median = plain.replace("rule = \"mean\"", "rule = \"median\"");
    let median = median.replace("epsilon = 8.0\n", "epsilon = 8.0\nquantile = 0.5\n");
    assert!(said(&median).contains("with the rule mean"));
}

fn said(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

/// The good file with one part in place of another.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

#[test]
fn a_job_file_becomes_a_job_that_passes_its_check() {
    let spec = read(GOOD).unwrap();
    assert_eq!((spec.name.as_str(), spec.rules().dim), ("digits", 79_510));
    assert_eq!(spec.rules().mode, Mode::Secure, "nobody sees updates unless the job says so");
    assert_eq!((spec.rules().min_clients, spec.rules().receipts), (8, 4));
    assert_eq!(spec.training.rate_millionths, 50_000);
    // With the proof: four elements more of each share, and four times three values.
    assert_eq!(spec.upload_bytes(), 5 * (4 * (79_510 + 4) + 5 * 12));
    assert_eq!(spec.rules().guard, Some(Guard::ONE));
    let told = |nonce, scheme| spec.told(nonce, &stand_ins(scheme), [3; 32], NodeId([1; 32]));
    let job = told(9, Scheme::Sixteen).unwrap().job;
    assert_eq!((job.nonce, job.committee.seats.len()), (9, 5));
    assert_ne!(job.digest(), told(8, Scheme::Five).unwrap().job.digest());
}

#[test]
fn strategies_and_rules_are_read_with_their_numbers() {
    let strategy = |text: &str| {
        let spec = read(&format!("{GOOD}[strategy]\n{text}")).unwrap();
        (spec.rules().strategy, spec.training.proximal_permille)
    };
    let prox = Strategy::Average { proximal_permille: 10 };
    assert_eq!(strategy("kind = \"fedprox\"\nmu = 0.01"), (prox, 10));
    let adam = Strategy::Adam { rate: 1 << 19, tau: 1_049 };
    assert_eq!(strategy("kind = \"fedadam\"\nrate = 0.5\ntau = 0.001"), (adam, 0));
    let scaffold = Strategy::Scaffold { clients: 10 };
    assert_eq!(strategy("kind = \"scaffold\"\nclients = 10"), (scaffold, 0));
    let mode = |text: &str| {
        let small = GOOD.replace("dense = 100", "dense = 20");
        read(&format!("{small}[mode]\n{text}")).unwrap().rules().mode
    };
    assert_eq!(mode("kind = \"plain\"\nrule = \"median\""), Mode::Plain(Rule::Median));
    let krum = "kind = \"plain\"\nrule = { multi-krum = { byzantine = 2, keep = 6 } }";
    assert_eq!(mode(krum), Mode::Plain(Rule::MultiKrum { byzantine: 2, keep: 6 }));
}

#[test]
fn sums_in_groups_want_the_floor_of_each() {
    let small = GOOD.replace("dense = 100", "dense = 20");
    let with = |text: &str| format!("{small}[mode]\nkind = \"secure\"\n{text}");
    let spec = read(&with("groups = 5\nrule = \"median\"")).unwrap();
    let rules = spec.rules();
    assert_eq!(rules.guard, Some(Guard { groups: 5, rule: Rule::Median }));
    assert_eq!((rules.min_clients, rules.floor(), rules.target), (8, 40, 40));
    assert_eq!((rules.per_node, spec.since()), (1, 11));
    let cases = [
        (with("rule = \"median\""), "the rule median needs at least 3 groups, not 1"),
        (with("groups = 17"), "1 to 16 groups, not in 17"),
        (with("groups = 5\nrule = { trimmed = { cut = 3 } }"), "leaves out all of 5"),
        (
            with("groups = 3\nrule = \"median\"")
                .replace("rounds = 30", "rounds = 30\ntarget = 23"),
            "target is 23; allowed: 'min_clients' times 'groups' (24) or more",
        ),
        (
            with("groups = 3").replace("rounds = 30", "rounds = 30\nclients_per_node = 2"),
            "sums are in groups",
        ),
        (with("groups = 16").replace("dense = 20", "dense = 100"), "or fewer groups"),
    ];
    for (text, part) in cases {
        let error = said(&text);
        assert!(error.contains(part), "'{error}' lacks '{part}'");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_would_be_right() {
    let cases = [
        (with("rounds = 30", "rounds = 30\nround = 3"), "unknown field `round`"),
        (with("rounds = 30", "rounds = 0"), "1 to 10000 rounds"),
        (with("rounds = 30", "rounds = 30\nanchors = 6"), "allowed: 5, 9 or 16"),
        (with("rounds = 30", "rounds = 30\nmin_clients = 1"), "floor of clients must be 2"),
        (with("rounds = 30", "rounds = 30\ntarget = 3"), "'min_clients' (8) or more"),
        (with("name = \"digits\"", "name = \"../x\""), "name is '../x'"),
        (with("classes = 10", "classes = 1"), "1 classes"),
        (with("dense = 100", "dense = 2000"), "limit"),
        (with("dense = 100", "tanh = 100"), "unknown variant `tanh`"),
        (with("epochs = 2", "epochs = 0"), "training.epochs is 0"),
        (with("batch = 32", "batch = 5000"), "1 to 4096"),
        (with("learning_rate = 0.05", "learning_rate = -1.0"), "training.learning_rate is -1"),
        (with("learning_rate = 0.05", "learning_rate = nan"), "training.learning_rate is NaN"),
        (with("learning_rate = 0.05", "learning_rate = 0.05\nclip = 0.0"), "training.clip is 0"),
        (format!("{GOOD}[pace]\ntick_ms = 0"), "pace.tick_ms is 0"),
        (format!("{GOOD}{}", PRIVATE.replace("noise = 2.0", "noise = 0.0")), "privacy.noise is 0"),
        (format!("{GOOD}{}", PRIVATE.replace("honest = 4", "honest = 9")), "1 to 8 honest"),
        (format!("{GOOD}{}", PRIVATE.replace("1e-5", "0.01")), "allowed: 0.000000000001 to 0.001"),
        (format!("{GOOD}[strategy]\nkind = \"fedprox\"\nmu = 0.0"), "strategy.mu is 0"),
        (format!("{GOOD}[strategy]\nkind = \"scaffold\"\nclients = 0"), "how many clients"),
        (format!("{GOOD}[mode]\nkind = \"plain\""), "missing field `rule`"),
        (
            format!("{GOOD}[mode]\nkind = \"plain\"\nrule = {{ trimmed = {{ cut = 4 }} }}"),
            "leaves out all of 8: it needs 9 at least",
        ),
        (
            format!(
                "{}[mode]\nkind = \"plain\"\n\
                 rule = {{ multi-krum = {{ byzantine = 2, keep = 2 }} }}",
                with("rounds = 30", "rounds = 30\nmin_clients = 5")
            ),
            "needs 7 at least, twice `byzantine` and 3",
        ),
        (
            format!("{GOOD}{}", PRIVATE.replace("epsilon = 8.0", "epsilon = 0.1")),
            "epsilon of 2.17; raise `noise` or `epsilon`",
        ),
        (with("rounds", &"#".repeat(MAX_TEXT_BYTES)), "at most 65536"),
    ];
    for (text, part) in cases {
        let error = said(&text);
        assert!(error.contains(part), "'{error}' lacks '{part}'");
    }
}

#[test]
fn what_has_the_wrong_form_is_shown_in_the_right_one() {
    let cases = [
        (
            format!("{GOOD}[mode]\nkind = \"plain\"\nrule = \"multi-krum\""),
            "written so: rule = { multi-krum = { byzantine = 1, keep = 3 } }",
        ),
        (
            format!("{GOOD}[mode]\nkind = \"plain\"\nrule = \"trimmed\""),
            "written so: rule = { trimmed = { cut = 1 } }",
        ),
        (with("[{ dense = 100 }]", "[8]"), "written so: hidden = [{ dense = 8 }]"),
        (with("[{ dense = 100 }]", "8"), "written so: hidden = [{ dense = 8 }]"),
        (
            with("{ image = { channels = 1, height = 28, width = 28 } }", "[2]"),
            "written so: shape = { flat = 2 }",
        ),
    ];
    for (text, part) in cases {
        let error = said(&text);
        assert!(error.contains(part), "'{error}' lacks '{part}'");
        assert_eq!(error.matches("written so").count(), 1, "{error}");
    }
    // What is wrong otherwise needs no example of what is right already.
    assert!(!said(&with("rounds = 30", "round = 30")).contains("written so"));
    assert!(!said("name = ").contains("written so"));
    // An example is a job's own.
    for rule in ["{ multi-krum = { byzantine = 1, keep = 3 } }", "{ trimmed = { cut = 1 } }"] {
        let small = GOOD.replace("dense = 100", "dense = 8");
        assert!(read(&format!("{small}[mode]\nkind = \"plain\"\nrule = {rule}")).is_ok());
    }
}

#[test]
fn a_mesh_that_is_too_small_and_a_round_that_is_too_wide_are_refused() {
    let spec = read(GOOD).unwrap();
    assert!(spec.has_room(5).is_ok());
    let told = |seats: &[Seat]| spec.told(1, seats, [3; 32], NodeId([1; 32]));
    let few = told(&stand_ins(Scheme::Five)[..4]).unwrap_err().to_string();
    assert!(few.contains("5 anchors") && few.contains("has 4 members"), "{few}");
    let wide = said(&with("dense = 100", "dense = 500"));
    assert!(wide.contains("397510 now") && !wide.contains("secure mode"), "{wide}");
    // More anchors pack more of an update into a share.
    assert!(
        read(
            &with("dense = 100", "dense = 500").replace("rounds = 30", "rounds = 30\nanchors = 9")
        )
        .is_ok()
    );
    let open = said(&format!(
        "{}[mode]\nkind = \"plain\"\nrule = \"mean\"",
        with("dense = 100", "dense = 400")
    ));
    assert!(open.contains("secure mode"), "{open}");
}

#[test]
fn the_jobs_of_the_manual_are_jobs_and_with_its_privacy_one_learns_to_its_end() {
    let manual = include_str!("../../../../docs/federated.md");
    let blocks = |begin: &str| -> Vec<&str> {
        let blocks = manual.split("```toml\n").filter(|rest| rest.starts_with(begin));
        blocks.map(|rest| rest.split("```").next().unwrap()).collect()
    };
    let jobs = blocks("name = ");
    let [wear, digits] = jobs[..] else { panic!("{jobs:?}") };
    assert_eq!(read(digits).unwrap().rules().dim, 79_510);
    // Whoever tries it has five nodes, and some without data.
    assert_eq!((read(wear).unwrap().rules().dim, read(wear).unwrap().rules().floor()), (42, 3));
    let private = blocks("[privacy]");
    let [privacy] = private[..] else { panic!("{private:?}") };
    let eight = wear.replace("min_clients = 3", "min_clients = 8");
    let spec = read(&format!("{eight}{privacy}")).unwrap();
    let (privacy, rules) = (spec.rules().privacy.unwrap(), spec.rules());
    assert!(privacy.contributions() >= rules.rounds, "{privacy:?}");
    assert_eq!((privacy.honest, privacy.noise_tenths(rules.dim, rules.target)), (7, 34));
}

#[test]
fn a_seat_that_comes_twice_is_refused() {
    let spec = read(GOOD).unwrap();
    let mut seats = stand_ins(Scheme::Five);
    seats[4] = seats[0];
    assert!(matches!(
        spec.told(1, &seats, [3; 32], seats[0].node),
        Err(SpecError::Job(JobError::Anchors { .. }))
    ));
}

#[test]
fn epidemic_mode_is_an_explicit_choice_of_a_plain_job() {
    let epidemic = |text: &str| read(text).map(|spec| spec.epidemic);
    assert_eq!(epidemic(GOOD).unwrap(), None);
    let plain = format!("{GOOD}[mode]\nkind = \"plain\"\nrule = \"mean\"\n");
    assert_eq!(epidemic(&plain).unwrap(), None);
    let (after, every) = (Micros::secs(120), Micros::secs(10));
    let usual = Epidemic { peers: 2, after, every };
    assert_eq!(epidemic(&format!("{plain}[epidemic]\n")).unwrap(), Some(usual));
    let said = format!("{plain}[epidemic]\npeers = 3\nafter_ms = 90000\nevery_ms = 2000\n");
    let (after, every) = (Micros::secs(90), Micros::secs(2));
    assert_eq!(epidemic(&said).unwrap(), Some(Epidemic { peers: 3, after, every }));
    for (bad, why) in [
        (format!("{GOOD}[epidemic]\n"), "needs plain mode"),
        (format!("{plain}[epidemic]\npeers = 0\n"), "1 to 16 peers, not to 0"),
        (format!("{plain}[epidemic]\nafter_ms = 30000\n"), "patience of a round (60000 ms)"),
        (format!("{plain}[epidemic]\nevery_ms = 1\n"), "a tick of the pace (200 ms)"),
        (format!("{plain}[epidemic]\nafter_ms = 0\n"), "epidemic.after_ms is 0"),
        (format!("{plain}[epidemic]\nfriends = 2\n"), "unknown field"),
    ] {
        let told = epidemic(&bad).unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn anchors_are_nodes_that_can_read_the_job() {
    let since = |text: &str| read(text).map(|spec| spec.since()).unwrap();
    assert_eq!(since(GOOD), 11, "shares are proven");
    let plain = format!("{GOOD}[mode]\nkind = \"plain\"\nrule = \"mean\"\n");
    assert_eq!(since(&plain), 6);
    assert_eq!(since(&format!("{plain}[epidemic]\n")), 7);
    let shared = format!("clients_per_node = 3\n{plain}[epidemic]\n");
    assert_eq!(since(&shared), 8);
}
