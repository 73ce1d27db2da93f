//! Planted bugs: known wrong decisions that the simulator must find.
//!
//! Each is one `if` at the decision it spoils. Without the feature `plants` [`is_on`] is the
//! constant `false` and nothing of it is left in a program; with it, a thread chooses which bug it
//! runs with. Owns the list; what finds them is the simulator's business.

macro_rules! plants {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A known wrong decision.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Plant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Plant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name, for reports.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

plants! {
    /// A node resumes an answer one token too early, and the caller gets that token twice.
    ResumeRepeatsToken,
    /// What an attempt that is over still says is taken for the present one's.
    FenceUnchecked,
    /// A request that cannot be answered ends without a word to its caller.
    FailureSwallowed,
    /// An answer that is complete leaves its request open.
    FinishedStaysOpen,
    /// Any node may be asked whatever a request's label says, and no node minds.
    LabelIgnored,
    /// A node does not rise above a rumour of its own death.
    RefutationForgotten,
    /// That others still reach a peer is no reason to think it alive.
    WordOfOthersIgnored,
    /// A lost connection is forgotten, and a dead peer is noticed by its silence only.
    LinkLossIgnored,
    /// An engine that computes without progress passes for healthy.
    FreezeUnseen,
    /// A node that stood still itself blames its peers for the silence.
    OwnStallBlamed,
    /// An older row takes the place of a newer one.
    RowsGoBack,
    /// An exchange sends rows of unknown writers only, and no newer ones of known writers.
    UpdatesWithheld,
    /// A node that was put out of the mesh is let in again.
    RevokedAdmitted,
    /// A donor gives what it has not spent instead of what it may not spend any more.
    GiveFromSpent,
    /// A gift leaves before it is durable at the donor.
    SendBeforeStored,
    /// A reservation is granted before the mark that covers it is durable.
    GrantBeforeStored,
    /// A reservation is settled once more when it ends.
    SettledTwice,
    /// A node that starts again believes that it spent nothing of the block it had marked.
    CrashForgetsBlock,
    /// A gift counts as often as it is heard of.
    GiftCountedTwice,
    /// What a request that is over did not use stays reserved.
    ReservationLeaks,
    /// A node whose disk went back goes on under its old incarnation.
    RollbackUnnoticed,
    /// An attempt that failed is not told to stop.
    FailedNotStopped,
    /// What an answer took beyond its reservation is charged to nobody.
    OverrunForgotten,
    /// A node that starts again forgets until when it may have spent.
    HorizonForgotten,
    /// A request that its budgets refused is computed all the same.
    RefusalIgnored,
    /// A request goes on after its deadline.
    DeadlineIgnored,
    /// Tokens are given out although everything reserved is used.
    UsedUpUnnoticed,
    /// One peer may have any number of requests running at a node.
    PeerCapIgnored,
    /// Whoever knows a join code's number is let in.
    CodeUnproved,
    /// Attempts with a join code are not counted.
    AttemptsUncounted,
    /// A lease that lapsed is good for ever.
    LapsedAdmitted,
    /// A key that was revoked still opens.
    RevokedKeyOpens,
    /// A key that expired still opens.
    ExpiredKeyOpens,
    /// A node that must have its store confirmed does not hear the confirmation.
    ConfirmationUnheard,
    /// Anybody may put a node out of the mesh.
    RightUnchecked,
    /// An answer goes on although its key was revoked.
    BarsForgotten,
    /// Data that must stay in the mesh goes to a provider.
    LabelLeaves,
    /// What a provider said until its answer was cut off is not paid for.
    CutForFree,
    /// A node that came after an epoch uses permits and rates although no holder vouches.
    NewcomerUsesUnvouched,
    /// No holder vouches for anybody.
    NobodyVouches,
    /// A request that is refused at once asks no peer for what was missing.
    RefusedUnasked,
    /// A permit that is out is not counted.
    PermitsUncounted,
    /// What passed a limiter leaves it as full as before.
    LimiterNeverEmpty,
    /// A breaker that is not sure lets everything through at once.
    ProbesUnlimited,
    /// A breaker that opened stays open.
    BreakerStaysOpen,
    /// A request is tried at a provider as often as it fails there.
    TriesUnbounded,
    /// A request whose money is used up goes to the next provider all the same.
    LocalOnlyForgotten,
    /// After a part of one answer another target begins its own.
    SecondVoice,
    /// Whoever comes next is to go on with an answer that broke off, whether it can or not.
    GoesOnUnable,
    /// A row of a witnessed ledger counts as soon as one voter has it.
    WitnessedAlone,
    /// Whoever takes over a row goes on from the one it knew, not from what a quorum told.
    TakenOverUnasked,
    /// An anchor says that it has a contribution before that is durable.
    ReceiptBeforeStored,
    /// A client sends shares of a contribution that it did not write down.
    SharedBeforeStored,
    /// An anchor accepts a set in a lesser turn than it promised.
    PromiseForgotten,
    /// An anchor that promises a turn does not tell what it accepted before.
    AcceptedUntold,
    /// An anchor that hears of a wish for other anchors forgets the wishes before it.
    WishesForgotten,
    /// One anchor is a quorum.
    MinorityCloses,
    /// An anchor shows its part of a set that it accepted and that is not closed.
    OpenedUncertified,
    /// An anchor folds as few parts as tell a sum, as soon as they are there.
    FewestPartsFolded,
    /// An end of a round of as few parts as tell a sum is believed at the first word.
    FirstWordBelieved,
    /// A sum may be of any number of clients.
    PrivacyFloorIgnored,
    /// What was folded is not numbered, and may be folded again.
    FoldedUnnumbered,
    /// An anchor forgets at the end of a round what did not count in it.
    CarriedForgotten,
    /// What a contribution costs in privacy is granted before it is written down.
    SpentBeforeStored,
    /// A contribution leaves although its node's privacy is used up.
    PrivacyCapIgnored,
    /// A contribution that is sent again after a crash has other noise.
    NoiseRedrawn,
    /// What a contribution costs in privacy is asked for when it is under way already.
    LeftUnasked,
    /// A rule that must count all alike counts an update by the weight its client claims.
    RobustWeighed,
    /// SCAFFOLD's control variate moves as if all clients had taken part.
    ControlOverdone,
    /// Adam begins every round without its first moment.
    MomentForgotten,
    /// A peer's personal model is mixed as often as it comes.
    PersonalMixedTwice,
    /// A personal model leaves before it is durable.
    PersonalSentUnstored,
    /// A personal model is mixed whatever common model it is a drift from.
    PersonalBaseIgnored,
    /// Whose a request is does not count among what makes requests equal.
    CacheKeyForgetsAccount,
    /// Of a text in a request only its length counts.
    CanonForgetsText,
    /// The order of names in a request counts.
    CanonKeepsOrder,
    /// Answers are kept for good.
    CacheNeverExpires,
    /// More answers are kept than there may be.
    CacheNeverEvicts,
    /// A purge forgets what is kept, and not what is being answered.
    PurgeLeavesOpen,
    /// An answer is kept whoever gave it.
    StandInKept,
    /// A question whose asker failed stays open, and whoever asks the same waits for it.
    LeaderNeverEnds,
    /// An answer that is given again is not counted.
    CacheHitUncounted,
    /// A purge that a node hears of takes away nothing there.
    PurgeUnheeded,
    /// A node heeds no purge that it hears of from a peer.
    PurgeUnheard,
    /// An answer that came from a peer is as good as new.
    FetchedGrowsYoung,
    /// Any node may ask for an answer, and be given it, whatever its label says.
    CacheLabelIgnored,
    /// A model makes room for another although requests for it have not ended.
    BusyModelGoes,
    /// That a peer has a model in memory is no reason for it to go first.
    CopiesIgnored,
    /// Memory that is being freed counts as free.
    LeavingCountsAsFree,
    /// A model waits for memory as long as all that could go is at work.
    WaitsForMemoryForEver,
    /// A node that runs low or hot is asked as any other.
    StrainIgnored,
}

/// Whether this bug is planted: never, without the feature `plants`.
#[cfg(not(feature = "plants"))]
#[inline]
pub const fn is_on(_: Plant) -> bool {
    false
}

#[cfg(feature = "plants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted in what this thread runs.
#[cfg(feature = "plants")]
pub fn is_on(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

/// Plants a bug in what this thread runs from now on, or none.
#[cfg(feature = "plants")]
pub fn plant(bug: Option<Plant>) {
    PLANTED.set(bug);
}
