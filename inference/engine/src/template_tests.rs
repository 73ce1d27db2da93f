use selvedge_base::{Blame, Retry};
use selvedge_contract::Role;

use super::*;

fn message(role: Role, content: &str) -> ChatMessage {
    ChatMessage { role, content: content.to_owned() }
}

fn render(source: &str, messages: &[ChatMessage]) -> Result<Vec<String>, Refusal> {
    let control = ["<|im_start|>".to_owned(), "<|im_end|>".to_owned()];
    Template::compile(source, "<s>", "</s>").expect("compiles").render(messages, &control)
}

#[test]
fn control_text_is_cut_apart() {
    let control = vec!["<|end|>".to_owned()];
    let pieces = apart("a<|end|>b <", &control).unwrap();
    assert_eq!(pieces, ["a<", "|end|>b <"]);
    assert_eq!(apart("", &control).unwrap(), [""]);
}

#[test]
fn blocks_are_trimmed_and_python_methods_known() {
    let source = "{{ bos_token }}\n  {% for m in messages %}\n[{{ m['role'].upper() }}] \
                  {{ m.content.strip() }}\n  {% endfor %}\n\
                  {% if add_generation_prompt %}\n>{% endif %}";
    let messages = [message(Role::System, " be brief "), message(Role::User, "hi")];
    let prompt = render(source, &messages).expect("renders").concat();
    assert_eq!(prompt, "<s>\n[SYSTEM] be brief\n[USER] hi\n>");
}

#[test]
fn control_text_that_a_person_wrote_is_cut() {
    let source = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}";
    let pieces = render(source, &[message(Role::User, "a<|im_end|>b")]).expect("renders");
    assert_eq!(pieces, ["<|im_start|>a<", "|im_end|>b"]);
    // A text that holds the mark itself is cut with another one, and loses nothing.
    let pieces = render(source, &[message(Role::User, "\u{10ff00}<|im_end|>")]).expect("renders");
    assert_eq!(pieces, ["<|im_start|>\u{10ff00}<", "|im_end|>"]);
}

#[test]
fn what_a_template_raises_is_the_clients_fault() {
    let source = "{{ raise_exception('roles must alternate') }}";
    let refusal = render(source, &[message(Role::User, "x")]).expect_err("raises");
    assert_eq!((refusal.blame, refusal.code), (Blame::Client, Code::InvalidRequest));
    assert!(refusal.message.contains("roles must alternate"), "{refusal}");
    // It may raise all that somebody wrote, of which a refusal repeats the beginning.
    let long = [message(Role::User, &"y".repeat(1 << 20))];
    let refusal = render("{{ raise_exception(messages[0].content) }}", &long).expect_err("raises");
    assert!(refusal.message.ends_with("yyy") && refusal.message.len() < 1_000, "{refusal}");
}

#[test]
fn a_broken_template_is_the_files_fault() {
    let refusal = render("{{ nothing() }}", &[message(Role::User, "x")]).expect_err("fails");
    assert_eq!((refusal.code, refusal.retry), (Code::Corrupt, Retry::Elsewhere));
    assert!(Template::compile("{% for %}", "", "").is_err());
    assert!(Template::compile(&" ".repeat(MAX_SOURCE_BYTES + 1), "", "").is_err());
    // There is no clock in a template: every node renders the same prompt.
    assert!(render("{{ strftime_now('%Y') }}", &[]).is_err());
    let guarded = "{% if strftime_now is defined %}now{% else %}never{% endif %}";
    assert_eq!(render(guarded, &[]).expect("renders"), ["never"]);
}

#[test]
fn endless_templates_run_dry() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(t='xxxxxxxxxxxxxxxx') %}{% for a in range(99999) %}\
         {% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
    ] {
        let refusal = render(source, &[]).expect_err("too long");
        assert!(refusal.message.contains("template"), "{refusal}");
    }
}

#[test]
fn tags_are_short_and_what_has_no_fuel_is_bounded() {
    for tag in ["-".repeat(20_000), "not ".repeat(5_000), "a~".repeat(5_000), "[".repeat(5_000)] {
        let error = Template::compile(&format!("{{{{ {tag}1 }}}}"), "", "").err();
        assert!(error.is_some_and(|error| error.to_string().contains("tag of")), "{tag:.20}");
    }
    // A literal nests nothing, whatever stands in it.
    let text = "-{{%}}'\\n".repeat(1_000).replace('\'', "");
    assert!(Template::compile(&format!("{{{{ \"{text}\" }}}}"), "", "").is_ok());
    let replaced = format!("{{{{ 'xxxxxxxx'{} }}}}", ".replace('x', 'xxxxxxxx')".repeat(9));
    let indented = "{{ messages|tojson(indent=100000000) }}".to_owned();
    let joined =
        "{% set x = 'x' * 10000 %}{{ x.join(range(100000)|map('string')|list) }}".to_owned();
    for source in [replaced, indented, joined] {
        let refusal = render(&source, &[message(Role::User, "x")]).expect_err("too much");
        assert!(refusal.message.contains("takes too long"), "{refusal}");
    }
    let few =
        "{{ messages|tojson(indent=2) }}{{ ', '.join(['x', 'y']) }}{{ 'ab'.replace('b', 'c') }}";
    let told = render(few, &[message(Role::User, "x")]).expect("renders").concat();
    assert!(told.contains("\"role\": \"user\"") && told.ends_with("x, yac"), "{told}");
}
