//! What a directory's `config.json` says, in the words of GGUF.
//!
//! Owns the families that are turned, the facts of their models and the names of their tensors. A
//! configuration that means arithmetic which this engine does not do, or that no key of GGUF can
//! say, is refused by name: a file of it would answer, and wrongly.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::entries::Entries;
use crate::error::EngineError;
use crate::family::Architecture;
use crate::tensors::divides;

/// What an error says that names the families.
const TURNED: &str = "Gemma3ForCausalLM, LlamaForCausalLM, MistralForCausalLM, Phi3ForCausalLM, \
                      Qwen2ForCausalLM and Qwen3ForCausalLM are turned into GGUF";
/// What Gemma 3's configurations leave out when it is so.
const GEMMA_HEAD_DIM: u32 = 256;
const GEMMA_BASE: f32 = 1_000_000.0;
const GEMMA_NEAR_BASE: f32 = 10_000.0;
const GEMMA_PERIOD: usize = 6;
const GEMMA_WINDOW: u32 = 4_096;
const GEMMA_QUERY_SCALAR: f32 = 256.0;
/// Layers of Gemma 3 27B, by which readers know that its queries are scaled in another way.
const GEMMA_27B_LAYERS: u32 = 62;

/// Layers of a model, as `card` bounds them.
const MAX_LAYERS: u32 = 1_024;

/// What is needed of `config.json`.
#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: u32,
    intermediate_size: u32,
    pub(super) num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    max_position_embeddings: u32,
    original_max_position_embeddings: Option<u32>,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    partial_rotary_factor: Option<f32>,
    query_pre_attn_scalar: Option<f32>,
    tie_word_embeddings: Option<bool>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<u32>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    use_bidirectional_attention: Option<bool>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    quantization_config: Option<Value>,
    pub(super) vocab_size: u32,
}

/// How positions are told, in the older words and the newer ones.
#[derive(Clone, Default, Deserialize)]
struct Rope {
    rope_type: Option<String>,
    /// The same, as older files say it; some say both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f32>,
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f32>,
    original_max_position_embeddings: Option<u32>,
    attention_factor: Option<f32>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
    short_mscale: Option<f32>,
    long_mscale: Option<f32>,
    /// The newer words for each kind of layers, where they are not said for all.
    full_attention: Option<Box<Rope>>,
    sliding_attention: Option<Box<Rope>>,
    /// What else there is: numbers of scalings that are refused by their type, or kinds of layers.
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// A vector that a configuration holds and a file has as a tensor.
pub(super) type Held = (&'static str, Vec<f32>);

impl Config {
    /// GGUF's name of the architecture.
    pub(super) fn family(&self) -> Result<Architecture, EngineError> {
        if self.quantization_config.is_some() {
            let what = "weights that are quantized already, in a form of their own";
            return Err(EngineError::unsupported(what));
        }
        let family = match self.architectures.first().map(String::as_str) {
            Some("Gemma3ForCausalLM") => Architecture::Gemma3,
            Some("LlamaForCausalLM" | "MistralForCausalLM") => Architecture::Llama,
            Some("Phi3ForCausalLM") => Architecture::Phi3,
            Some("Qwen2ForCausalLM") => Architecture::Qwen2,
            Some("Qwen3ForCausalLM") => Architecture::Qwen3,
            other => {
                return Err(EngineError::unsupported(format!(
                    "{} ({TURNED})",
                    other.unwrap_or("a model without an architecture").escape_debug()
                )));
            }
        };
        self.check(family)?;
        Ok(family)
    }

    fn check(&self, family: Architecture) -> Result<(), EngineError> {
        let refused = |what: String| Err(EngineError::unsupported(what));
        let window = self.sliding_window.filter(|window| *window < self.max_position_embeddings);
        let gguf_has_windows = matches!(family, Architecture::Gemma3 | Architecture::Phi3);
        // Mistral's files name a window and mean it; Qwen's say whether they do.
        let means = self.use_sliding_window.unwrap_or(window.is_some()) && window.is_some();
        if means && !gguf_has_windows {
            return refused("attention over a sliding window".to_owned());
        }
        let expected = if family == Architecture::Gemma3 { "gelu_pytorch_tanh" } else { "silu" };
        let act = self.hidden_activation.as_deref().or(self.hidden_act.as_deref());
        if act.is_some_and(|act| act != expected) {
            return refused(format!("the activation {act:?}"));
        }
        let caps = [self.attn_logit_softcapping, self.final_logit_softcapping];
        if caps.into_iter().flatten().any(|cap| cap != 0.0) {
            return refused("logits that are capped (softcapping)".to_owned());
        }
        if self.use_bidirectional_attention == Some(true) {
            return refused("attention both ways".to_owned());
        }
        let heads = self.num_attention_heads.max(1);
        let shared = match self.num_hidden_layers {
            GEMMA_27B_LAYERS => self.hidden_size / heads,
            _ => self.head_dim(family),
        };
        let scalar = self.query_pre_attn_scalar.unwrap_or(GEMMA_QUERY_SCALAR);
        if family == Architecture::Gemma3 && scalar != shared as f32 {
            return refused(format!("queries scaled by {scalar}, which GGUF has no word for"));
        }
        if self.num_hidden_layers > MAX_LAYERS {
            let layers = self.num_hidden_layers;
            return refused(format!("{layers} layers (at most {MAX_LAYERS})"));
        }
        [&self.rope_parameters, &self.rope_scaling].into_iter().flatten().try_for_each(Rope::check)
    }

    /// Heads of queries and of keys, where their rows change places.
    pub(super) fn paired(&self, family: Architecture) -> Option<[usize; 2]> {
        (family == Architecture::Llama).then_some([
            self.num_attention_heads as usize,
            self.num_key_value_heads.unwrap_or(self.num_attention_heads) as usize,
        ])
    }

    /// Whether the embedding serves as the last matrix, too.
    pub(super) fn ties(&self, family: Architecture) -> bool {
        self.tie_word_embeddings.unwrap_or(family == Architecture::Gemma3)
    }

    fn head_dim(&self, family: Architecture) -> u32 {
        let share = self.hidden_size / self.num_attention_heads.max(1);
        let usual = if family == Architecture::Gemma3 { GEMMA_HEAD_DIM } else { share };
        self.head_dim.unwrap_or(usual)
    }

    /// What the model is, under the keys of gguf.md.
    pub(super) fn tell(
        &self,
        family: Architecture,
        name: &str,
        entries: &mut Entries,
    ) -> Result<Vec<Held>, EngineError> {
        let architecture = family.name();
        entries.text("general.architecture", architecture);
        entries.text("general.name", name);
        let key = |key: &str| format!("{architecture}.{key}");
        let (heads, head_dim) = (self.num_attention_heads, self.head_dim(family));
        let (far, _) = self.ropes();
        let part = self.partial_rotary_factor.or(far.partial_rotary_factor);
        let part = part.filter(|_| family == Architecture::Phi3).unwrap_or(1.0);
        let rotated = (head_dim as f32 * part) as u32;
        for (name, number) in [
            ("block_count", self.num_hidden_layers),
            ("context_length", self.max_position_embeddings),
            ("embedding_length", self.hidden_size),
            ("feed_forward_length", self.intermediate_size),
            ("attention.head_count", heads),
            ("attention.head_count_kv", self.num_key_value_heads.unwrap_or(heads.max(1))),
            ("attention.key_length", head_dim),
            ("attention.value_length", head_dim),
            ("rope.dimension_count", rotated),
            ("vocab_size", self.vocab_size),
        ] {
            entries.number(&key(name), number);
        }
        entries.real(&key("attention.layer_norm_rms_epsilon"), self.rms_norm_eps);
        let usual = if family == Architecture::Gemma3 { GEMMA_BASE } else { 10_000.0 };
        let base = self.rope_theta.or(far.rope_theta).unwrap_or(usual);
        entries.real(&key("rope.freq_base"), base);
        match family {
            Architecture::Gemma3 => self.tell_gemma(&key, entries)?,
            Architecture::Phi3 => self.tell_phi(&key, entries)?,
            Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => {}
        }
        match far.rope_type.as_deref().or(far.older_type.as_deref()) {
            None | Some("default") => Ok(Vec::new()),
            Some("linear") => {
                entries.text(&key("rope.scaling.type"), "linear");
                entries.real(&key("rope.scaling.factor"), far.factor.unwrap_or(1.0));
                Ok(Vec::new())
            }
            Some("longrope" | "su") if family == Architecture::Phi3 => {
                self.long_rope(&far, rotated, &key, entries)
            }
            Some(other) => {
                Err(EngineError::unsupported(format!("rope scaling '{}'", other.escape_debug())))
            }
        }
    }

    /// How positions are told in layers that see everything, and in those of the window.
    fn ropes(&self) -> (Rope, Rope) {
        let (far, near) = match &self.rope_parameters {
            Some(all) if all.has_kinds() => {
                let of = |kind: &Option<Box<Rope>>| kind.as_deref().cloned().unwrap_or_default();
                (of(&all.full_attention), of(&all.sliding_attention))
            }
            Some(all) => (all.clone(), Rope::default()),
            None => (Rope::default(), Rope::default()),
        };
        (self.rope_scaling.clone().unwrap_or(far), near)
    }

    fn tell_gemma(
        &self,
        key: &dyn Fn(&str) -> String,
        entries: &mut Entries,
    ) -> Result<(), EngineError> {
        let (_, near) = self.ropes();
        if near.rope_type.as_deref().is_some_and(|kind| kind != "default") {
            return Err(EngineError::unsupported("rope scaling in layers of a window"));
        }
        let base = self.rope_local_base_freq.or(near.rope_theta).unwrap_or(GEMMA_NEAR_BASE);
        entries.real(&key("rope.freq_base_swa"), base);
        let window = self.sliding_window.unwrap_or(GEMMA_WINDOW);
        entries.number(&key("attention.sliding_window"), window);
        let period = self.sliding_window_pattern.unwrap_or(GEMMA_PERIOD);
        let sees_all = |layer: usize, period: usize| layer % period.max(1) + 1 == period.max(1);
        let known = ["full_attention", "sliding_attention"];
        let kinds = self.layer_types.iter().flatten();
        if let Some(other) = kinds.clone().find(|kind| !known.contains(&kind.as_str())) {
            let other = other.escape_debug();
            return Err(EngineError::unsupported(format!("layers of the kind '{other}'")));
        }
        let no_layer_sees_all = kinds.clone().count() == self.num_hidden_layers as usize
            && kinds.clone().all(|kind| kind == "sliding_attention");
        let period = match &self.layer_types {
            None => Some(period),
            // Told by a period of none, as llama.cpp reads it.
            Some(_) if no_layer_sees_all => Some(0),
            // The period that says the same, if one does.
            Some(kinds) => (1..=kinds.len().max(GEMMA_PERIOD)).rev().find(|period| {
                let told = |(layer, kind): (usize, &String)| {
                    (kind == "full_attention") == sees_all(layer, *period)
                };
                kinds.len() == self.num_hidden_layers as usize && kinds.iter().enumerate().all(told)
            }),
        };
        match period {
            Some(GEMMA_PERIOD) => Ok(()),
            Some(period) => {
                let period = u32::try_from(period).unwrap_or(u32::MAX);
                entries.number(&key("attention.sliding_window_pattern"), period);
                Ok(())
            }
            None => Err(EngineError::unsupported("layers with and without a window in no period")),
        }
    }

    fn tell_phi(
        &self,
        key: &dyn Fn(&str) -> String,
        entries: &mut Entries,
    ) -> Result<(), EngineError> {
        let (first, far) = (self.first_context(), self.ropes().0);
        let kind = far.rope_type.as_deref().or(far.older_type.as_deref());
        let plain = matches!(kind, None | Some("default" | "linear"));
        if plain && first < self.max_position_embeddings {
            return Err(EngineError::unsupported(format!(
                "a context of {} tokens beyond the first {first} without its factors of rotation \
                 (rope_scaling)",
                self.max_position_embeddings
            )));
        }
        entries.number(&key("rope.scaling.original_context_length"), first);
        entries.number(&key("attention.sliding_window"), self.sliding_window.unwrap_or(0));
        Ok(())
    }

    /// The length of texts that a model was first trained for.
    fn first_context(&self) -> u32 {
        let (far, _) = self.ropes();
        let said = self.original_max_position_embeddings.or(far.original_max_position_embeddings);
        said.unwrap_or(self.max_position_embeddings)
    }

    /// The factors of LongRoPE (Ding et al., 2024), and what is multiplied with what has rotated.
    fn long_rope(
        &self,
        rope: &Rope,
        rotated: u32,
        key: &dyn Fn(&str) -> String,
        entries: &mut Entries,
    ) -> Result<Vec<Held>, EngineError> {
        if rope.short_mscale.is_some() || rope.long_mscale.is_some() {
            return Err(EngineError::unsupported("rope scaling 'longrope' with mscales"));
        }
        let (Some(short), Some(long)) = (&rope.short_factor, &rope.long_factor) else {
            return Err(EngineError::corrupt("rope scaling 'longrope' without its factors"));
        };
        if [short, long].iter().any(|factors| factors.len() as u64 * 2 != u64::from(rotated)) {
            return Err(EngineError::corrupt(format!(
                "{} and {} factors of rotation for {rotated} dimensions",
                short.len(),
                long.len()
            )));
        }
        if let Some(factor) = short.iter().chain(long).find(|factor| !divides(**factor)) {
            return Err(EngineError::corrupt(format!("a factor of rotation of {factor}")));
        }
        let first = f64::from(self.first_context());
        let longer = f64::from(self.max_position_embeddings) / first;
        let usual = if longer > 1.0 { (1.0 + longer.ln() / first.ln()).sqrt() } else { 1.0 };
        let scale = rope.attention_factor.unwrap_or(usual as f32);
        entries.real(&key("rope.scaling.attn_factor"), scale);
        let long = ("rope_factors_long.weight", long.clone());
        Ok(vec![long, ("rope_factors_short.weight", short.clone())])
    }
}

impl Rope {
    fn has_kinds(&self) -> bool {
        self.full_attention.is_some() || self.sliding_attention.is_some()
    }

    /// Refuses what would be passed over: other kinds of layers, and words for all beside those
    /// for kinds.
    fn check(&self) -> Result<(), EngineError> {
        let other = self.others.iter().find(|(_, value)| value.is_object());
        if let Some((kind, _)) = other {
            let kind = kind.escape_debug();
            return Err(EngineError::unsupported(format!("rotation in layers of kind '{kind}'")));
        }
        let own =
            self.rope_type.is_some() || self.older_type.is_some() || self.rope_theta.is_some();
        if self.has_kinds() && own {
            let what = "rotation that is told for all layers and for kinds of them";
            return Err(EngineError::unsupported(what));
        }
        Ok(())
    }
}

/// GGUF's name of a tensor; none for what is computed anew by everybody.
pub(super) fn renamed(family: Architecture, name: &str) -> Result<Option<String>, EngineError> {
    let whole = match name {
        "model.embed_tokens.weight" => "token_embd.weight",
        "model.norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Ok(Some(whole.to_owned()));
    }
    let unknown = || EngineError::unsupported(format!("a tensor '{}'", name.escape_debug()));
    if name.ends_with("rotary_emb.inv_freq") {
        return Ok(None);
    }
    let (layer, part) = name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(unknown)?;
    let layer: u32 = layer.parse().map_err(|_| unknown())?;
    let (part, end) = part.rsplit_once('.').ok_or_else(unknown)?;
    let behind = family.norms_behind();
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "self_attn.qkv_proj" if family.fused() => "attn_qkv",
        "post_attention_layernorm" if behind => "post_attention_norm",
        "post_attention_layernorm" => "ffn_norm",
        "pre_feedforward_layernorm" if behind => "ffn_norm",
        "post_feedforward_layernorm" if behind => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.gate_up_proj" if family.fused() => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return Err(unknown()),
    };
    // The others would be written and never read.
    let biased = !family.fused() && matches!(part, "attn_q" | "attn_k" | "attn_v");
    match end {
        "weight" => Ok(Some(format!("blk.{layer}.{part}.{end}"))),
        "bias" if biased => Ok(Some(format!("blk.{layer}.{part}.{end}"))),
        _ => Err(unknown()),
    }
}
