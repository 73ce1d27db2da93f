use std::sync::atomic::AtomicU64;

use candle_core::Device;
use candle_core::quantized::QTensor;
use selvedge_base::Dice;
use selvedge_kernels::{Crew, Isa, Logits, Segment};

use super::*;
use crate::kv::KvCache;
use crate::tensors;
use crate::testing::{Family, Writer, temporary};

#[path = "plain.rs"]
mod plain;

/// Tokens enough for two pages.
fn tokens() -> Vec<u32> {
    (0..100).map(|index| index * 37 % 256).collect()
}

fn logits(model: &Model, crew: &mut Crew, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut cache = model.cache();
    let mut all = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let segment = Segment { cache: &mut cache, tokens, logits: Logits::All, added: None };
        let computed = model.step(crew, &mut [segment], &AtomicU64::new(0));
        all.extend(computed.expect("computes").remove(0));
    }
    all
}

/// candle computes the same file in f32.
fn reference(gguf: &Gguf, tokens: &[u32]) -> Vec<Vec<f32>> {
    let model = tensors::Llama::load(gguf, &Device::Cpu, &|| ()).expect("loads");
    let mut cache: KvCache = model.cache().expect("a cache");
    let segment = tensors::Segment { cache: &mut cache, tokens, logits: Logits::All };
    model.step(&mut [segment], &AtomicU64::new(0)).expect("computes").remove(0)
}

fn relative(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let (mut error, mut size) = (0.0, 0.0);
    for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        error += f64::from(ours - theirs).powi(2);
        size += f64::from(*theirs).powi(2);
    }
    (error / size).sqrt()
}

fn close(ours: &[Vec<f32>], theirs: &[Vec<f32>]) {
    // Weights and activations are rounded to eight bits: about one per cent of each product.
    let relative = relative(ours, theirs);
    assert!(relative < 0.05, "off by {relative}");
}

#[test]
fn all_families_compute_what_candle_computes() {
    for architecture in ["llama", "qwen2", "qwen3"] {
        let mut writer = Writer::tiny(7);
        match architecture {
            "qwen2" => writer.become_qwen2(7),
            "qwen3" => writer.become_qwen3(7),
            _ => {}
        }
        let file = temporary(&writer.bytes());
        let gguf = Gguf::open(file.path()).expect("well formed");
        let model = load(&gguf, 2, &|| ()).expect("loads");
        let mut crew = Crew::new(2).expect("threads");
        let tokens = tokens();
        close(&logits(&model, &mut crew, &tokens, 100), &reference(&gguf, &tokens));
    }
}

#[test]
fn qwen3_computes_what_its_definition_says() {
    let mut writer = Writer::tiny(9);
    writer.become_qwen3(9);
    let file = temporary(&writer.bytes());
    let gguf = Gguf::open(file.path()).expect("well formed");
    let model = load(&gguf, 2, &|| ()).expect("loads");
    let mut crew = Crew::new(2).expect("threads");
    let ours = logits(&model, &mut crew, &tokens(), 100);
    close(&ours, &plain::qwen3(&writer, &tokens()));
}

/// How far eight bits may be off in models whose attention is sharper than that of others here.
const ROUNDED: f64 = 0.1;

/// In full precision to the last digits that the reference has, and so in every detail; rounded as
/// near as all families are.
#[test]
fn all_families_compute_what_transformers_computes() {
    for name in Family::NAMES {
        let Family { writer, tokens, logits: expected, .. } = Family::read(name);
        let file = temporary(&writer.bytes());
        let gguf = Gguf::open(file.path()).expect("well formed");
        let exact = relative(&reference(&gguf, &tokens), &expected);
        assert!(exact < 1e-5, "{name}: off by {exact}");
        let model = load(&gguf, 2, &|| ()).expect("loads");
        let mut crew = Crew::new(2).expect("threads");
        for chunk in [1, 40] {
            let off = relative(&logits(&model, &mut crew, &tokens, chunk), &expected);
            assert!(off < ROUNDED, "{name}: off by {off}");
        }
    }
}

/// What of a file would change what comes out, changes it.
#[test]
fn what_files_say_of_windows_and_rotation_counts() {
    let change = |name: &str, edit: &dyn Fn(&mut Writer)| {
        let Family { mut writer, tokens, logits: expected, .. } = Family::read(name);
        edit(&mut writer);
        let file = temporary(&writer.bytes());
        let gguf = Gguf::open(file.path()).expect("well formed");
        let exact = reference(&gguf, &tokens);
        let ours = load(&gguf, 2, &|| ()).expect("loads");
        let ours = logits(&ours, &mut Crew::new(2).expect("threads"), &tokens, 40);
        let (off, rounded) = (relative(&exact, &expected), relative(&ours, &exact));
        assert!(rounded < ROUNDED, "{name}: the kernels are off by {rounded}");
        off
    };
    for (name, key, number) in [
        ("gemma3", "gemma3.attention.sliding_window", 7),
        ("gemma3", "gemma3.attention.sliding_window", 9),
        ("gemma3", "gemma3.attention.sliding_window_pattern", 5),
        ("phi3", "phi3.attention.sliding_window", 8),
        ("phi3", "phi3.attention.sliding_window", 0),
        ("phi3-long", "phi3.rope.scaling.original_context_length", 64),
    ] {
        let off = change(name, &|writer| writer.number(key, number));
        assert!(off > 1e-3, "{key} of {number}: off by {off}");
    }
    for (name, key, number) in [
        ("gemma3", "gemma3.rope.freq_base_swa", 1_000.0),
        ("gemma3", "gemma3.rope.scaling.factor", 1.0),
        ("phi3-long", "phi3.rope.scaling.attn_factor", 1.0),
    ] {
        let off = change(name, &|writer| writer.real(key, number));
        assert!(off > 1e-3, "{key} of {number}: off by {off}");
    }
    let off = change("llama-scaled", &|writer| writer.fill("rope_freqs.weight", 1.0));
    assert!(off > 1e-3, "factors of one: off by {off}");
    // A window beyond any context hides nothing, however far it reaches.
    for window in [64, 1 << 21, u32::MAX] {
        let key = "phi3.attention.sliding_window";
        let off = change("phi3-long", &|writer| writer.number(key, window));
        assert!(off < 1e-5, "{key} of {window}: off by {off}");
    }
    // The same, said otherwise.
    let flags = [true, true, true, true, true, false];
    let key = "gemma3.attention.sliding_window_pattern";
    let off = change("gemma3", &|writer| writer.flags(key, &flags));
    assert!(off < 1e-5, "off by {off}");
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let refused = |name: &str, edit: &dyn Fn(&mut Writer)| {
        let Family { mut writer, .. } = Family::read(name);
        edit(&mut writer);
        let file = temporary(&writer.bytes());
        let gguf = Gguf::open(file.path()).expect("well formed");
        load(&gguf, 1, &|| ()).expect_err("refused").to_string()
    };
    let key = "gemma3.attention.sliding_window_pattern";
    for (said, expected) in [
        (refused("gemma3", &|w| w.text("general.architecture", "gemma2")), "gemma3, llama, phi3"),
        (
            refused("gemma3", &|w| w.real("gemma3.final_logit_softcapping", 30.0)),
            "final_logit_softcapping",
        ),
        (refused("gemma3", &|w| w.flags(key, &[true])), "a list of 6 flags"),
        (refused("gemma3", &|w| w.text("gemma3.attention.sliding_window", "all")), "window"),
        (refused("phi3", &|w| w.text("phi3.rope.scaling.type", "yarn")), "'yarn'"),
        (refused("phi3", &|w| w.number("phi3.rope.dimension_count", 10)), "over 10 of 8"),
        (refused("phi3", &|w| w.number("phi3.rope.dimension_count", 5)), "over 5 of 8"),
        (refused("phi3-long", &|w| w.real("phi3.rope.scaling.attn_factor", 0.0)), "attn_factor"),
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let said = load_of(Family::read("phi3-long").writer.without("rope_factors_long.weight"));
    assert!(said.contains("rope_factors_long.weight, which is missing"), "{said}");
    for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let said = refused("phi3-long", &|w| w.fill("rope_factors_long.weight", factor));
        assert!(said.contains("rope_factors_long.weight has the factor"), "{said}");
        let mut writer = Writer::tiny(9);
        writer.put("rope_freqs.weight", vec![4], vec![1.0, 1.0, factor, 1.0]);
        let said = load_of(writer);
        assert!(said.contains("rope_freqs.weight has the factor"), "{said}");
    }
    let without = Family::read("gemma3").writer.without("blk.1.post_ffw_norm.weight");
    let said = load_of(without);
    assert!(said.contains("blk.1.post_ffw_norm.weight is missing"), "{said}");
}

/// Why a file is refused.
fn load_of(writer: Writer) -> String {
    let file = temporary(&writer.bytes());
    let gguf = Gguf::open(file.path()).expect("well formed");
    load(&gguf, 1, &|| ()).expect_err("refused").to_string()
}

#[test]
fn a_qwen3_without_norms_of_heads_or_with_strange_heads_is_refused() {
    let mut writer = Writer::tiny(9);
    writer.become_qwen3(9);
    let refused = |writer: &Writer| {
        let file = temporary(&writer.bytes());
        let gguf = Gguf::open(file.path()).expect("well formed");
        load(&gguf, 1, &|| ()).expect_err("refused").to_string()
    };
    let without = refused(&writer.clone().without("blk.1.attn_k_norm.weight"));
    assert!(without.contains("blk.1.attn_k_norm.weight is missing"), "{without}");
    for (keys, values, reason) in [
        (0, 12, "attention.key_length is Some(0)"),
        (u32::MAX, 12, "attention.key_length is Some(4294967295)"),
        (12, 14, "keys of 12 dimensions with values of 14"),
        (13, 13, "of 13 dimensions"),
        (16, 16, "attn_q.weight is [48, 32], expected [64, 32]"),
    ] {
        let mut writer = writer.clone();
        writer.number("qwen3.attention.key_length", keys);
        writer.number("qwen3.attention.value_length", values);
        let message = refused(&writer);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn neither_threads_nor_chunks_nor_instructions_change_a_bit() {
    let mut writer = Writer::tiny(3);
    no_bit_changes(&writer, &tokens());
    writer.become_qwen3(3);
    no_bit_changes(&writer, &tokens());
    for name in Family::NAMES {
        let Family { writer, .. } = Family::read(name);
        let tokens: Vec<u32> = tokens().into_iter().map(|token| token % 48).collect();
        no_bit_changes(&writer, &tokens);
    }
}

fn no_bit_changes(writer: &Writer, tokens: &[u32]) {
    let file = temporary(&writer.bytes());
    let gguf = Gguf::open(file.path()).expect("well formed");
    let model = load(&gguf, 1, &|| ()).expect("loads");
    let bits = |all: Vec<Vec<f32>>| all.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let mut first = Crew::with_isa(1, Isa::scalar()).expect("threads");
    let expected = bits(logits(&model, &mut first, tokens, 100));
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut crew = Crew::with_isa(threads, isa).expect("threads");
            for chunk in [1, 7, 100] {
                let ours = bits(logits(&model, &mut crew, tokens, chunk));
                assert!(ours == expected, "{} on {threads} in chunks of {chunk}", isa.name());
            }
        }
    }
}

#[test]
fn every_format_means_what_candle_takes_it_to_mean() {
    use candle_core::Tensor;
    for kind in [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ] {
        let mut dice = Dice::keyed(5, "weights");
        let values: Vec<f32> = (0..3 * 512).map(|_| dice.unit_f32() - 0.4).collect();
        let tensor = Tensor::from_vec(values, (3, 512), &Device::Cpu).expect("a tensor");
        let quantized = QTensor::quantize(&tensor, kind).expect("quantizes");
        let bytes = quantized.data().expect("bytes");
        let exact = quantized.dequantize(&Device::Cpu).and_then(|all| all.to_vec2::<f32>());
        let format = format(kind).expect("known");
        let ours = selvedge_kernels::unpacked(format, &bytes, 3, 512).expect("packs");
        for (ours, exact) in ours.chunks_exact(512).zip(exact.expect("numbers")) {
            for (ours, exact) in ours.iter().zip(exact) {
                // Scales in half precision; eight bits where codes are not kept.
                assert!((ours - exact).abs() < 3e-3, "{kind:?}: {ours} for {exact}");
            }
        }
    }
}

/// A table of embeddings beside a head of its own is read row by row, from the file as opened.
#[test]
fn embeddings_beside_a_head_stay_in_the_file() {
    let file = temporary(&Writer::tiny(7).bytes());
    let gguf = Gguf::open(file.path()).expect("well formed");
    let tied = temporary(&Writer::tiny(7).without("output.weight").bytes());
    let tied = Gguf::open(tied.path()).expect("well formed");
    assert_eq!(bytes(&gguf), bytes(&tied), "one matrix of the vocabulary in memory");
    let model = load(&gguf, 2, &|| ()).expect("loads");
    let mut crew = Crew::new(2).expect("threads");
    let before = logits(&model, &mut crew, &tokens(), 40);
    // Its name is gone, and it is what it was.
    let kept = std::fs::File::options().write(true).open(file.path()).expect("opens");
    std::fs::remove_file(file.path()).expect("removes");
    assert!(logits(&model, &mut crew, &tokens(), 40) == before);
    // Cut short, it ends the step and nothing else.
    kept.set_len(gguf.tensor("token_embd.weight").expect("there").start).expect("cuts");
    let mut cache = model.cache();
    let segment = Segment { cache: &mut cache, tokens: &[1, 2], logits: Logits::Last, added: None };
    let refused = model.step(&mut crew, &mut [segment], &AtomicU64::new(0));
    let refused = EngineError::from(refused.expect_err("no row is there"));
    assert!(matches!(refused, EngineError::Io { .. }), "{refused}");
    assert_eq!(cache.len(), 0);
}
