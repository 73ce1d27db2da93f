//! The formats of weights in GGUF files, read block by block.
//!
//! Owns what the bytes of each format mean (ggml's `block_*` structures) and their translation
//! into codes with scales. Q4 to Q8 and Q4_K to Q6_K keep their codes; Q2_K, Q3_K and floats are
//! rounded to eight bits, which adds less error than the rounding of activations does.

use crate::act::BLOCK;
use crate::half;
use crate::tile::{STEPS, Tile4, Tile5, Tile6, Tile8};

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "ggml's own names")]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Thirty-two weights of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codes {
    /// Four unsigned codes each.
    pub(crate) words: [u32; STEPS],
    /// Of both halves, in half precision.
    pub(crate) factors: [u16; 2],
    /// In half precision; zero in layouts whose codes have an excess instead.
    pub(crate) offset: u16,
}

/// In which layout of tiles a format is held, by the bits of its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are numbers")]
pub enum Layout {
    Four,
    Five,
    Six,
    Eight,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Four, Self::Five, Self::Six, Self::Eight];

    /// What stands for it in files: the bits of a code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
            Self::Six => 6,
            Self::Eight => 8,
        }
    }

    /// Bytes of a tile.
    pub const fn tile_bytes(self) -> usize {
        match self {
            Self::Four => size_of::<Tile4>(),
            Self::Five => size_of::<Tile5>(),
            Self::Six => size_of::<Tile6>(),
            Self::Eight => size_of::<Tile8>(),
        }
    }
}

impl Format {
    /// Numbers per block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => BLOCK,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of so many numbers in a row; a part of a block counts whole.
    pub const fn bytes_for(self, numbers: usize) -> usize {
        numbers.div_ceil(self.block_len()).saturating_mul(self.block_bytes())
    }

    pub(crate) const fn layout(self) -> Layout {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => Layout::Four,
            Self::Q5_0 | Self::Q5_1 | Self::Q5K => Layout::Five,
            Self::Q6K => Layout::Six,
            Self::F32 | Self::F16 | Self::BF16 | Self::Q8_0 | Self::Q2K | Self::Q3K => {
                Layout::Eight
            }
        }
    }

    /// Weights `32 index..` of a row of `bytes`; what lies behind its end is zero.
    pub(crate) fn codes(self, bytes: &[u8], index: usize) -> Codes {
        match self {
            Self::Q4_0 => block(bytes, index).map(|block: &[u8; 18]| nibbles4(block, 2, true)),
            Self::Q4_1 => block(bytes, index).map(|block: &[u8; 20]| nibbles4(block, 4, false)),
            Self::Q5_0 => block(bytes, index).map(|block: &[u8; 22]| nibbles5(block, 2, true)),
            Self::Q5_1 => block(bytes, index).map(|block: &[u8; 24]| nibbles5(block, 4, false)),
            Self::Q8_0 => block(bytes, index).map(|block: &[u8; 34]| Codes {
                words: std::array::from_fn(|step| word(block, 2 + 4 * step) ^ 0x8080_8080),
                factors: [half_at(block, 0); 2],
                offset: 0,
            }),
            Self::Q4K => block(bytes, index / 8).map(|block: &[u8; 144]| q4k(block, index % 8)),
            Self::Q5K => block(bytes, index / 8).map(|block: &[u8; 176]| q5k(block, index % 8)),
            Self::Q6K => block(bytes, index / 8).map(|block: &[u8; 210]| q6k(block, index % 8)),
            Self::F32 | Self::F16 | Self::BF16 | Self::Q2K | Self::Q3K => {
                Some(eight_bit(&self.numbers(bytes, index)))
            }
        }
        .unwrap_or_default()
    }

    /// The numbers themselves, for formats whose codes are not kept.
    fn numbers(self, bytes: &[u8], index: usize) -> [f32; BLOCK] {
        match self {
            Self::Q2K => block(bytes, index / 8).map(|block| q2k(block, index % 8)),
            Self::Q3K => block(bytes, index / 8).map(|block| q3k(block, index % 8)),
            _ => Some(self.floats(bytes, index)),
        }
        .unwrap_or_default()
    }

    /// Floats from `32 index` on.
    fn floats(self, bytes: &[u8], index: usize) -> [f32; BLOCK] {
        let mut numbers = [0.0; BLOCK];
        let size = self.block_bytes();
        let rest = bytes.get(index * BLOCK * size..).unwrap_or_default();
        for (number, bytes) in numbers.iter_mut().zip(rest.chunks_exact(size)) {
            *number = match *bytes {
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                [a, b] if self == Self::F16 => half::to_f32(u16::from_le_bytes([a, b])),
                [a, b] => f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16),
                _ => 0.0,
            };
        }
        numbers
    }

    /// All numbers of a vector in a float format; `None` in another.
    pub(crate) fn vector(self, bytes: &[u8], length: usize) -> Option<Vec<f32>> {
        if self.block_len() != 1 {
            return None;
        }
        let blocks = (0..length.div_ceil(BLOCK)).flat_map(|index| self.floats(bytes, index));
        Some(blocks.take(length).collect())
    }
}

fn block<const N: usize>(bytes: &[u8], index: usize) -> Option<&[u8; N]> {
    bytes.as_chunks().0.get(index)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn half_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// The code's excess as an offset, or the block's own.
fn offset(block: &[u8], excess: Option<f32>) -> u16 {
    match excess {
        Some(excess) => half::from_f32(-excess * half::to_f32(half_at(block, 0))),
        None => half_at(block, 2),
    }
}

/// Bytes whose lower halves are the first 16 codes and whose upper halves the last.
fn split_nibbles(block: &[u8], at: usize) -> [u32; STEPS] {
    std::array::from_fn(|step| word(block, at + 4 * (step % 4)) >> (step / 4 * 4) & 0x0f0f_0f0f)
}

fn nibbles4(block: &[u8], codes: usize, centred: bool) -> Codes {
    Codes {
        words: split_nibbles(block, codes),
        factors: [half_at(block, 0); 2],
        offset: offset(block, centred.then_some(8.0)),
    }
}

/// Four bits as above, and a word of fifth bits before them.
fn nibbles5(block: &[u8], bits: usize, centred: bool) -> Codes {
    let (fifth, mut words) = (word(block, bits), split_nibbles(block, bits + 4));
    for (step, word) in words.iter_mut().enumerate() {
        let four = fifth >> (4 * step);
        // One bit to each byte.
        *word |= (four & 1 | (four & 2) << 7 | (four & 4) << 14 | (four & 8) << 21) << 4;
    }
    Codes { words, factors: [half_at(block, 0); 2], offset: offset(block, centred.then_some(16.0)) }
}

/// Scale and minimum (six bits each) of a sub-block of Q4_K and Q5_K.
fn k_scales(scales: &[u8], index: usize) -> (u8, u8) {
    let at = |index: usize| scales.get(index).copied().unwrap_or(0);
    if index < 4 {
        (at(index) & 63, at(index + 4) & 63)
    } else {
        (at(index + 4) & 15 | at(index - 4) >> 6 << 4, at(index + 4) >> 4 | at(index) >> 6 << 4)
    }
}

/// Two half-precision numbers, 12 bytes of scales, then two sub-blocks to each 32 bytes of codes.
fn k_codes(block: &[u8], codes: usize, index: usize) -> Codes {
    let (scale, minimum) = k_scales(&block[4..16], index);
    let shift = index % 2 * 4;
    let factor = half::to_f32(half_at(block, 0)) * f32::from(scale);
    let offset = -half::to_f32(half_at(block, 2)) * f32::from(minimum);
    Codes {
        words: std::array::from_fn(|step| {
            word(block, codes + index / 2 * 32 + 4 * step) >> shift & 0x0f0f_0f0f
        }),
        factors: [half::from_f32(factor); 2],
        offset: half::from_f32(offset),
    }
}

fn q4k(block: &[u8; 144], index: usize) -> Codes {
    k_codes(block, 16, index)
}

fn q5k(block: &[u8; 176], index: usize) -> Codes {
    let mut codes = k_codes(block, 48, index);
    for (step, code) in codes.words.iter_mut().enumerate() {
        *code |= (word(block, 16 + 4 * step) >> index & 0x0101_0101) << 4;
    }
    codes
}

/// 128 bytes of lower halves, 64 of upper pairs, 16 scales, a factor; two groups of 128 weights.
fn q6k(block: &[u8; 210], index: usize) -> Codes {
    let (group, part) = (index / 4, index % 4);
    let low = group * 64 + part % 2 * 32;
    let (shift, pair) = (part / 2 * 4, 2 * part);
    let factor = half::to_f32(half_at(block, 208));
    let scale = |half: usize| {
        half::from_f32(factor * f32::from(block[192 + group * 8 + part * 2 + half] as i8))
    };
    Codes {
        words: std::array::from_fn(|step| {
            let high = word(block, 128 + group * 32 + 4 * step) >> pair & 0x0303_0303;
            word(block, low + 4 * step) >> shift & 0x0f0f_0f0f | high << 4
        }),
        factors: [scale(0), scale(1)],
        offset: 0,
    }
}

/// 16 bytes of scale and minimum, 64 of pairs, two half-precision numbers; groups of 128 weights.
fn q2k(block: &[u8; 84], index: usize) -> [f32; BLOCK] {
    let (group, part) = (index / 4, index % 4);
    let (d, least) = (half::to_f32(half_at(block, 80)), half::to_f32(half_at(block, 82)));
    std::array::from_fn(|at| {
        let scales = block[group * 8 + part * 2 + at / 16];
        let code = block[16 + group * 32 + at] >> (2 * part) & 3;
        d * f32::from(scales & 15) * f32::from(code) - least * f32::from(scales >> 4)
    })
}

/// 32 bytes of third bits, 64 of pairs, 12 of scales (six bits, less 32), a factor.
fn q3k(block: &[u8; 110], index: usize) -> [f32; BLOCK] {
    let (group, part) = (index / 4, index % 4);
    let d = half::to_f32(half_at(block, 108));
    let scale = |at: usize| {
        let low = block[96 + at % 8] >> (at / 8 * 4) & 15;
        let high = block[104 + at % 4] >> (at / 4 * 2) & 3;
        f32::from((low | high << 4) as i8 - 32)
    };
    std::array::from_fn(|at| {
        let pair = block[32 + group * 32 + at] >> (2 * part) & 3;
        let third = block[at] >> index & 1;
        let code = pair as i8 - if third == 1 { 0 } else { 4 };
        d * scale(group * 8 + part * 2 + at / 16) * f32::from(code)
    })
}

/// Rounds numbers to eight bits with a scale.
fn eight_bit(numbers: &[f32; BLOCK]) -> Codes {
    // What is no number is above all others here, and makes the whole block none.
    let magnitude = numbers.iter().map(|number| number.abs()).max_by(f32::total_cmp).unwrap_or(0.0);
    let factor = half::from_f32(magnitude / 127.0);
    let scale = half::to_f32(factor);
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let code = |number: f32| ((number * inverse).round().clamp(-127.0, 127.0) as i32 + 128) as u8;
    let words = std::array::from_fn(|step| {
        u32::from_le_bytes(std::array::from_fn(|byte| code(numbers[4 * step + byte])))
    });
    Codes { words, factors: [factor; 2], offset: 0 }
}
