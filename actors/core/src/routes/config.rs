//! Routes as an operator writes them. Nothing here is checked yet: see [`super::check`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Capability, Modality};

/// A name that clients ask for, and what answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The name: exact, or the beginning of names with `*` at its end.
    pub name: String,
    /// In which order targets are tried.
    pub policy: PolicyConfig,
    /// What every target must be able to do, whether a request asks for it or not.
    #[serde(default)]
    pub needs: BTreeSet<Capability>,
    /// The least context in tokens that a target must have.
    #[serde(default)]
    pub min_context: Option<u32>,
    /// Providers that bill are skipped once less than this part of the budget of money is left.
    #[serde(default)]
    pub keep_budget_percent: Option<u8>,
    /// What may answer.
    #[serde(rename = "target", default)]
    pub targets: Vec<TargetConfig>,
}

/// In which order targets are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyConfig {
    /// The first usable target in the order written, and no other.
    Fixed,
    /// All usable targets in the order written.
    Fallback,
    /// By shares, the same caller always by the same.
    Weighted {
        /// What makes a caller the same.
        by: StickyBy,
    },
    /// By the price of the request.
    Cheapest,
    /// By the measured time to the whole answer.
    Fastest,
    /// By requests in progress, in proportion to weights.
    LeastLoaded,
    /// Small models for simple requests: targets are written from small to large.
    SmallFirst {
        /// An answer whose tokens had a lower mean log-probability, in thousandths of a natural
        /// logarithm (so negative), is asked for again of a larger model.
        #[serde(default)]
        min_confidence: Option<i32>,
    },
}

/// What makes two requests fall to the same share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StickyBy {
    /// The tenant.
    Tenant,
    /// The user the caller names, within the tenant.
    User,
    /// The conversation, within the tenant.
    Conversation,
    /// Nothing: each request is drawn anew.
    Request,
}

/// Something that may answer: either `mesh`, or `provider` and `model`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// A model of this mesh; `*` is what a route with a `*` was asked for.
    #[serde(default)]
    pub mesh: Option<String>,
    /// A configured provider.
    #[serde(default)]
    pub provider: Option<String>,
    /// Its model (for Azure: the deployment); `*` as above.
    #[serde(default)]
    pub model: Option<String>,
    /// The id in the catalogue, where the provider's own name says nothing, as with deployments.
    #[serde(default)]
    pub known_as: Option<String>,
    /// Its share (`weighted`) or size (`least-loaded`); 1 when absent.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Where it computes; the provider's own region when absent.
    #[serde(default)]
    pub region: Option<String>,
    /// Only requests that need one of these capabilities come here.
    #[serde(default)]
    pub only_for: BTreeSet<Capability>,
    /// Only requests with one of these as input come here.
    #[serde(default)]
    pub only_input: BTreeSet<Modality>,
    /// The highest complexity it is good for (`small-first`); the last target has none.
    #[serde(default)]
    pub up_to: Option<u32>,
}
