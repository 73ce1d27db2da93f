//! Chat templates that are rendered in a process of their own: what a hostile one can do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_base::{Blame, Code, Mono, Refusal, Retry, Stage};
use selvedge_contract::{ChatMessage, Role};
use selvedge_engine::{EngineError, Renderer, Rendering, Source};

/// Nests a list in itself as often as the fuel allows: dropping or showing it takes more stack than
/// there is.
const NESTS: &str = "{% set ns = namespace(l=[]) %}{% for a in range(40000) %}\
                     {% set ns.l = [[[[[[[[[[[[ns.l]]]]]]]]]]]] %}{% endfor %}";
/// A list that doubles without being made: to walk it takes longer than anybody lives.
const DOUBLES: &str = "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}\
                       {% set ns.l = ns.l + ns.l %}{% endfor %}";
/// A list of twice the same list, many times over: short to say, endless to show.
const BRANCHES: &str = "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}\
                        {% set ns.l = [ns.l, ns.l] %}{% endfor %}";
const PLAIN: &str = "{% for m in messages %}<|a|>{{ m.content }}{% endfor %}";

fn apart() -> Rendering {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_selvedge-template"));
    Rendering::Apart { program, arguments: Vec::new() }
}

/// A clock that stands until it is told otherwise.
fn clock() -> (Arc<AtomicU64>, Arc<dyn Fn() -> Mono + Send + Sync>) {
    let now = Arc::new(AtomicU64::new(1));
    let theirs = Arc::clone(&now);
    (now, Arc::new(move || Mono(theirs.load(Ordering::Relaxed))))
}

fn open(text: &str) -> Result<Renderer, EngineError> {
    let control = ["<|a|>".to_owned()];
    let source = Source { text, bos: "<s>", eos: "</s>", control: &control };
    Renderer::open(&apart(), source, clock().1)
}

fn said(content: &str) -> Vec<ChatMessage> {
    vec![ChatMessage { role: Role::User, content: content.to_owned() }]
}

fn is_at_fault(refusal: &Refusal) {
    let told = (refusal.stage, refusal.blame, refusal.code);
    assert_eq!(told, (Stage::Execute, Blame::Us, Code::Corrupt), "{refusal}");
    // What takes too long does so at any node.
    let long = refusal.message.contains("took too long");
    assert_eq!(refusal.retry == Retry::Never, long, "{refusal}");
    assert!(refusal.message.contains("the model's chat template"), "{refusal}");
}

#[test]
fn a_process_of_its_own_renders_what_this_one_would() {
    let control = ["<|a|>".to_owned()];
    let source = Source { text: PLAIN, bos: "<s>", eos: "</s>", control: &control };
    let here = Renderer::open(&Rendering::Here, source, clock().1).expect("compiles");
    let apart = open(PLAIN).expect("compiles");
    assert!(here.process().is_none());
    let process = apart.process().expect("runs");
    let long = "x".repeat(3 << 20);
    for text in ["hi", "a<|a|>b", "\u{10ff00}<|a|>", "", &long] {
        assert_eq!(apart.render(&said(text)), here.render(&said(text)));
    }
    assert_eq!(apart.process(), Some(process), "it is kept");
}

#[test]
fn what_a_template_raises_and_what_is_none_is_said_as_ever() {
    let raises = open("{{ raise_exception('roles must alternate') }}").expect("compiles");
    let refusal = raises.render(&said("x")).expect_err("raises");
    assert_eq!((refusal.blame, refusal.code), (Blame::Client, Code::InvalidRequest));
    assert!(refusal.message.contains("roles must alternate"), "{refusal}");
    assert!(raises.render(&said("x")).is_err_and(|again| again == refusal), "no fault of it");
    let long = format!("{{{{ raise_exception('x' * {}) }}}}", 1 << 20);
    let refusal = open(&long).expect("compiles").render(&said("x")).expect_err("raises");
    assert!(refusal.message.len() < 1_000);
    assert!(matches!(open("{% for %}"), Err(EngineError::Corrupt(_))));
    let tag = format!("{{{{ {}1 }}}}", "-".repeat(20_000));
    assert!(matches!(open(&tag), Err(EngineError::Unsupported(_))));
}

/// Each of these ended the process that rendered it.
#[test]
fn templates_that_overflow_the_stack_end_their_own_process_alone() {
    for end in ["", "{{ ns.l }}", "{{ ns.l == ns.l }}", "{{ ns.l|tojson }}"] {
        let template = open(&format!("{NESTS}{end}")).expect("compiles");
        is_at_fault(&template.render(&said("x")).expect_err(end));
    }
}

/// Each of these ran without an end.
#[test]
fn templates_that_never_end_are_stopped() {
    let renders = |template: String| {
        let refusal = open(&template).expect("compiles").render(&said("x")).expect_err(&template);
        is_at_fault(&refusal);
    };
    // Beside each other: each takes its whole time.
    std::thread::scope(|scope| {
        for end in ["{{ ns.l|length }}", "{{ ns.l == ns.l }}", "{{ ns.l|list|length }}"] {
            scope.spawn(move || renders(format!("{DOUBLES}{end}")));
        }
        for end in ["{{ ns.l }}", "{{ ns.l|tojson }}"] {
            scope.spawn(move || renders(format!("{BRANCHES}{end}")));
        }
    });
}

#[test]
fn a_template_at_fault_is_left_alone_for_longer_each_time() {
    let text = format!("{{% if messages[0].content == 'bad' %}}{NESTS}{{% endif %}}fine");
    let (now, clock) = clock();
    let source = Source { text: &text, bos: "", eos: "", control: &[] };
    let template = Renderer::open(&apart(), source, clock).expect("compiles");
    let first = template.process();
    assert_eq!(template.render(&said("good")).expect("renders"), ["fine"]);
    for rest in [1_000_000, 2_000_000, 4_000_000] {
        is_at_fault(&template.render(&said("bad")).expect_err("crashes"));
        assert!(template.process().is_none());
        now.fetch_add(rest - 1, Ordering::Relaxed);
        is_at_fault(&template.render(&said("good")).expect_err("rests"));
        assert!(template.process().is_none(), "nothing is started meanwhile");
        now.fetch_add(1, Ordering::Relaxed);
        assert_eq!(template.render(&said("good")).expect("renders again"), ["fine"]);
        assert!(template.process().is_some_and(|process| Some(process) != first));
    }
    // An hour without a fault, and it begins afresh.
    now.fetch_add(3_600_000_000, Ordering::Relaxed);
    is_at_fault(&template.render(&said("bad")).expect_err("crashes"));
    now.fetch_add(1_000_000, Ordering::Relaxed);
    assert_eq!(template.render(&said("good")).expect("renders again"), ["fine"]);
}

/// As one that the system ended for want of memory.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_process_that_was_ended_is_no_fault_of_its_template() {
    let template = open(PLAIN).expect("compiles");
    for _ in 0..3 {
        let process = template.process().expect("runs");
        let killed = std::process::Command::new("kill").args(["-9", &process.to_string()]).status();
        assert!(killed.expect("starts").success());
        // Gone, but not reaped: its owner has not looked.
        let stat = || std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a zombie");
        let threads = || std::fs::read_dir(format!("/proc/{process}/task")).expect("some").count();
        while !stat().contains(") Z") || threads() > 1 {
            std::thread::yield_now();
        }
        assert_eq!(template.render(&said("x")).expect("renders"), ["<|a|>x"]);
        assert_ne!(template.process(), Some(process));
    }
}

#[test]
fn memory_is_bounded() {
    let grows = "{% set ns = namespace(l=[], t='x' * 100000) %}{% for a in range(99999) %}\
                 {% set ns.l = ns.l + [ns.t ~ a] %}{% endfor %}";
    let template = open(grows).expect("compiles");
    // Out of fuel or out of memory, whichever comes first: nothing else is harmed.
    assert!(template.render(&said("x")).is_err());
}

#[test]
fn what_is_no_renderer_is_an_error_and_not_a_wait() {
    for program in ["/nonexistent/program", "/bin/true"] {
        let rendering = Rendering::Apart { program: program.into(), arguments: Vec::new() };
        let source = Source { text: PLAIN, bos: "", eos: "", control: &[] };
        let error = Renderer::open(&rendering, source, clock().1).err().expect("no renderer");
        assert!(error.to_string().contains("chat template"), "{error}");
        assert!(matches!(error, EngineError::Renderer(_)), "no fault of the model: {error}");
    }
}

/// With its owner ends the process, and with the program that started it.
#[cfg(target_os = "linux")]
#[test]
fn no_process_outlives_its_model() {
    let template = open(PLAIN).expect("compiles");
    let process = template.process().expect("runs");
    let lives = || PathBuf::from(format!("/proc/{process}")).exists();
    assert!(lives());
    drop(template);
    assert!(!lives());
}

#[test]
fn the_process_ends_with_its_input() {
    let program = env!("CARGO_BIN_EXE_selvedge-template");
    let mut child = std::process::Command::new(program)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdin.take());
    assert!(child.wait().expect("ends").success());
}
