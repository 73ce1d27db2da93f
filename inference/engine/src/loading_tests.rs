use parking_lot::Mutex;

use super::*;
use crate::gguf::Gguf;
use crate::llama::Llama;

#[test]
fn a_load_tells_how_far_it_has_come() {
    let (engine, file) = with_tiny(EngineConfig { lazy: true, ..config() });
    let gguf = Gguf::open(file.path()).expect("a model");
    let all = gguf.tensors.len();
    assert_eq!(engine.loading(MODEL), None, "nothing is loaded");
    assert!(engine.shared.begin_loading(MODEL));
    assert_eq!(engine.loading(MODEL), None, "it may wait for memory");
    let meter = engine.shared.measures(MODEL, all);
    assert_eq!(engine.loading(MODEL), Some(0));
    let seen = Mutex::new(Vec::new());
    let advanced = || {
        meter.advanced();
        seen.lock().extend(engine.loading(MODEL));
    };
    Llama::load(&gguf, &candle_core::Device::Cpu, 1, &advanced).expect("loads");
    let told: Vec<u8> = (1..=all).map(|done| (done * 100 / all) as u8).collect();
    assert_eq!(*seen.lock(), told);
    assert!(engine.shared.set_state(MODEL, ModelState::Ready, None));
    assert_eq!(engine.loading(MODEL), None, "it is loaded");
    assert!(engine.shared.set_state(MODEL, ModelState::Loading, None));
    assert_eq!(engine.loading(MODEL), None, "another load begins at nothing");
}
