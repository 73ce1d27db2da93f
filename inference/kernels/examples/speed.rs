//! Measures the kernels on a model of synthetic weights in the shape of SmolLM2-135M: prompts and
//! answers per second, without a file and without the rest of the engine.
//!
//! `cargo run --release -p selvedge-kernels --example speed -- [FORMAT] [THREADS]`

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for people")]

use std::error::Error;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use selvedge_kernels::{
    Activation, Config, Crew, Format, Isa, KernelError, Logits, Model, Rotation, Segment, Source,
};

/// Repetitions of each measurement; the median is shown.
const ROUNDS: usize = 5;

/// Weights that are never looked at: the same bytes for all, with small scales.
struct Synthetic(Format);

impl Source for Synthetic {
    fn format(&mut self, name: &str, dims: &[usize]) -> Result<Option<Format>, KernelError> {
        let none = name.ends_with("bias") || name == "output.weight" || name.starts_with("rope");
        let format = match (none, dims.len(), name) {
            (true, ..) => return Ok(None),
            (_, 1, _) => Format::F32,
            (_, _, "token_embd.weight") => Format::Q8_0,
            _ => self.0,
        };
        Ok(Some(format))
    }

    fn read(
        &mut self,
        _: &str,
        from: u64,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        // 0x2c2c is a half of 0.065, 0x2c2c2c2c a float of 2.4e-12.
        into.extend(
            (0..bytes as u64).map(|at| if (from + at).is_multiple_of(7) { 0x1c } else { 0x2c }),
        );
        Ok(())
    }

    fn advanced(&mut self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let format = match arguments.next().as_deref() {
        None | Some("Q4_1") => Format::Q4_1,
        Some("Q4_0") => Format::Q4_0,
        Some("Q5_1") => Format::Q5_1,
        Some("Q8_0") => Format::Q8_0,
        Some(other) => return Err(format!("{other}: Q4_0, Q4_1, Q5_1 or Q8_0").into()),
    };
    let threads = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let config = Config {
        layers: 30,
        width: 576,
        feed_forward: 1_536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocabulary: 49_152,
        epsilon: 1e-5,
        rope_base: 100_000.0,
        rope_divisor: 1.0,
        rotation: Rotation::Pairs,
        rotated: 64,
        rope_factors: "rope_freqs.weight",
        rope_scale: 1.0,
        head_norms: false,
        post_norms: false,
        activation: Activation::Silu,
        embedding_scale: 1.0,
        query_scale: 0.125,
        fused: false,
        window: None,
    };
    let began = Instant::now();
    let open = || -> Result<Box<dyn Source>, KernelError> { Ok(Box::new(Synthetic(format))) };
    let model = Model::load(config, &open, threads, None)?;
    println!("{format:?}, {threads} threads: loaded in {} ms", began.elapsed().as_millis());
    for isa in Isa::available().into_iter().rev() {
        let mut crew = Crew::with_isa(threads, isa)?;
        if isa == Isa::scalar() {
            println!("{}: decode 1 {:.2}", isa.name(), decode(&model, &mut crew, 1, 1)?);
            continue;
        }
        print!("{}: prefill in chunks of 16", isa.name());
        for length in [32, 128, 512] {
            print!("  {length}: {:.0}", median(|| prefill(&model, &mut crew, length))?);
        }
        print!("   decode");
        for batch in [1, 4, 8, 16] {
            print!("  {batch}: {:.1}", median(|| decode(&model, &mut crew, batch, 32))?);
        }
        println!("   tokens/s");
    }
    Ok(())
}

fn median(mut of: impl FnMut() -> Result<f64, KernelError>) -> Result<f64, KernelError> {
    let mut all = (0..ROUNDS).map(|_| of()).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all[ROUNDS / 2])
}

fn prefill(model: &Model, crew: &mut Crew, length: usize) -> Result<f64, KernelError> {
    let mut cache = model.cache();
    let tokens: Vec<u32> = (0..length as u32).map(|index| 1_000 + index * 7 % 20_000).collect();
    let began = Instant::now();
    for tokens in tokens.chunks(16) {
        let segment = Segment { cache: &mut cache, tokens, logits: Logits::None, added: None };
        model.step(crew, &mut [segment], &AtomicU64::new(0))?;
    }
    Ok(length as f64 / began.elapsed().as_secs_f64())
}

fn decode(model: &Model, crew: &mut Crew, batch: usize, steps: u32) -> Result<f64, KernelError> {
    let mut caches: Vec<_> = (0..batch).map(|_| model.cache()).collect();
    let began = Instant::now();
    for step in 0..steps {
        let tokens = [step + 1];
        let mut segments: Vec<_> = caches
            .iter_mut()
            .map(|cache| Segment { cache, tokens: &tokens, logits: Logits::Last, added: None })
            .collect();
        model.step(crew, &mut segments, &AtomicU64::new(0))?;
    }
    Ok(batch as f64 * f64::from(steps) / began.elapsed().as_secs_f64())
}
