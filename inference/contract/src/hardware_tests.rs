#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn laptop() -> Machine {
    Machine {
        made: Hardware {
            os: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            processor: "A Processor".to_owned(),
            kernels: "avx2".to_owned(),
            features: vec!["avx2".to_owned(), "fma".to_owned()],
            physical_cores: Some(4),
            logical_cores: Some(8),
            usable_millicores: Some(8_000),
            memory: Some(16 << 30),
            cards: vec![Card { name: "A Card".to_owned(), memory: Some(8 << 30) }],
        },
        now: Condition {
            memory_available: Some(9 << 30),
            temperature: Some(550),
            headroom: Some(450),
            has_battery: Some(true),
            battery_percent: Some(80),
            on_battery: Some(true),
        },
    }
}

#[test]
fn what_a_peer_tells_is_taken_within_bounds_only() {
    assert_eq!(laptop().received(), Some(laptop()));
    type Spoil = fn(&mut Machine);
    let spoils: [Spoil; 5] = [
        |machine| machine.made.processor = "x".repeat(MAX_NAME + 1),
        |machine| machine.made.features = vec![String::new(); MAX_FEATURES + 1],
        |machine| machine.made.features[0] = "f".repeat(MAX_FEATURE + 1),
        |machine| machine.made.cards = vec![Card::default(); MAX_CARDS + 1],
        |machine| machine.made.cards[0].name = "c".repeat(MAX_NAME + 1),
    ];
    for spoil in spoils {
        let mut spoiled = laptop();
        spoil(&mut spoiled);
        assert_eq!(spoiled.received(), None);
    }
    let mut odd = laptop();
    odd.now.temperature = Some(i16::MAX);
    odd.now.battery_percent = Some(101);
    let taken = odd.received().unwrap();
    assert_eq!((taken.now.temperature, taken.now.battery_percent), (None, None));
    assert_eq!(taken.now.memory_available, laptop().now.memory_available);
}

#[test]
fn a_flicker_is_not_told_and_a_change_is() {
    let (memory, last) = (Some(16 << 30), laptop().now);
    let flicker = Condition {
        temperature: Some(541),
        headroom: Some(459),
        memory_available: Some((9 << 30) - (100 << 20)),
        ..last
    };
    assert_eq!(flicker.settled(&last, memory), last);
    let change = Condition {
        temperature: Some(574),
        memory_available: Some((7 << 30) + 5),
        battery_percent: Some(79),
        ..last
    };
    let told = change.settled(&last, memory);
    assert_eq!((told.temperature, told.battery_percent), (Some(570), Some(79)));
    assert_eq!(told.memory_available, Some(7 << 30));
    assert_eq!(told.headroom, last.headroom);
    assert_eq!(Condition::default().settled(&last, memory), Condition::default());
    let cold = Condition { temperature: Some(-126), ..Condition::default() };
    assert_eq!(cold.settled(&Condition::default(), None).temperature, Some(-130));
}

#[test]
fn names_are_cleaned_of_what_a_terminal_would_obey() {
    assert_eq!(clean("Intel(R)  Core(TM)\ti7\n", 64), "Intel(R) Core(TM) i7");
    assert_eq!(clean("Raspberry Pi 5\0", 64), "Raspberry Pi 5");
    assert_eq!(clean("\x1b[31mred\u{202e}\u{9b}x", 64), "[31mredx");
    assert_eq!(clean("four five", 5), "four");
    assert_eq!(clean("", 5), "");
}

proptest! {
    #[test]
    fn nothing_that_was_received_can_steer_a_terminal(
        texts in prop::collection::vec(any::<String>(), 6), heat in any::<i16>()
    ) {
        let mut told = laptop();
        told.made.os.clone_from(&texts[0]);
        told.made.architecture.clone_from(&texts[1]);
        told.made.processor.clone_from(&texts[2]);
        told.made.kernels.clone_from(&texts[3]);
        told.made.features[0].clone_from(&texts[4]);
        told.made.cards[0].name.clone_from(&texts[5]);
        told.now.temperature = Some(heat);
        let long = |text: &String, most| text.len() > most;
        let over = long(&texts[4], MAX_FEATURE) || texts.iter().any(|text| long(text, MAX_NAME));
        match told.received() {
            None => prop_assert!(over),
            Some(taken) => {
                prop_assert!(!over);
                let made = &taken.made;
                let all = [&made.os, &made.architecture, &made.processor, &made.kernels];
                let all = all.into_iter().chain(&made.features);
                for text in all.chain(made.cards.iter().map(|card| &card.name)) {
                    prop_assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
                }
            }
        }
    }

    #[test]
    fn told_facts_are_near_the_true_ones_and_settle(
        heat in -400i16..1_500, last in proptest::option::of(-400i16..1_500),
        bytes in 0u64..1 << 40, before in proptest::option::of(0u64..1 << 40),
    ) {
        let memory = Some(64 << 30);
        let now = Condition {
            temperature: Some(heat),
            memory_available: Some(bytes),
            ..Condition::default()
        };
        let last = Condition { temperature: last, memory_available: before, ..Condition::default() };
        let told = now.settled(&last, memory);
        prop_assert!(told.temperature.unwrap().abs_diff(heat) < 20);
        prop_assert!(told.memory_available.unwrap().abs_diff(bytes) < 2 << 30);
        prop_assert_eq!(now.settled(&told, memory), told, "telling it again changes nothing");
    }
}
