//! The registry of what must hold: one name, one family, one sentence each.
//!
//! Owns the names only. Who looks and when is [`crate::check`]'s business.

use serde::{Deserialize, Serialize};

macro_rules! registry {
    ($($(#[doc = $doc:literal])+ $name:ident, $id:literal, $sentence:literal;)+) => {
        /// Something that must hold, whatever happens. The first letter of the id is the family:
        /// F flow, Q quota, H hand-over, R routing, P providers, C cache, E engines' memory, M
        /// membership and state, S store, B bounds, V liveness.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum Invariant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Invariant {
            /// All of them, in the order of the registry.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Family letter and number.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)+
                }
            }

            /// What holds, as a sentence.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)+
                }
            }
        }
    };
}

registry! {
    /// One end per request.
    FlowOneTerminal, "F1", "an admitted request ends exactly once";
    /// Deadlines bind.
    FlowNothingLate, "F2", "nothing but the refusal follows a request's deadline";
    /// The order of stages.
    FlowStageOrder, "F3", "no engine works for a request that was not reserved for";
    /// A caller gets an end.
    FlowEnds, "F4", "every request ends soon after its deadline";
    /// Keys bind.
    FlowKeysBind, "F5", "no key opens that its node knows to be over or for other models";
    /// Spending stays under the durable mark.
    QuotaSpentWithinHw, "Q1", "no node spends beyond its durable high-water mark";
    /// Marks stay under the rights.
    QuotaHwWithinRights, "Q2", "no high-water mark passes what its holder was granted and given";
    /// The sum of marks stays under the limit.
    QuotaMarksWithinLimit, "Q3", "all high-water marks of a window together stay within its limit";
    /// The sum of spending stays under the limit.
    QuotaSpentWithinLimit, "Q4", "what is spent of a window stays within its limit";
    /// Rights are neither made nor lost.
    QuotaConserved, "Q5", "rights are conserved, those on their way counted";
    /// Reservations end.
    QuotaNothingReserved, "Q6", "after healing and quiet nothing is reserved";
    /// One settlement per reservation.
    QuotaSettledOnce, "Q7", "a reservation settles exactly once";
    /// What a caller gets is paid for.
    QuotaServedWithinReserved, "Q8", "nothing is served that no reservation covers";
    /// Honest rows pass for honest.
    QuotaHonestRowsTaken, "Q9", "rows of honest holders are taken";
    /// Charged is what was taken.
    QuotaChargedInFull, "Q11", "a settlement charges what was taken, overruns included";
    /// Rollbacks are noticed.
    QuotaOwnRowsNewest, "Q12", "after healing nobody holds a newer row of a node than its own disk";
    /// Permits bind.
    QuotaPermitsWithinLimit, "Q13", "what runs at once stays within its limit";
    /// Limiters bind.
    QuotaRateWithinLimit, "Q14", "what passes in a time stays within the rate";
    /// Whose word nobody waits for stops in time.
    QuotaNewcomersVouched, "Q15", "a newcomer uses permits and rates only while a holder vouches";
    /// After healing what was not spent can be.
    QuotaAvailable, "Q10", "after healing available = limit - settled - what crashes cost";
    /// A quorum does not forget.
    QuotaWitnessedKept, "Q16", "what a quorum has witnessed is never taken back";
    /// Tokens arrive in order, once.
    HandOverEveryTokenOnce, "H1", "no token is lost or doubled across a change of node";
    /// The answer is the one the model gives.
    HandOverSameAnswer, "H2", "a resumed answer is the one a single node would have given";
    /// Voices from the past are not heard.
    HandOverFenced, "H3", "a fenced peer writes nothing";
    /// No hops beyond one.
    RouteOneHop, "R1", "a request hops at most once";
    /// Labels bind.
    RouteLabelKept, "R2", "labelled data stays within its boundary";
    /// Those put out stay out.
    RouteNotToRevoked, "R3", "no request goes to a node this one knows to be revoked";
    /// Losers stop.
    RouteLosersCancelled, "R4", "an engine stops working for a request that moved on";
    /// What governs is signed and newest.
    RouteByGoverning, "R5", "a node routes by what was signed and by nothing that was replaced";
    /// The weak are spared.
    RouteStrainedSpared, "R6", "a node that runs low or hot is asked only if no other can answer";
    /// Bills are paid.
    PaidAsBilled, "P1", "what a provider bills and says is settled, whatever was reserved";
    /// Money is asked for first.
    PaidWithinBudget, "P2", "no provider is asked for what no budget holds or allows";
    /// One answer for one request.
    PaidOneVoice, "P3", "one answer reaches a caller, and no piece of it twice";
    /// Breakers hold.
    PaidLeftAlone, "P4", "a provider that keeps failing gets probes and nothing else";
    /// Retries do not storm.
    PaidTriesBounded, "P5", "attempts and retries stay within their bounds";
    /// Ended is settled.
    PaidSettled, "P6", "of a request that is over nothing is reserved";
    /// Answers are their asker's.
    CacheOwnOnly, "C1", "an answer that is kept is given to the account it was made for only";
    /// Equal means equal.
    CacheEqualOnly, "C2", "an answer that is kept is given to equal requests only";
    /// Old answers go.
    CacheInTime, "C3", "no answer is given again that is too old";
    /// Purges hold.
    CachePurgeHolds, "C4", "no answer is given again that was asked for before a purge of it";
    /// Only what is good is kept.
    CacheWholeOnly, "C5", "no answer is given again that broke off or another target gave";
    /// Given again is free.
    CacheCostsNothing, "C6", "an answer given again is counted, and nobody is asked or paid";
    /// One asks for all.
    CacheOneAsks, "C7", "of equal requests at once one asks, while it is there";
    /// Nobody is left waiting.
    CacheNobodyForgotten, "C8", "who waits for an answer waits for somebody, for half of its time";
    /// Labels bind.
    CacheStaysHome, "C9", "no answer leaves the node or the site that its label keeps it at";
    /// Memory is finite.
    MemoryWithinBudget, "E1", "weights and what answers need stay within an engine's memory";
    /// Nobody is cut off for another.
    MemoryWorkStays, "E2", "no model leaves memory while a request for it has not ended";
    /// Nobody waits for ever.
    MemoryInTime, "E3", "who waits for a model is answered or told why not, in bounded time";
    /// Copies first.
    MemoryCopyFirst, "E4", "a model that a peer has in memory goes before a last copy as small";
    /// Silence is noticed.
    MemberSilentDead, "M1", "a silent peer is dead within 3 s";
    /// Resets are noticed.
    MemberResetDead, "M2", "a peer whose connection was reset is dead within 1 s";
    /// Freezes are noticed.
    MemberFrozenSeen, "M3", "a frozen peer is frozen within 2 s";
    /// Slow is not frozen.
    MemberSlowNotFrozen, "M4", "a peer that is slow, loading or idle is not frozen";
    /// The well are well.
    MemberHealthyAlive, "M5", "a healthy, reachable peer is not dead";
    /// The well do not stay suspect.
    MemberHealthyNotSuspect, "M6", "a healthy, reachable peer does not stay suspect";
    /// Others' word counts.
    MemberBackedAlive, "M7", "a peer that all others reach is not dead";
    /// A stop is the stopped one's own.
    MemberStoppedBlamesNobody, "M8", "a node that stood still blames nobody";
    /// Honest rows of state are taken.
    StateHonestRowsTaken, "M9", "honest rows of state are taken";
    /// Rows only advance.
    StateNeverBack, "M10", "rows never go back";
    /// Those put out stay out.
    StateRevokedStaysOut, "M11", "a revoked node finds no way back";
    /// Old builds live with new ones.
    StateVersionsAgree, "M12", "nothing is sent that the peer's version does not know";
    /// Strangers stay outside.
    StateOnlyMembersLinked, "M13", "nobody is let in whom no lease covers";
    /// Codes bind.
    StateCodesBind, "M14", "a code lets one node in, in its time, for five attempts";
    /// Rights count.
    StateRightsCount, "M15", "a record without a right behind it changes nothing";
    /// Nothing leaves before it is stored.
    StoreBeforeSend, "S1", "nothing leaves a node that depends on what its disk may forget";
    /// Messages fit.
    BoundDatagram, "B1", "a message fits a datagram";
    /// Tables stay bounded.
    BoundTables, "B2", "every table stays within its bound";
    /// Views agree.
    LiveViewsAgree, "V1", "after healing all hold each other alive";
    /// Rows agree.
    LiveRowsAgree, "V2", "after healing all rows agree";
    /// Policies agree.
    LivePolicyAgrees, "V3", "after healing all policies agree";
    /// Routes agree.
    LiveRoutesAgree, "V9", "after healing all nodes have the same routes";
    /// Purges arrive.
    LivePurgesKnown, "V10", "after healing all nodes know the same purges";
    /// Requests end.
    LiveNothingPending, "V4", "after healing everything pending ends";
    /// Those with rights serve.
    LiveServes, "V5", "after healing a node with a right to spend serves";
    /// Permits go where they are asked for.
    LivePermitsMove, "V7", "after healing a node gets a free permit of its peers by asking again";
    /// Those who may come in are in.
    LiveJoins, "V6", "after healing whoever was told to join is a member";
    /// Providers are asked again.
    LiveProvided, "V8", "after healing providers are asked again, as soon as their breakers allow";
    /// Models come.
    LiveLoads, "V11", "after healing whoever asks for a model that fits is answered";
}

impl Invariant {
    /// The family: F flow, Q quota, H hand-over, R routing, P providers, C cache, E engines'
    /// memory, M membership and state, S store, B bounds, V liveness.
    pub fn family(self) -> char {
        self.id().chars().next().unwrap_or('?')
    }
}

impl std::fmt::Display for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id(), self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_id_is_used_once() {
        let ids: BTreeSet<&str> = Invariant::ALL.iter().map(|one| one.id()).collect();
        assert_eq!(ids.len(), Invariant::ALL.len());
    }
}
