//! Marks: rare things that a run *sometimes* does. A mark that no seed ever hits shows that the
//! simulator does not go where it claims to go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! marks {
    ($($name:ident, $sentence:literal;)+) => {
        /// Something that should happen in some run.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum Mark {
            $(#[doc = $sentence] $name,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// What happened, as a sentence.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)+
                }
            }
        }
    };
}

marks! {
    AnswerResumed, "An answer went on at another node.";
    ResumedTwice, "An answer changed its node twice.";
    ResumedAtHome, "An answer begun by a peer was ended by the node that took the request.";
    DoubtfulTriedAgain, "A node that was only slow got a second chance.";
    HandOffRefused, "A peer refused a hand-off and the next candidate took it.";
    DeadlinePassed, "A request ran into its deadline.";
    CallerLeft, "A caller went away in mid-answer.";
    IngestDied, "The node that took a request died with it.";
    ServerDied, "The node that answered died in mid-answer.";
    ServerFroze, "The engine that answered froze in mid-answer.";
    ScheduleFull, "An engine's queue was full.";
    SequencePaused, "A sequence was paused for want of memory.";
    GossipRefuted, "A node refuted its own death.";
    FoundThroughOthers, "A peer was reached only through others.";
    BudgetRefused, "A budget refused a request.";
    RightsGiven, "A node gave rights to another.";
    RightsGivenWhileCut, "Rights were given while the network was cut.";
    NewcomerPassed, "A newcomer used a permit or a rate that it was given.";
    NewcomerStopped, "A newcomer used nothing of a permit or rate since nobody vouched for it.";
    PermitCame, "A node that had no permit got one of a peer by asking again.";
    HeldForAnswer, "A request was held for rights on their way.";
    HeldThenGranted, "A held request was granted after all.";
    ReservationExtended, "A reservation was extended.";
    ExtensionRefused, "An extension was refused and the answer ended.";
    CrashWithReservation, "A node crashed with something reserved.";
    CrashBetweenStoreAndSend, "A donor crashed with a gift stored that nobody had heard of.";
    CrashWithPendingWrite, "A node crashed with a write that was not yet durable.";
    WriteFailed, "A disk refused a write.";
    RolledBack, "A disk came back older than it was.";
    RollbackDetected, "A node found out that its disk had been rolled back.";
    RightsReclaimed, "Rights of a node that was gone were taken over.";
    RowTakenOver, "A node found that others had taken over what it had left.";
    RowRegained, "A node that was taken over holds rights again.";
    WindowTurned, "A window of a budget ended and the next began.";
    PolicyAdopted, "A node took over a new policy.";
    LimitLowered, "An operator lowered a limit.";
    UndatedRefused, "A node whose clock is before its membership did not put another out.";
    NodeRevoked, "A node was put out of the mesh.";
    RevokedRefused, "A revoked node was turned away.";
    KeyRefused, "A caller with a revoked key was turned away.";
    KeyExpired, "A caller whose key had expired was turned away.";
    KeyOutOfScope, "A caller whose key is for other models was turned away.";
    LocalKeyRefused, "A caller with a key that its node does not know was turned away.";
    KeyRevoked, "A key of the mesh was revoked.";
    CallerBarred, "A running answer ended because its key or account did.";
    Downgraded, "A budget with nothing left gave another model instead.";
    OldVersionServed, "A node of the older wire version answered for a peer.";
    ClockBefore2000, "A node booted with its clock at the beginning.";
    DebtBooked, "An overrun was booked as debt.";
    EquivocationSeen, "Two rows under one number were found out.";
    StrangerRefused, "A node that is no member was turned away.";
    LapsedRefused, "A node whose lease had lapsed was turned away.";
    LeaseRenewed, "A node got a new lease.";
    UnfitClosed, "A connection was closed because its peer would not be let in any more.";
    Joined, "A node joined with a code.";
    JoinRefused, "A node that would join was refused.";
    CodeVoided, "A code was void after too many attempts.";
    LeftInOrder, "A node left after it had given its rights away.";
    MalformedRefused, "A message with turned bits did not read as one.";
    ForgeryRefused, "A record in the name of another was refused.";
    ReplayIgnored, "A replayed frame changed nothing.";
    FloodUnread, "More rows of one peer came than are checked: they were not looked at.";
    ProviderAnswered, "A provider answered to the end.";
    ProviderAskedAgain, "A provider was asked again for the same request.";
    OtherKeyUsed, "A provider was asked again with another key.";
    AskedElsewhere, "A target failed and the next one of the route was asked.";
    AnsweredInTheMesh, "Providers failed, and a model of the mesh answered.";
    ProviderLeftAlone, "A breaker opened before a provider.";
    ProviderBack, "A breaker before a provider closed again.";
    ProviderFull, "A provider was not asked: as many requests as may run there ran.";
    ProviderCutOff, "A provider's answer broke off, and the caller was told.";
    HeadThenElsewhere, "An answer ended before its first piece, and another target answered.";
    Overbilled, "A provider billed more than was reserved.";
    LabelStayed, "Data that must stay in the mesh was not sent to a provider.";
    MoneyUsedUp, "A budget of money refused a provider's answer.";
    LocalOnlyAnswered, "A request whose money was used up was answered in the mesh.";
    PaidDowngraded, "A request whose money was used up got a model of the mesh instead.";
    PaidCallerLeft, "A caller went away while a provider answered.";
    CacheHit, "A kept answer was given again.";
    CacheShared, "An answer came for several who had asked the same at once.";
    CacheTakenOver, "Who waited for an answer asked for it, since the one who asked had none.";
    CacheGaveUp, "Who had waited twice in vain went its own way.";
    CacheWaitedEnough, "Who had waited for half of its time went its own way.";
    CacheExpired, "An answer was kept until it was too old.";
    CacheEvicted, "An answer went for want of room.";
    CacheTooLarge, "An answer was too large to be kept.";
    CacheUnfaithful, "A whole answer was not kept, since another target or model gave it.";
    CachePurged, "A purge took answers.";
    CachePurgedUnderWay, "A purge came while an answer was under way, which was not kept.";
    CacheWaiterLeft, "A caller went away while it waited for the answer of another's request.";
    CacheLost, "A process died with answers kept, and who waited there with it.";
    CacheOnlyKept, "Who takes only what is kept was told that nothing is.";
    CacheFetched, "A peer gave the answer that a node lacked.";
    CacheFetchedInVain, "What a peer gave was too old, or was purged on its way.";
    CacheLookedEnough, "Who had looked at peers for long enough asked a target.";
    CacheOtherPurges, "A peer that knew other purges was given nothing.";
    PurgeHeard, "A node heard of a purge that was made elsewhere.";
    ModelLoaded, "A model came into memory.";
    ModelLoadFailed, "A load failed, and its model rested.";
    ModelWentCopied, "A model made room because a peer has it in memory.";
    ModelWentOldest, "A model made room because it was asked for the longest ago.";
    ModelTurnedAway, "Who waited for a model was turned away: all that could go was at work.";
    ModelKeptOut, "A model did not come, since what never goes leaves too little.";
    StrainedSpared, "A node that ran low or hot was passed over.";
    StrainedAsked, "A node that ran low or hot was asked, as no other could answer.";
    CacheBeside, "A caller would have nothing to do with the cache.";
}

/// How often each mark was hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks(BTreeMap<Mark, u64>);

impl Marks {
    /// It happened.
    pub(crate) fn hit(&mut self, mark: Mark) {
        *self.0.entry(mark).or_default() += 1;
    }

    /// How often it happened.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0.get(&mark).copied().unwrap_or(0)
    }

    /// What never happened.
    pub fn missed(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }

    /// What happened, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Mark, u64)> + '_ {
        self.0.iter().map(|(mark, count)| (*mark, *count))
    }

    /// Adds what another run hit.
    pub fn add(&mut self, other: &Self) {
        for (mark, count) in other.iter() {
            *self.0.entry(mark).or_default() += count;
        }
    }
}
