//! One step of a model: the rows of several sequences, each at its own position, from tokens to
//! logits.
//!
//! Owns the order of the phases and their division among the threads of a crew. The memory between
//! phases belongs to the crew and is reused: a step of the same size allocates only its logits and
//! the list of its pages.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::act::{Act, BLOCK};
use crate::added::{Additions, Low, LowRank, Lower, Part, Raise};
use crate::attend::{Attend, Numbers};
use crate::error::KernelError;
use crate::kv::{Cache, PAGE, Page, SharedPage};
use crate::matrix::{Matrix, View};
use crate::model::{Activation, Block, Config, Model};
use crate::product::Acts;
use crate::rows::{
    AddNormed, Gated, Keep, Norm, RoundNormed, RoundPlain, gather, norm_head, rotate, scatter,
};
use crate::simd::{Floats, Isa, LANES};
use crate::team::Team;

/// Pieces per thread into which a phase is divided: small enough that threads end together, large
/// enough that taking a piece costs nothing against computing it.
const PIECES: usize = 8;
/// Rows up to which the leader does alone what is linear in rows: telling others takes longer.
const FEW_ROWS: usize = 4;

/// The tokens of one sequence in a step.
pub struct Segment<'a> {
    /// What the sequence has computed before; the tokens' own keys and values are added.
    pub cache: &'a mut Cache,
    /// The next tokens.
    pub tokens: &'a [u32],
    /// Which of them need logits.
    pub logits: Logits,
    /// What is added to the model's matrices for this sequence. What was computed before had it
    /// too.
    pub added: Option<&'a Additions>,
}

/// Which tokens of a segment need logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: more of the prompt follows.
    None,
    /// The last: an answer continues.
    Last,
    /// All, to measure the model.
    All,
}

/// The threads that compute, with the memory that they work on.
pub struct Crew {
    isa: Isa,
    team: Team,
    buffers: Buffers,
    scratches: Vec<Scratch>,
    /// Rows of logits that nobody reads any more: no more than the last step had.
    spare: Vec<Vec<f32>>,
}

/// What lies between phases.
#[derive(Default)]
struct Buffers {
    /// The rows, from block to block.
    x: Vec<Floats>,
    /// Their norms' factors.
    factors: Vec<f32>,
    /// What is multiplied.
    acts: Vec<Act>,
    /// Queries, keys and values.
    qkv: Vec<Floats>,
    /// What the heads saw: key head by key head, row by row, query head by query head.
    seen: Vec<f32>,
    /// What is multiplied on the way down.
    gated: Vec<Act>,
    /// A product that is normed before it is added.
    apart: Vec<Floats>,
    /// What the A of each part made of each row.
    low: Vec<Floats>,
    logits: Vec<Floats>,
}

/// What one thread needs for itself.
#[derive(Default)]
struct Scratch {
    head: Vec<f32>,
    value: Vec<f32>,
    scores: Vec<Floats>,
    gate: Vec<Floats>,
    up: Vec<Floats>,
    blocks: Vec<[Floats; 2]>,
}

/// A page of a sequence in this step.
enum PageRef<'a> {
    /// Whole before the step, maybe of several sequences.
    Shared(&'a SharedPage),
    Own(OwnPage<'a>),
}

/// A page that one sequence alone has, and the rows that belong to it.
struct OwnPage<'a> {
    page: &'a mut Page,
    rows: Range<usize>,
    /// The first row's place.
    slot: usize,
}

impl Numbers for PageRef<'_> {
    #[inline(always)]
    fn numbers(&self) -> &[u16] {
        match self {
            Self::Shared(page) => page.numbers(),
            Self::Own(own) => own.page,
        }
    }
}

impl<'a> PageRef<'a> {
    /// The page, when rows are to be written to it.
    fn written(&mut self) -> Option<&mut OwnPage<'a>> {
        match self {
            Self::Own(own) if !own.rows.is_empty() => Some(own),
            Self::Own(_) | Self::Shared(_) => None,
        }
    }
}

/// One token in a step.
struct Place {
    /// The sequence's pages in the step's list.
    pages: Range<usize>,
    position: usize,
}

/// What all layers of a step share.
struct Plan<'a> {
    places: Vec<Place>,
    pages: Vec<PageRef<'a>>,
    /// Cosine and sine of each row's angles.
    angles: Vec<[f32; 2]>,
    /// The same in the layers of the window; empty where they are no others.
    near_angles: Vec<[f32; 2]>,
    /// What each row adds; empty where none adds anything.
    added: Vec<Option<&'a Additions>>,
}

/// What the rows of a step add at one layer.
#[derive(Clone, Copy)]
struct Beside<'a> {
    rows: &'a [Option<&'a Additions>],
    layer: usize,
}

impl<'a> Beside<'a> {
    fn of(self, row: usize, part: Part) -> Option<&'a LowRank> {
        self.rows.get(row).copied().flatten()?.of(self.layer, part)
    }

    /// Adds to sixteen outputs of a part, for the rows that have something to add. `low` is what
    /// the part's A made of them.
    fn raise(self, isa: Isa, part: Part, low: &[Floats], height: usize, out: &mut [Floats]) {
        for (row, (low, out)) in low.iter().zip(out).enumerate() {
            if let Some(low_rank) = self.of(row, part) {
                isa.run(Raise { low: Low { low_rank, low }, height, out });
            }
        }
    }
}

impl Crew {
    /// Starts so many threads, the caller's counted, on the processor's fastest instructions.
    ///
    /// # Errors
    /// What the system says when it has no thread to give.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_isa(threads, Isa::detect())
    }

    /// The same on given instructions.
    ///
    /// # Errors
    /// What the system says when it has no thread to give.
    pub fn with_isa(threads: usize, isa: Isa) -> std::io::Result<Self> {
        let team = Team::new(threads)?;
        let scratches = (0..team.size()).map(|_| Scratch::default()).collect();
        Ok(Self { isa, team, buffers: Buffers::default(), scratches, spare: Vec::new() })
    }

    /// Takes back the logits of a step: the next one writes its own there, instead of asking for
    /// memory of a vocabulary's size for each row.
    pub fn take_back(&mut self, logits: Vec<Vec<Vec<f32>>>) {
        self.spare = logits.into_iter().flatten().collect();
    }

    /// Items per piece when `items` of them are divided; the leader keeps small work to itself.
    const fn piece(&self, items: usize, alone: bool) -> usize {
        if alone { items } else { items.div_ceil(self.team.size() * PIECES) }
    }
}

impl Model {
    /// Computes one step. Returns, per segment, the logits of the tokens that need them.
    /// `progress` advances with every layer.
    ///
    /// # Errors
    /// [`KernelError::Token`] when a token is none of the model's, and what the source says when
    /// its rows cannot be read; nothing is computed then.
    pub fn step(
        &self,
        crew: &mut Crew,
        segments: &mut [Segment<'_>],
        progress: &AtomicU64,
    ) -> Result<Vec<Vec<Vec<f32>>>, KernelError> {
        let vocabulary = self.config.vocabulary;
        let tokens: Vec<u32> = segments.iter().flat_map(|s| s.tokens.iter().copied()).collect();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(KernelError::Token { token, vocabulary });
        }
        if segments.iter().any(|s| s.cache.geometry != self.config.geometry()) {
            return Err(KernelError::Shape("a cache of another model".to_owned()));
        }
        if segments.iter().any(|s| s.added.is_some_and(|added| !added.fits(self))) {
            return Err(KernelError::Shape("additions to another model".to_owned()));
        }
        let rows = tokens.len();
        self.begin(crew, &tokens)?;
        {
            let mut plan = self.plan(segments);
            for (layer, block) in self.blocks.iter().enumerate() {
                self.layer(crew, block, layer, &mut plan);
                progress.fetch_add(1, Ordering::Relaxed);
            }
        }
        for segment in segments.iter_mut() {
            segment.cache.length += segment.tokens.len();
        }
        Ok(self.logits(crew, segments, rows))
    }

    /// The rows' embeddings.
    fn begin(&self, crew: &mut Crew, tokens: &[u32]) -> Result<(), KernelError> {
        let (rows, width) = (tokens.len(), self.config.width);
        let Buffers { x, .. } = &mut crew.buffers;
        x.clear();
        x.resize(2 * width.div_ceil(BLOCK) * rows, [0.0; LANES]);
        let mut numbers = vec![0.0; width];
        for (row, &token) in tokens.iter().enumerate() {
            self.words.row(self.kept(), token as usize, &mut numbers)?;
            if self.config.embedding_scale != 1.0 {
                numbers.iter_mut().for_each(|number| *number *= self.config.embedding_scale);
            }
            scatter(&numbers, rows, row, x);
        }
        Ok(())
    }

    fn plan<'a>(&self, segments: &'a mut [Segment<'_>]) -> Plan<'a> {
        let mut plan = Plan {
            places: Vec::new(),
            pages: Vec::new(),
            angles: Vec::new(),
            near_angles: Vec::new(),
            added: Vec::new(),
        };
        let scale = self.config.rope_scale;
        let adds = segments.iter().any(|segment| segment.added.is_some());
        for segment in segments.iter_mut() {
            let (start, count) = (segment.cache.length, segment.tokens.len());
            plan.added.extend(std::iter::repeat_n(segment.added, if adds { count } else { 0 }));
            segment.cache.reserve(count);
            let (row, page) = (plan.places.len(), plan.pages.len());
            plan.pages.extend(segment.cache.shared.iter().map(PageRef::Shared));
            let first = segment.cache.shared.len();
            for (index, numbers) in segment.cache.pages.iter_mut().enumerate() {
                let from = ((first + index) * PAGE).clamp(start, start + count);
                let to = ((first + index + 1) * PAGE).clamp(start, start + count);
                let rows = row + from - start..row + to - start;
                let own = OwnPage { page: numbers, rows, slot: from % PAGE };
                plan.pages.push(PageRef::Own(own));
            }
            for position in start..start + count {
                plan.places.push(Place { pages: page..plan.pages.len(), position });
                plan.angles.extend(self.frequencies.iter().map(|frequency| {
                    let [cos, sin] = angle(position, *frequency);
                    [cos * scale, sin * scale]
                }));
                let near = self.near_frequencies.iter().flatten();
                plan.near_angles.extend(near.map(|frequency| angle(position, *frequency)));
            }
        }
        plan
    }

    fn layer(&self, crew: &mut Crew, block: &Block, layer: usize, plan: &mut Plan<'_>) {
        let (rows, kept) = (plan.places.len(), self.kept());
        crew.normed(rows, &self.config, &block.attention_norm);
        crew.project(rows, block, kept, Beside { rows: &plan.added, layer });
        self.keep(crew, block, layer, plan);
        self.attend(crew, block, layer, plan);
        let beside = Beside { rows: &plan.added, layer };
        crew.round_seen(rows, &self.config);
        let [attended, fed] = match &block.post_norms {
            None => [None, None],
            Some([attended, fed]) => [Some(&**attended), Some(&**fed)],
        };
        self.add(crew, rows, block.output.open(kept), (Part::Output, beside), attended);
        crew.normed(rows, &self.config, &block.feed_forward_norm);
        crew.gate(rows, block, kept, (self.config.activation, beside));
        self.add(crew, rows, block.down.open(kept), (Part::Down, beside), fed);
    }

    /// Adds a product to the rows, normed first if there are weights of a norm.
    fn add(
        &self,
        crew: &mut Crew,
        rows: usize,
        matrix: View<'_>,
        beside: (Part, Beside<'_>),
        norm: Option<&[Floats]>,
    ) {
        crew.product(rows, matrix, beside, norm.is_some());
        if let Some(weights) = norm {
            crew.add_normed(rows, &self.config, weights);
        }
    }

    /// Keeps the rows' keys and values.
    fn keep(&self, crew: &mut Crew, block: &Block, layer: usize, plan: &mut Plan<'_>) {
        let (config, geometry) = (&self.config, self.config.geometry());
        let (isa, qkv, rows) = (crew.isa, &crew.buffers.qkv, plan.places.len());
        let [from_keys, from_values] = block.places_of_keys_and_values();
        let (dim, rotated, half) = (config.head_dim, config.rotated, config.rotated / 2);
        let window = config.window_of(layer);
        let Plan { pages, angles, near_angles, .. } = plan;
        let near = window.is_some() && !near_angles.is_empty();
        let angles = if near { &*near_angles } else { &*angles };
        let piece = crew.piece(pages.len(), rows <= FEW_ROWS);
        crew.team.split(pages, piece, &mut crew.scratches, |_, pages, scratch| {
            let Scratch { head: key, value, .. } = scratch;
            for buffer in [&mut *key, &mut *value] {
                buffer.clear();
                buffer.resize(geometry.padded(), 0.0);
            }
            for page in pages.iter_mut().filter_map(PageRef::written) {
                for (index, row) in page.rows.clone().enumerate() {
                    for head in 0..config.kv_heads {
                        gather(qkv, rows, row, from_keys + head * dim, &mut key[..dim]);
                        gather(qkv, rows, row, from_values + head * dim, &mut value[..dim]);
                        if let Some([_, weights]) = &block.head_norms {
                            norm_head(&mut key[..dim], weights, config.epsilon);
                        }
                        let angles = &angles[row * half..][..half];
                        rotate(&mut key[..rotated], angles, config.rotation);
                        let numbers = &mut page.page[geometry.offset(layer, head)..];
                        let (keys, values) = numbers.split_at_mut(geometry.side());
                        let slot = page.slot + index;
                        isa.run(Keep { key, value, slot, keys, values });
                    }
                }
            }
        });
    }

    /// What each head of each row sees.
    fn attend(&self, crew: &mut Crew, block: &Block, layer: usize, plan: &Plan<'_>) {
        let (config, geometry) = (&self.config, self.config.geometry());
        let (rows, dim, half) = (plan.places.len(), config.head_dim, config.rotated / 2);
        let window = config.window_of(layer);
        let near = window.is_some() && !plan.near_angles.is_empty();
        let angles = if near { &plan.near_angles } else { &plan.angles };
        let sight = window.map_or(usize::MAX, |window| window.positions);
        let (group, padded) = (config.heads / config.kv_heads, geometry.padded());
        let Buffers { qkv, seen, .. } = &mut crew.buffers;
        seen.resize(config.heads * rows * dim, 0.0);
        // Heads that share keys stay together where there is enough else to divide.
        let shared = config.kv_heads * rows >= PIECES * crew.team.size();
        let together = if shared { group } else { 1 };
        let (isa, scale) = (crew.isa, config.query_scale);
        crew.team.split(seen, together * dim, &mut crew.scratches, |index, out, scratch| {
            let first = index * together;
            let (key_head, row) = (first / (rows * group), first / group % rows);
            let Scratch { head: queries, scores, .. } = scratch;
            queries.clear();
            queries.resize(together * padded, 0.0);
            for (offset, query) in queries.chunks_exact_mut(padded).enumerate() {
                let head = key_head * group + first % group + offset;
                let query = &mut query[..dim];
                gather(qkv, rows, row, head * dim, query);
                if let Some([weights, _]) = &block.head_norms {
                    norm_head(query, weights, config.epsilon);
                }
                let rotated = &mut query[..config.rotated];
                rotate(rotated, &angles[row * half..][..half], config.rotation);
                query.iter_mut().for_each(|number| *number *= scale);
            }
            let place = &plan.places[row];
            isa.run(Attend {
                pages: &plan.pages[place.pages.clone()],
                geometry,
                offset: geometry.offset(layer, key_head),
                start: (place.position + 1).saturating_sub(sight),
                length: place.position + 1,
                queries,
                scores,
                out,
            });
        });
    }

    fn logits(&self, crew: &mut Crew, segments: &[Segment<'_>], rows: usize) -> Vec<Vec<Vec<f32>>> {
        let (mut wanted, mut counts, mut row) = (Vec::new(), Vec::new(), 0);
        for segment in segments {
            let count = segment.tokens.len();
            let from = match segment.logits {
                Logits::None => count,
                Logits::Last => count.saturating_sub(1),
                Logits::All => 0,
            };
            wanted.extend(row + from..row + count);
            counts.push(count - from);
            row += count;
        }
        let picked = wanted.len();
        crew.pick(&wanted, rows);
        crew.normed(picked, &self.config, &self.norm);
        crew.head(picked, self.words.head().open(self.kept()));
        let mut spare = std::mem::take(&mut crew.spare).into_iter();
        let logits = &crew.buffers.logits;
        let mut picked_rows = 0..picked;
        let mut of = |row| {
            let mut numbers = spare.next().unwrap_or_default();
            numbers.resize(self.config.vocabulary, 0.0);
            gather(logits, picked, row, 0, &mut numbers);
            numbers
        };
        let segments = counts.into_iter();
        segments.map(|count| picked_rows.by_ref().take(count).map(&mut of).collect()).collect()
    }
}

impl Block {
    /// Where, in a row's numbers, keys and values begin: each matrix fills whole tiles.
    const fn places_of_keys_and_values(&self) -> [usize; 2] {
        let keys = self.qkv[0].height() * LANES;
        [keys, keys + self.qkv[1].height() * LANES]
    }
}

impl Crew {
    /// Norms and rounds the rows.
    fn normed(&mut self, rows: usize, config: &Config, weights: &[Floats]) {
        let (isa, depth, alone) = (self.isa, config.width.div_ceil(BLOCK), rows <= FEW_ROWS);
        let (rows_piece, blocks_piece) = (self.piece(rows, alone), self.piece(depth, alone));
        let Buffers { x, factors, acts, .. } = &mut self.buffers;
        let (x, width, epsilon) = (&*x, config.width, config.epsilon);
        factors.resize(rows, 0.0);
        self.team.split(factors, rows_piece, &mut self.scratches, |index, out, _| {
            isa.run(Norm { x, rows, width, epsilon, first: index * rows_piece, out });
        });
        acts.resize(depth * rows, Act::default());
        let factors = &*factors;
        self.team.split(acts, blocks_piece * rows, &mut self.scratches, |index, out, _| {
            isa.run(RoundNormed { x, rows, factors, weights, first: index * blocks_piece, out });
        });
    }

    /// What the A of some parts makes of the rows that have one, part after part.
    fn lower(&mut self, rows: usize, parts: &[Part], beside: Beside<'_>) {
        let Buffers { acts, gated, low, .. } = &mut self.buffers;
        low.clear();
        if beside.rows.is_empty() {
            return;
        }
        low.resize(parts.len() * rows, [0.0; LANES]);
        let acts = if parts == [Part::Down] { gated } else { acts };
        // One vector is computed in less time than it takes to tell others.
        let piece = if rows <= FEW_ROWS { low.len() } else { FEW_ROWS };
        let isa = self.isa;
        self.team.split(low, piece, &mut self.scratches, |index, out, _| {
            for (offset, out) in out.iter_mut().enumerate() {
                let at = index * piece + offset;
                let row = at % rows;
                if let Some(low_rank) = beside.of(row, parts[at / rows]) {
                    isa.run(Lower { low_rank, acts, rows, row, out });
                }
            }
        });
    }

    /// Queries, keys and values; `kept` is what matrices lie in.
    fn project(&mut self, rows: usize, block: &Block, kept: &[u8], beside: Beside<'_>) {
        const PARTS: [Part; 3] = [Part::Query, Part::Key, Part::Value];
        self.lower(rows, &PARTS, beside);
        let heights: usize = block.qkv.iter().map(Matrix::height).sum();
        let (isa, piece) = (self.isa, self.piece(heights, false));
        let matrices = block.qkv.each_ref().map(|matrix| matrix.open(kept));
        let Buffers { acts, qkv, low, .. } = &mut self.buffers;
        let (acts, low) = (Acts { acts, rows }, &*low);
        qkv.resize(heights * rows, [0.0; LANES]);
        self.team.split(qkv, piece * rows, &mut self.scratches, |index, out, _| {
            for (offset, out) in out.chunks_exact_mut(rows).enumerate() {
                let mut height = index * piece + offset;
                let bias = block.biases.get(height);
                for (matrix, (part, low)) in matrices.iter().zip(each(&PARTS, low, rows)) {
                    if height < matrix.height() {
                        matrix.multiply(isa, height, acts, out, false);
                        beside.raise(isa, part, low, height, out);
                        break;
                    }
                    height -= matrix.height();
                }
                if let Some(bias) = bias {
                    let numbers = out.iter_mut().flat_map(|row| row.iter_mut().zip(bias));
                    numbers.for_each(|(number, bias)| *number += bias);
                }
            }
        });
    }

    /// Rounds what the heads saw.
    fn round_seen(&mut self, rows: usize, config: &Config) {
        let width = config.heads * config.head_dim;
        let (isa, depth) = (self.isa, width.div_ceil(BLOCK));
        let piece = self.piece(depth, rows <= FEW_ROWS);
        let (dim, group) = (config.head_dim, config.heads / config.kv_heads);
        let Buffers { seen, acts, .. } = &mut self.buffers;
        acts.resize(depth * rows, Act::default());
        self.team.split(acts, piece * rows, &mut self.scratches, |index, out, scratch| {
            scratch.blocks.clear();
            for block in index * piece..(index * piece + out.len() / rows) {
                for row in 0..rows {
                    let mut numbers = [0.0; BLOCK];
                    let end = width.min((block + 1) * BLOCK);
                    let (mut at, mut rest) = (block * BLOCK, &mut numbers[..end - block * BLOCK]);
                    while !rest.is_empty() {
                        let (head, from) = (at / dim, at % dim);
                        let place = (head / group * rows + row) * group + head % group;
                        let part = &seen[place * dim + from..(place + 1) * dim];
                        let (now, later) = rest.split_at_mut(part.len().min(rest.len()));
                        now.copy_from_slice(&part[..now.len()]);
                        at += now.len();
                        rest = later;
                    }
                    let halves: &[Floats] = numbers.as_chunks().0;
                    scratch.blocks.push([halves[0], halves[1]]);
                }
            }
            isa.run(RoundPlain { values: &scratch.blocks, out });
        });
    }

    /// The gated half of the feed-forward part.
    fn gate(
        &mut self,
        rows: usize,
        block: &Block,
        kept: &[u8],
        (activation, beside): (Activation, Beside<'_>),
    ) {
        const PARTS: [Part; 2] = [Part::Gate, Part::Up];
        self.lower(rows, &PARTS, beside);
        let depth = block.down.depth;
        let (isa, piece) = (self.isa, self.piece(depth, false));
        let [gate, up] = [&block.gate, &block.up].map(|matrix| matrix.open(kept));
        let Buffers { acts, gated, low, .. } = &mut self.buffers;
        let (acts, low) = (Acts { acts, rows }, &*low);
        gated.resize(depth * rows, Act::default());
        self.team.split(gated, piece * rows, &mut self.scratches, |index, out, scratch| {
            for (offset, out) in out.chunks_exact_mut(rows).enumerate() {
                let both = [(gate, &mut scratch.gate), (up, &mut scratch.up)];
                for ((matrix, buffer), (part, low)) in both.into_iter().zip(each(&PARTS, low, rows))
                {
                    buffer.clear();
                    buffer.resize(2 * rows, [0.0; LANES]);
                    let first = 2 * (index * piece + offset);
                    for (tile, out) in buffer.chunks_exact_mut(rows).enumerate() {
                        if first + tile < matrix.height() {
                            matrix.multiply(isa, first + tile, acts, out, false);
                            beside.raise(isa, part, low, first + tile, out);
                        }
                    }
                }
                isa.run(Gated { activation, gate: &scratch.gate, up: &scratch.up, out });
            }
        });
    }

    /// Adds a product to the rows, or leaves it apart.
    fn product(
        &mut self,
        rows: usize,
        matrix: View<'_>,
        (part, beside): (Part, Beside<'_>),
        apart: bool,
    ) {
        self.lower(rows, &[part], beside);
        let (isa, piece) = (self.isa, self.piece(matrix.height(), false));
        let buffers = &mut self.buffers;
        let acts = if part == Part::Down { &buffers.gated } else { &buffers.acts };
        let (acts, low) = (Acts { acts, rows }, &buffers.low);
        buffers.apart.resize(if apart { matrix.height() * rows } else { 0 }, [0.0; LANES]);
        let out = if apart { &mut buffers.apart } else { &mut buffers.x };
        let out = &mut out[..matrix.height() * rows];
        self.team.split(out, piece * rows, &mut self.scratches, |index, out, _| {
            for (offset, out) in out.chunks_exact_mut(rows).enumerate() {
                matrix.multiply(isa, index * piece + offset, acts, out, !apart);
                beside.raise(isa, part, low, index * piece + offset, out);
            }
        });
    }

    /// Norms what was left apart and adds it to the rows.
    fn add_normed(&mut self, rows: usize, config: &Config, weights: &[Floats]) {
        let (isa, height, alone) = (self.isa, config.width.div_ceil(LANES), rows <= FEW_ROWS);
        let (rows_piece, piece) = (self.piece(rows, alone), self.piece(height, alone));
        let Buffers { x, apart, factors, .. } = &mut self.buffers;
        let (apart, width, epsilon) = (&**apart, config.width, config.epsilon);
        factors.resize(rows, 0.0);
        self.team.split(factors, rows_piece, &mut self.scratches, |index, out, _| {
            isa.run(Norm { x: apart, rows, width, epsilon, first: index * rows_piece, out });
        });
        let (factors, x) = (&**factors, &mut x[..height * rows]);
        self.team.split(x, piece * rows, &mut self.scratches, |index, out, _| {
            isa.run(AddNormed { apart, rows, factors, weights, first: index * piece, out });
        });
    }

    /// Leaves only some rows.
    fn pick(&mut self, wanted: &[usize], rows: usize) {
        let x = &mut self.buffers.x;
        let tiles = x.len().checked_div(rows).unwrap_or(0);
        let mut to = 0;
        for tile in 0..tiles {
            for row in wanted {
                // Never behind what is still to be read: rows only move forward.
                x[to] = x[tile * rows + row];
                to += 1;
            }
        }
        x.truncate(to);
    }

    /// The last product.
    fn head(&mut self, rows: usize, matrix: View<'_>) {
        let (isa, piece) = (self.isa, self.piece(matrix.height(), false));
        let Buffers { acts, logits, .. } = &mut self.buffers;
        let acts = Acts { acts, rows };
        logits.resize(matrix.height() * rows, [0.0; LANES]);
        self.team.split(logits, piece * rows, &mut self.scratches, |index, out, _| {
            for (offset, out) in out.chunks_exact_mut(rows).enumerate() {
                matrix.multiply(isa, index * piece + offset, acts, out, false);
            }
        });
    }
}

/// Cosine and sine of an angle.
fn angle(position: usize, frequency: f64) -> [f32; 2] {
    let angle = position as f64 * frequency;
    [libm::cos(angle) as f32, libm::sin(angle) as f32]
}

/// The parts of a product, each with what its A made of the rows; nothing where none has one.
fn each<'a>(
    parts: &'a [Part],
    low: &'a [Floats],
    rows: usize,
) -> impl Iterator<Item = (Part, &'a [Floats])> {
    let of = move |index: usize| low.get(index * rows..(index + 1) * rows).unwrap_or_default();
    parts.iter().enumerate().map(move |(index, part)| (*part, of(index)))
}

#[cfg(test)]
#[path = "step_tests.rs"]
pub(crate) mod tests;
