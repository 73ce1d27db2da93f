use super::super::testing::case;
use super::*;
use crate::apart::FIRST_REST;

#[test]
fn a_model_whose_process_does_not_start_again_rests() {
    let case = case("mlp");
    let file = File::open(&case.path()).expect("a model");
    let (program, arguments) = (PathBuf::from("/nowhere/at/all"), Vec::new());
    let mut apart = Apart { program, arguments, process: None, faults: Faults::default() };
    let mut ask = |at: Mono, kept: bool| {
        let (clock, kept) = (|| at, || kept);
        let until = at.plus(Micros::secs(60));
        let patience = Patience { until, clock: &clock, wanted: &kept, kept: &kept };
        apart.run((&file, 1), case.inputs.clone(), &[], &patience).expect_err("no program").code
    };
    assert_eq!(ask(Mono(0), false), Code::Cancelled, "a model that is removed has no fault");
    assert_eq!(ask(Mono(0), true), Code::ModelUnavailable);
    assert_eq!(ask(Mono(1), true), Code::OutOfMemory, "it rests");
    assert_eq!(ask(Mono(0).plus(FIRST_REST), true), Code::ModelUnavailable);
}

#[test]
fn inputs_that_crash_a_process_are_not_handed_on() {
    let mut faults = Faults::default();
    assert_eq!(faults.check(Mono(0)), Ok(()));
    let rest = faults.note(Mono(0));
    assert_eq!(crashed(rest, Retry::Never).retry, Retry::Never);
    // Others may be asked of a peer while the model rests here.
    assert_eq!(faults.check(Mono(1)).expect_err("it rests").retry, Retry::Elsewhere);
    assert_eq!(faults.check(Mono(0).plus(rest)), Ok(()));
}
