use super::*;
use crate::format::Format;
use crate::model::{Rotation, Source, Window};
use crate::simd::tests::Dice;

/// A model whose weights follow from their names.
pub(crate) struct Drawn(pub(crate) Format);

impl Source for Drawn {
    fn format(&mut self, name: &str, dims: &[usize]) -> Result<Option<Format>, KernelError> {
        let absent = name == "output.weight" || name.starts_with("rope") || name.ends_with("bias");
        let format = if dims.len() == 1 { Format::F32 } else { self.0 };
        Ok((!absent).then_some(format))
    }

    fn read(
        &mut self,
        name: &str,
        from: u64,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        let seed = name
            .bytes()
            .fold(from, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut dice = Dice(seed);
        if self.0 == Format::F32 || name.contains("norm") {
            into.extend((0..bytes / 4).flat_map(|_| dice.unit().to_le_bytes()));
        } else {
            into.extend((0..bytes).map(|at| if at % 34 == 1 { 0x20 } else { dice.next() as u8 }));
        }
        Ok(())
    }

    fn advanced(&mut self) {}
}

/// Nothing here is a multiple of anything else.
fn odd(format: Format, width: usize, head_dim: usize) -> Model {
    let open = || -> Result<Box<dyn Source>, KernelError> { Ok(Box::new(Drawn(format))) };
    Model::load(shape(width, head_dim), &open, 2, None).expect("loads")
}

pub(crate) fn shape(width: usize, head_dim: usize) -> Config {
    let strange = head_dim == 10;
    Config {
        layers: 2,
        width,
        feed_forward: 96,
        heads: 6,
        kv_heads: 2,
        head_dim,
        vocabulary: 50,
        epsilon: 1e-5,
        rope_base: 10_000.0,
        rope_divisor: 1.0,
        rotation: Rotation::Halves,
        // With the odd head, so that both ways are computed.
        rotated: if strange { 8 } else { head_dim },
        rope_factors: "rope_freqs.weight",
        rope_scale: if strange { 1.25 } else { 1.0 },
        head_norms: strange,
        post_norms: strange,
        activation: if strange { Activation::Gelu } else { Activation::Silu },
        embedding_scale: if strange { 3.0 } else { 1.0 },
        query_scale: 1.0 / (head_dim as f32).sqrt(),
        fused: false,
        window: strange.then(|| Window {
            positions: 37,
            layers: vec![true, false],
            rope_base: Some(100.0),
        }),
    }
}

/// With a window in both layers, the last row sees twice as far, its own counted once.
#[test]
fn a_window_shows_its_positions_and_none_before_them() {
    let mut model = odd(Format::F32, 40, 10);
    let (sight, length) = (20, 90);
    let window = Window { positions: sight, layers: vec![true, true], rope_base: Some(10_000.0) };
    model.config.window = Some(window);
    let tokens: Vec<u32> = (0..length as u32).map(|at| at * 7 % 50).collect();
    let expected = last(&model, &mut model.cache(), &tokens, length);
    let farthest = length - 1 - 2 * (sight - 1);
    for at in [0, farthest - 1, farthest, length - 2] {
        let mut other = tokens.clone();
        other[at] = (other[at] + 1) % 50;
        for chunk in [length, 7] {
            let seen = last(&model, &mut model.cache(), &other, chunk) != expected;
            assert_eq!(seen, at >= farthest, "position {at} in chunks of {chunk}");
        }
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn sequences_that_come_and_go_do_not_change_each_other() {
    let lengths: [usize; 3] = if cfg!(miri) { [1, 2, 3] } else { [1, 9, 70] };
    for (format, width, dim) in [(Format::F32, 40, 10), (Format::Q8_0, 96, 16)] {
        let model = odd(format, width, dim);
        let mut crew = Crew::with_isa(1, Isa::scalar()).expect("threads");
        let progress = AtomicU64::new(0);
        let token = |sequence: usize, at: usize| [((sequence * 17 + at * 5) % 50) as u32];
        let mut alone = Vec::new();
        for (sequence, length) in lengths.into_iter().enumerate() {
            let (mut cache, mut last) = (model.cache(), Vec::new());
            for at in 0..length {
                let tokens = token(sequence, at);
                let segment = Segment {
                    cache: &mut cache,
                    tokens: &tokens,
                    logits: Logits::Last,
                    added: None,
                };
                last = model.step(&mut crew, &mut [segment], &progress).expect("computes");
            }
            alone.push(bits(&last[0][0]));
        }
        let mut crew = Crew::new(2).expect("threads");
        let mut caches: Vec<_> = lengths.iter().map(|_| model.cache()).collect();
        for at in 0..lengths[2] {
            let tokens: Vec<_> = (0..3).map(|sequence| token(sequence, at)).collect();
            let mut segments = Vec::new();
            for (sequence, cache) in caches.iter_mut().enumerate() {
                if at < lengths[sequence] {
                    let tokens = &tokens[sequence];
                    segments.push(Segment { cache, tokens, logits: Logits::Last, added: None });
                }
            }
            let computed = model.step(&mut crew, &mut segments, &progress).expect("computes");
            let running = (0..3).filter(|&sequence| at < lengths[sequence]);
            for (sequence, computed) in running.zip(computed) {
                if at + 1 == lengths[sequence] {
                    assert!(bits(&computed[0]) == alone[sequence], "sequence {sequence}");
                }
            }
        }
    }
}

#[test]
fn rows_that_were_taken_back_are_written_anew() {
    let (large, model) = (odd(Format::F32, 96, 16), odd(Format::F32, 40, 10));
    let mut crew = Crew::new(1).expect("threads");
    let mut logits = |model: &Model, taken: Vec<Vec<Vec<f32>>>| {
        crew.take_back(taken);
        let mut cache = model.cache();
        let segment =
            Segment { cache: &mut cache, tokens: &[3, 1, 4], logits: Logits::All, added: None };
        model.step(&mut crew, &mut [segment], &AtomicU64::new(0)).expect("computes")
    };
    let rows = |computed: &[Vec<Vec<f32>>]| computed[0].iter().map(|row| bits(row)).collect();
    let first = logits(&model, Vec::new());
    let expected: Vec<Vec<u32>> = rows(&first);
    // Of another model, fewer than are needed, longer ones and shorter ones.
    let other = logits(&large, first);
    assert_eq!(rows(&logits(&model, other)), expected);
    let odd_ones = vec![vec![vec![f32::NAN; 70]], vec![], vec![vec![f32::NAN; 7]]];
    assert_eq!(rows(&logits(&model, odd_ones)), expected);
}

#[test]
fn what_is_not_the_models_is_refused_and_changes_nothing() {
    let (model, other) = (odd(Format::F32, 40, 10), odd(Format::F32, 40, 12));
    let mut crew = Crew::new(1).expect("threads");
    let mut cache = model.cache();
    let progress = AtomicU64::new(0);
    let segment =
        Segment { cache: &mut cache, tokens: &[3, 50], logits: Logits::Last, added: None };
    let refused = model.step(&mut crew, &mut [segment], &progress);
    assert!(matches!(refused, Err(KernelError::Token { token: 50, vocabulary: 50 })));
    assert!(cache.is_empty());
    let mut strange = other.cache();
    let segment = Segment { cache: &mut strange, tokens: &[3], logits: Logits::Last, added: None };
    assert!(model.step(&mut crew, &mut [segment], &progress).is_err());
    let nothing = model.step(&mut crew, &mut [], &progress).expect("nothing to do");
    assert!(nothing.is_empty());
}

/// The last token's logits after all of them, computed in chunks behind what the cache has.
pub(crate) fn last(model: &Model, cache: &mut Cache, tokens: &[u32], chunk: usize) -> Vec<u32> {
    let (mut crew, progress) = (Crew::new(2).expect("threads"), AtomicU64::new(0));
    let mut logits = Vec::new();
    for tokens in tokens[cache.len()..].chunks(chunk) {
        let segment = Segment { cache, tokens, logits: Logits::Last, added: None };
        logits = model.step(&mut crew, &mut [segment], &progress).expect("computes");
    }
    bits(&logits[0][0])
}

#[test]
fn behind_shared_pages_no_bit_changes() {
    let model = odd(Format::F32, 40, 10);
    let tokens: Vec<u32> = (0..150).map(|at| at * 7 % 50).collect();
    let mut cold = model.cache();
    let expected = last(&model, &mut cold, &tokens, 150);
    for chunk in [1, 16, 100] {
        let mut first = model.cache();
        let mut pages = Vec::new();
        // Shared as soon as they are whole, while their sequence goes on.
        for end in [64, 70, 128, 140] {
            last(&model, &mut first, &tokens[..end], chunk);
            pages.extend(std::iter::from_fn(|| first.share()));
        }
        assert_eq!(pages.len(), 2);
        assert!(last(&model, &mut first, &tokens, chunk) == expected);
        let mut second = model.cache();
        // The one page it finds, the other it has computed itself.
        second.join(pages[0].clone()).expect("its beginning");
        last(&model, &mut second, &tokens[..130], chunk);
        second.join(pages[1].clone()).expect("the same page");
        drop((first, pages));
        assert_eq!((second.len(), second.share().is_some()), (130, false));
        assert!(last(&model, &mut second, &tokens, chunk) == expected);
        let mut both = [model.cache(), model.cache()];
        both[0].join(second.shared[0].clone()).expect("a beginning");
        both[1].join(second.shared[0].clone()).expect("a beginning");
        let [one, two] = &mut both;
        let mut segments = [one, two].map(|cache| {
            let tokens = &tokens[64..];
            Segment { cache, tokens, logits: Logits::Last, added: None }
        });
        let mut crew = Crew::new(2).expect("threads");
        let computed = model.step(&mut crew, &mut segments, &AtomicU64::new(0)).expect("computes");
        assert!(computed.iter().all(|logits| bits(&logits[0]) == expected));
    }
}

/// Rows that were computed and forgotten leave nothing behind, wherever in a group of positions or
/// in a page they stood, and their pages are given back.
#[test]
fn what_was_forgotten_is_written_over() {
    let model = odd(Format::Q8_0, 96, 16);
    let length = if cfg!(miri) { 5 } else { 150 };
    let token = |at: usize| (at * 5 % 50) as u32;
    let tokens: Vec<u32> = (0..length).map(token).collect();
    let mut crew = Crew::new(2).expect("threads");
    let progress = AtomicU64::new(0);
    let mut step = |cache: &mut Cache, tokens: &[u32]| {
        let segment = Segment { cache, tokens, logits: Logits::All, added: None };
        model.step(&mut crew, &mut [segment], &progress).expect("computes").remove(0)
    };
    let expected: Vec<_> = step(&mut model.cache(), &tokens).iter().map(|row| bits(row)).collect();
    let mut cache = model.cache();
    let mut at = 0;
    while at < length {
        // The token itself, some right ones behind it and some wrong ones.
        let (right, wrong) = (at * 7 % 4, at * 11 % 13);
        let right = right.min(length - at - 1);
        let wrong = (0..wrong).map(|index| (token(at + right) + 7 + index as u32) % 50);
        let drafted: Vec<u32> = tokens[at..=at + right].iter().copied().chain(wrong).collect();
        let logits = step(&mut cache, &drafted);
        for (row, logits) in logits.iter().take(right + 1).enumerate() {
            assert!(bits(logits) == expected[at + row], "position {}", at + row);
        }
        at += right + 1;
        cache.truncate(at);
        assert_eq!((cache.len(), cache.pages.len()), (at, at.div_ceil(PAGE)));
    }
    let page = cache.share();
    assert_eq!(page.is_some(), length >= PAGE);
    cache.truncate(0);
    let kept = page.map_or(0, |_| PAGE);
    assert_eq!((cache.len(), cache.pages.len()), (kept, 0), "shared pages stay");
}

#[test]
fn a_page_is_joined_where_it_belongs_and_nowhere_else() {
    let (model, other) = (odd(Format::F32, 40, 10), odd(Format::F32, 40, 12));
    let tokens: Vec<u32> = (0..130).map(|at| at % 50).collect();
    let mut cache = model.cache();
    last(&model, &mut cache, &tokens[..63], 63);
    assert!(cache.share().is_none(), "it is not whole");
    last(&model, &mut cache, &tokens, 130);
    let pages: Vec<_> = std::iter::from_fn(|| cache.share()).collect();
    assert!(other.cache().join(pages[0].clone()).is_err(), "another model's");
    assert!(model.cache().join(pages[1].clone()).is_err(), "not the first");
    let mut begun = model.cache();
    last(&model, &mut begun, &tokens[..10], 10);
    assert!(begun.join(pages[0].clone()).is_err(), "in the middle of a page");
    assert_eq!(begun.len(), 10);
}

/// Something at every part of every layer.
fn additions(model: &Model, seed: u64, size: f32) -> Additions {
    let mut dice = Dice(seed);
    let mut added = Additions::new(model.blocks.len());
    let config = &model.config;
    let (all, few) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (width, forward) = (config.width, config.feed_forward);
    for layer in 0..model.blocks.len() {
        for (part, outputs, inputs) in [
            (Part::Query, all, width),
            (Part::Key, few, width),
            (Part::Value, few, width),
            (Part::Output, width, all),
            (Part::Gate, forward, width),
            (Part::Up, forward, width),
            (Part::Down, width, forward),
        ] {
            let mut draw = |count: usize, size: f32| -> Vec<f32> {
                (0..count).map(|_| dice.unit() * size).collect()
            };
            let (a, b) = (draw(3 * inputs, 0.3), draw(3 * outputs, size));
            added.add((layer, part), 3, (&a, &b), 0.5).expect("fits");
        }
    }
    added
}

#[test]
fn rows_of_several_additions_and_of_none_do_not_change_each_other() {
    let model = odd(Format::F32, 40, 10);
    let (one, other) = (additions(&model, 1, 0.3), additions(&model, 2, 0.3));
    let nothing = additions(&model, 3, 0.0);
    let of = [None, Some(&one), Some(&other), Some(&nothing), Some(&one)];
    let lengths = if cfg!(miri) { [2, 3] } else { [9, 3] };
    let tokens: Vec<u32> =
        (0..lengths[0] as u32 + lengths[1] as u32).map(|at| at * 5 % 50).collect();
    let mut alone = Vec::new();
    for added in of {
        let mut crew = Crew::with_isa(1, Isa::scalar()).expect("threads");
        let (mut cache, mut last) = (model.cache(), Vec::new());
        for token in &tokens {
            let tokens = std::slice::from_ref(token);
            let segment = Segment { cache: &mut cache, tokens, logits: Logits::Last, added };
            last = model.step(&mut crew, &mut [segment], &AtomicU64::new(0)).expect("computes");
        }
        alone.push(last[0][0].clone());
    }
    assert!(alone[0] != alone[1] && alone[1] != alone[2], "it changes what comes out");
    assert_eq!(alone[0], alone[3], "nothing added is the model itself");
    assert_eq!(alone[1], alone[4]);
    for isa in Isa::available() {
        let mut crew = Crew::with_isa(2, isa).expect("threads");
        let mut caches = of.map(|_| model.cache());
        let mut together = Vec::new();
        for tokens in [&tokens[..lengths[0]], &tokens[lengths[0]..]] {
            let segments = caches.iter_mut().zip(of);
            let mut segments: Vec<_> = segments
                .map(|(cache, added)| Segment { cache, tokens, logits: Logits::Last, added })
                .collect();
            together = model.step(&mut crew, &mut segments, &AtomicU64::new(0)).expect("computes");
        }
        for (at, (alone, together)) in alone.iter().zip(&together).enumerate() {
            assert!(bits(alone) == bits(&together[0]), "sequence {at} on {}", isa.name());
        }
    }
    let strange = additions(&odd(Format::F32, 48, 10), 1, 0.3);
    let mut cache = model.cache();
    let added = Some(&strange);
    let segment = Segment { cache: &mut cache, tokens: &[3], logits: Logits::Last, added };
    let mut crew = Crew::new(1).expect("threads");
    assert!(model.step(&mut crew, &mut [segment], &AtomicU64::new(0)).is_err());
    assert!(cache.is_empty());
}

/// Between kinds of processors nothing can be compared in one run: each must give these bits. Who
/// changes the order of operations changes them, and what nodes of two versions hand to each other.
#[test]
fn logits_have_the_bits_that_every_kind_of_processor_gives() {
    let tokens: Vec<u32> = (0..20).map(|at| at * 7 % 50).collect();
    let digests = [(Format::F32, 40, 10), (Format::Q8_0, 96, 16)].map(|(format, width, dim)| {
        let model = odd(format, width, dim);
        let logits = last(&model, &mut model.cache(), &tokens, 16);
        // FNV-1a, word by word.
        logits.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, &bits| {
            (digest ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3)
        })
    });
    assert_eq!(digests, [0x39b7_c6ae_ccf5_a596, 0xdace_e389_f185_f4e6], "{digests:#x?}");
}

/// A model with a head of its own, whose table of embeddings has this format and may stay where it
/// is.
#[derive(Clone, Debug)]
struct Apart(Format, bool);

impl Apart {
    const TABLE: &'static str = "token_embd.weight";

    /// Fifty rows of finite numbers: whatever is taken for a float has a small exponent.
    fn table(&self) -> Vec<u8> {
        let mut dice = Dice(7);
        (0..50 * self.0.bytes_for(256)).map(|_| dice.next() as u8 & 0x3b).collect()
    }

    fn of(name: &str) -> Drawn {
        Drawn(if name == "output.weight" { Format::Q8_0 } else { Format::F32 })
    }
}

#[derive(Debug)]
struct Stays(Vec<u8>);

impl crate::model::Rows for Stays {
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), KernelError> {
        let bytes = self.0.get(from as usize..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(KernelError::Bytes)?);
        Ok(())
    }
}

impl Source for Apart {
    fn format(&mut self, name: &str, dims: &[usize]) -> Result<Option<Format>, KernelError> {
        match name {
            Self::TABLE => Ok(Some(self.0)),
            "output.weight" => Ok(Some(Format::Q8_0)),
            _ => Self::of(name).format(name, dims),
        }
    }

    fn read(
        &mut self,
        name: &str,
        from: u64,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), KernelError> {
        if name != Self::TABLE {
            return Self::of(name).read(name, from, bytes, into);
        }
        into.extend_from_slice(&self.table()[from as usize..][..bytes]);
        Ok(())
    }

    fn rows(&mut self, name: &str) -> Result<Option<Box<dyn crate::model::Rows>>, KernelError> {
        assert_eq!(name, Self::TABLE);
        let mut bytes = self.table();
        // Of fifty rows the last two are missing.
        bytes.truncate(48 * self.0.bytes_for(256));
        Ok(self.1.then(|| Box::new(Stays(bytes)) as _))
    }

    fn advanced(&mut self) {}
}

#[test]
fn embeddings_that_stay_where_they_are_are_the_same_numbers() {
    for format in [
        Format::F32,
        Format::BF16,
        Format::Q4_0,
        Format::Q5_0,
        Format::Q8_0,
        Format::Q2K,
        Format::Q4K,
        Format::Q6K,
    ] {
        let load = |stays| {
            let config = shape(256, 8);
            let open =
                || -> Result<Box<dyn Source>, KernelError> { Ok(Box::new(Apart(format, stays))) };
            Model::load(config, &open, 1, None).expect("loads")
        };
        let (here, there) = (load(false), load(true));
        let mut crew = Crew::new(1).expect("a crew");
        let mut logits = |model: &Model, tokens: &[u32]| {
            let mut cache = model.cache();
            let segment = Segment { cache: &mut cache, tokens, logits: Logits::All, added: None };
            let computed = model.step(&mut crew, &mut [segment], &AtomicU64::new(0));
            (computed, cache.len())
        };
        let tokens = [0, 7, 31, 47];
        let (ours, theirs) = (logits(&here, &tokens).0, logits(&there, &tokens).0);
        let bits = |all: Vec<Vec<Vec<f32>>>| -> Vec<u32> {
            all.into_iter().flatten().flatten().map(f32::to_bits).collect()
        };
        assert_eq!(bits(ours.expect("computes")), bits(theirs.expect("computes")), "{format:?}");
        // A row that cannot be read leaves nothing half done.
        let (refused, length) = logits(&there, &[1, 49]);
        assert!(matches!(refused, Err(KernelError::Bytes)) && length == 0);
    }
}
