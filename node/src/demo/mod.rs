//! `selvedge demo`: a mesh of three nodes on this machine, shown at work and surviving a death.
//!
//! Owns the story and how it is told; another one is `learning`'s. The nodes are real processes of
//! this same executable with homes of their own; they die with this process, whichever way it
//! ends. The demo checks what it claims: that the answer went on at another node and that no token
//! was lost or doubled.

mod cast;
mod digits;
mod learning;
mod picture;
mod rounds;
mod stage;

use anyhow::{Context as _, Result, bail};
use selvedge_base::Micros;
use selvedge_net::clock;
use serde_json::{Value, json};

use crate::brood;
use crate::cli;
use crate::client::{Said, Talk};
use crate::commands;
use crate::config::Config;
use crate::home::Home;
use crate::record::Record;
use crate::scratch::Scratch;
use crate::ui::{self, Ink, span_text};

use cast::{Cast, Player, Role};
use stage::Stage;

/// Tokens to wait for before the kill: the answer is well under way, and far from its end.
const TOKENS_BEFORE_KILL: u32 = 25;
/// Tokens of the first and the second answer.
const FIRST_TOKENS: u32 = 90;
const SECOND_TOKENS: u32 = 120;

const FIRST_QUESTION: &str = "Summarise in one sentence: The bakery on Mill Street opens at six \
    every morning. Its owner, Rosa, bakes forty loaves of bread before the first customers come \
    in. By noon everything is sold.";
const SECOND_QUESTION: &str = "Write a story about an old lighthouse keeper who finds a small boat \
    on the beach after a storm.";

/// Runs the demo to its end.
pub(crate) fn demo(home: &Home, config: &Config, options: &cli::Demo, verbose: u8) -> Result<()> {
    if options.plain {
        ui::plain();
    }
    brood::end_with_signals()?;
    if options.learning {
        return learning::learn(home, options.picture.as_deref(), verbose);
    }
    let mut stage = Stage::default();
    stage.title("Three nodes on this machine, one mesh; one node dies while it answers.");
    stage.act("A model");
    let model = fetch(home, config, options)?;
    stage.say(format_args!(
        "{} ({}, SHA-256 checked) is in {}",
        stage.strong(&model.name),
        ui::bytes_text(model.bytes),
        home.models().display()
    ));
    let place = Scratch::within(&home.path().join("demo"), "play")
        .with_context(|| format!("cannot write in {}", home.path().display()))?;
    let mut players = gather(&mut stage, &Cast { place: place.path(), verbose }, &model.path)?;
    first_question(&mut stage, &players, &model.name)?;
    second_question(&mut stage, &mut players, &model.name)?;
    drop(players);
    next_steps(&mut stage, home);
    Ok(())
}

fn fetch(home: &Home, config: &Config, options: &cli::Demo) -> Result<crate::pull::Stored> {
    let order =
        cli::Pull { source: options.model.clone(), name: None, sha256: None, yes: options.yes };
    Ok(commands::fetch(home, &config.models, &order)?.model)
}

/// Starts the nodes one after the other and waits until they know each other.
fn gather(stage: &mut Stage, cast: &Cast<'_>, model: &std::path::Path) -> Result<Vec<Player>> {
    stage.act("Three nodes, three processes");
    let begun = clock::mono();
    let alder = cast.start(Role::ALDER, Some(model), None)?;
    stage.say(format_args!("{}", alder.introduction("makes a mesh and has the model")));
    let birch = cast.start(Role::BIRCH, Some(model), Some(&alder.invite()?))?;
    stage.say(format_args!("{}", birch.introduction("joins by a code from alder, has the model")));
    let cedar = cast.start(Role::CEDAR, None, Some(&alder.invite()?))?;
    stage.say(format_args!("{}", cedar.introduction("joins by a code from alder, has no model")));
    stage.remark(
        "On a LAN they would find each other by mDNS, which does not see loopback: on one machine \
         they meet by address files in a rendezvous directory.",
    );
    let players = vec![alder, birch, cedar];
    // Two of them have the model.
    let status = cast::meet(&players, 2)?;
    for node in status.nodes.iter().filter(|node| !node.me) {
        let rtt = node.rtt_us.map_or_else(String::new, |rtt| format!(", {} away", span_text(rtt)));
        let name = stage::named(&node.name);
        stage.say(format_args!("cedar sees {name}: {}{rtt}", node.state));
    }
    stage.say(format_args!(
        "All three know each other and the model is loaded, {} after the first was started.",
        span_text(clock::mono().since(begun).0)
    ));
    Ok(players)
}

fn first_question(stage: &mut Stage, players: &[Player], model: &str) -> Result<()> {
    stage.act("A question to cedar, which has no model");
    stage.question(FIRST_QUESTION);
    let asked = &players[2];
    let mut talk =
        asked.client().talk(PATH, &question(model, FIRST_QUESTION, FIRST_TOKENS, true))?;
    let node = talk.node.clone();
    stage.answer_begins(&node);
    while let Some(said) = talk.next()? {
        if let Said::Data(chunk) = said {
            stage.answer(&text_of(&chunk));
        }
    }
    stage.answer_ends();
    let record = asked.record(&talk.request)?;
    let spent = format!("{} tokens in {}", record.completion_tokens, span_text(record.took_us));
    stage.say(format_args!("{} answered, {spent}.", stage::named(&node)));
    if let Some(why) = record.why() {
        stage.say(format_args!("Why {}: {why}.", stage::named(&node)));
    }
    Ok(())
}

/// What the interrupted answer looked like from the client.
#[derive(Default)]
struct Seen {
    text: String,
    /// The longest time between two pieces after the kill.
    gap: Micros,
}

fn second_question(stage: &mut Stage, players: &mut Vec<Player>, model: &str) -> Result<()> {
    stage.act("A second question, and the node that answers it is killed");
    stage.question(SECOND_QUESTION);
    let body = question(model, SECOND_QUESTION, SECOND_TOKENS, true);
    let mut talk = players[2].client().talk(PATH, &body)?;
    let victim = talk.node.clone();
    stage.answer_begins(&victim);
    let seen = answer_and_kill(stage, players, &mut talk, &victim)?;
    stage.answer_ends();
    let cedar = players.last().context("cedar is never killed")?;
    let record = cedar.record(&talk.request)?;
    report_move(stage, &record, &victim, &seen)?;
    let again = cedar.whole(PATH, &question(model, SECOND_QUESTION, SECOND_TOKENS, false))?;
    report_check(stage, &seen.text, again["choices"][0]["message"]["content"].as_str());
    Ok(())
}

fn answer_and_kill(
    stage: &mut Stage,
    players: &mut Vec<Player>,
    talk: &mut Talk,
    victim: &str,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let (mut pieces, mut killed, mut last) = (0, false, clock::mono());
    while let Some(said) = talk.next()? {
        match said {
            Said::Data(chunk) => {
                let text = text_of(&chunk);
                if text.is_empty() {
                    continue;
                }
                let now = clock::mono();
                if killed {
                    seen.gap = seen.gap.max(now.since(last));
                }
                last = now;
                pieces += 1;
                stage.answer(&text);
                seen.text.push_str(&text);
            }
            // The surface remarks when another node takes over.
            Said::Comment(remark) if remark.starts_with("moved") => {
                stage.other_voice(survivor(players, victim));
            }
            Said::Comment(_) => {}
        }
        if pieces >= TOKENS_BEFORE_KILL && !killed {
            let at = players.iter().position(|player| player.name() == victim);
            let mut player = players.remove(at.context("the answering node is none of ours")?);
            player.kill();
            stage.interruption(&format!("kill -9 {victim}"));
            (killed, last) = (true, clock::mono());
        }
    }
    if !killed {
        bail!("the answer was complete after {pieces} pieces, before its node could be killed");
    }
    Ok(seen)
}

/// The node with the model that is left.
fn survivor(players: &[Player], victim: &str) -> &'static str {
    let left = [Role::ALDER, Role::BIRCH].into_iter().find(|role| {
        role.name != victim && players.iter().any(|player| player.name() == role.name)
    });
    left.map_or(Role::CEDAR.name, |role| role.name)
}

fn report_move(stage: &mut Stage, record: &Record, victim: &str, seen: &Seen) -> Result<()> {
    let [.., left, went_on] = record.attempts.as_slice() else {
        bail!("the answer did not move to another node: {}", record.told());
    };
    if left.name != victim || record.outcome != "finished" {
        bail!("the answer did not move as it should: {}", record.told());
    }
    let contiguous =
        record.attempts.windows(2).all(|pair| pair[0].from_index <= pair[1].from_index);
    if !contiguous || went_on.from_index > record.completion_tokens {
        bail!("the record has a hole: {}", record.told());
    }
    stage.say(format_args!(
        "{} gave tokens 0 to {}, {} gave {} to {}.",
        stage::named(victim),
        went_on.from_index.saturating_sub(1),
        stage::named(&went_on.name),
        went_on.from_index,
        record.completion_tokens.saturating_sub(1)
    ));
    if let Some(why) = &left.ended {
        stage.say(format_args!("Noticed by cedar: {why}."));
    }
    stage.say(format_args!(
        "The client saw one pause of {} ms and nothing else.",
        stage.strong(seen.gap.as_millis())
    ));
    Ok(())
}

/// Compares with the same question asked again and answered without a death.
fn report_check(stage: &mut Stage, interrupted: &str, whole: Option<&str>) {
    let whole = whole.unwrap_or_default();
    if interrupted == whole {
        stage.say(format_args!(
            "{} the same question, asked again and left in peace, gives the same {} characters: no \
             token was lost, none doubled.",
            ui::paint(Ink::Green, "Checked:"),
            whole.chars().count()
        ));
        return;
    }
    let same = interrupted.chars().zip(whole.chars()).take_while(|(a, b)| a == b).count();
    stage.say(format_args!(
        "{} asked again and left in peace, the answer is the same for {same} characters and then \
         takes another turn.",
        ui::paint(Ink::Yellow, "Compared:")
    ));
}

fn next_steps(stage: &mut Stage, home: &Home) {
    stage.act("What to type next");
    let (program, at) = (stage::program(), named_home(home));
    stage.lines(&[
        (format!("{program} up{at}"), "start this machine's own node; the model is there"),
        (format!("{program} ask{at} \"Say hello\""), "ask it, in another terminal"),
        (format!("{program} mesh invite{at}"), "print the line for the next machine"),
        (format!("{program} demo --learning{at}"), "five nodes learn together, and one dies"),
        (format!("{program} --help"), "everything else"),
    ]);
}

/// What names the home in a command; nothing where it is the usual one.
fn named_home(home: &Home) -> String {
    let usual = Home::locate(None).is_ok_and(|usual| usual.path() == home.path());
    if usual { String::new() } else { format!(" --home {}", home.path().display()) }
}

const PATH: &str = "/v1/chat/completions";

/// Temperature 0 and a seed: the same question has the same answer on every node.
fn question(model: &str, text: &str, max_tokens: u32, stream: bool) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": text }],
        "max_completion_tokens": max_tokens,
        "temperature": 0.0,
        "seed": 1,
        "stream": stream,
    })
}

fn text_of(chunk: &Value) -> String {
    chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
}
