use super::*;

#[test]
fn what_is_at_fault_again_and_again_is_left_alone_for_longer_until_it_did_well() {
    let mut faults = Faults::default();
    assert_eq!(faults.rests(Mono(0)), None);
    let (mut now, mut longest) = (Mono(0), FIRST_REST);
    for fault in 0..=MAX_DOUBLINGS + 2 {
        let rest = faults.note(now);
        assert_eq!(rest, Micros(FIRST_REST.0 << fault.min(MAX_DOUBLINGS)));
        assert_eq!(faults.rests(now.plus(Micros(1))), Some(Micros(rest.0 - 1)));
        now = now.plus(rest);
        assert_eq!(faults.rests(now), None);
        longest = rest;
    }
    // It is forgiven an hour after the last fault, of which its rest has passed.
    let early = now.plus(Micros(FORGIVEN_AFTER.0 - longest.0 - 1));
    assert_eq!(faults.note(early), longest);
    assert_eq!(faults.note(early.plus(FORGIVEN_AFTER)), FIRST_REST);
}

#[cfg(unix)]
mod processes {
    use std::io::Write as _;

    use super::*;

    /// A minute turns a hang into a failure.
    const LONG: Duration = Duration::from_secs(60);

    /// A process that says again what it hears: of a 1 once and no more. A 0 is not said to it.
    fn parrot() -> Process<u8, u8> {
        let echo = |ask: u8, input: &mut ChildStdin, output: &mut ChildStdout| {
            let mut heard = [0];
            if ask > 0 && input.write_all(&[ask]).and_then(|()| input.flush()).is_err() {
                return Heard::Nothing;
            }
            match output.read_exact(&mut heard) {
                Ok(()) if ask == 1 => Heard::Last(heard[0]),
                Ok(()) => Heard::Answer(heard[0]),
                Err(_) => Heard::Nothing,
            }
        };
        Process::spawn(Command::new("cat"), "parrot", echo).expect("a process")
    }

    #[test]
    fn a_process_answers_until_it_has_no_ear_for_more() {
        let mut process = parrot().running().expect("it runs");
        assert_eq!(process.ask(7, LONG), Ok(7));
        assert_eq!(process.ask_while(8, LONG, &|| true), Ok(8));
        assert_eq!(process.ask(1, LONG), Ok(1));
        assert_eq!(process.ask(7, LONG), Err(Silence::Ended));
    }

    #[test]
    fn whoever_waits_is_told_why_there_is_no_answer() {
        assert_eq!(parrot().ask_while(0, LONG, &|| false), Err(Silence::Unwanted));
        assert_eq!(parrot().ask(0, Duration::from_millis(1)), Err(Silence::TooLong));
        let mut process = parrot();
        process.child.kill().expect("killed");
        assert_eq!(process.ask(0, LONG), Err(Silence::Ended));
        assert!(process.ended().is_some_and(|status| !status.success()));
        assert!(process.running().is_none());
    }
}
