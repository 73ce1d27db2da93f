//! Whether data fit a job, before anybody is told of it: what nodes say, and what follows.
//!
//! Owns the words of an answer and the judgement over all of them. An answer holds reasons of a
//! fixed list and counts, never anything of the data: not a value, not a name in a file, not the
//! text of an error. Who is asked, how long, and how data are looked at is a shell's.

use serde::{Deserialize, Serialize};

use crate::round::Job;

/// Why data of a node do not fit a job. New reasons go to the end, and need a wire version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Misfit {
    /// The node has none by the job's name for them.
    Source,
    /// A file is missing, or may not be read.
    File,
    /// Something in a file is not what its kind or the job wants.
    Content,
    /// Columns, sides of images, or the kind of examples are not the job's.
    Columns,
    /// A label is no class of the job, or the classes are not as many.
    Classes,
    /// There are no examples, or none but those that are held out.
    Few,
    /// There is more than a node reads.
    Large,
    /// The data have a bound of epsilon, and the job has no differential privacy.
    Privacy,
    /// The model that the job tunes is not there, or not the same.
    Base,
    /// The node's program does not know such a job.
    Program,
    /// The first weights come out differently on the node's processor.
    Processor,
    /// As many jobs run at the node as may.
    Full,
    /// The node itself failed.
    Failed,
    /// What is left of the data's bound of epsilon is less than one contribution costs.
    Spent,
}

impl Misfit {
    /// A word for it, which stays the same.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::File => "file",
            Self::Content => "content",
            Self::Columns => "columns",
            Self::Classes => "classes",
            Self::Few => "few",
            Self::Large => "large",
            Self::Privacy => "privacy",
            Self::Base => "base",
            Self::Program => "program",
            Self::Processor => "processor",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Spent => "spent",
        }
    }
}

/// What a node found as it looked at its own data for a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// Clients of the node that would train.
    pub clients: u8,
    /// Examples that they would train on together; none where rounds do not tell them either.
    pub examples: Option<u64>,
    /// Why the node would not train, or not on all parts of its data.
    pub misfit: Option<Misfit>,
}

impl Fit {
    /// A node that would not train.
    pub const fn not(misfit: Misfit) -> Self {
        Self { clients: 0, examples: None, misfit: Some(misfit) }
    }

    /// With one more client, which has so many examples. What rounds do not tell, since all of a
    /// job with privacy weigh alike, is not told here.
    #[must_use]
    pub fn with(self, job: &Job, examples: u64) -> Self {
        let all = self.examples.unwrap_or(0).saturating_add(examples);
        let examples = job.privacy.is_none().then_some(all);
        Self { clients: self.clients.saturating_add(1), examples, ..self }
    }

    /// With a part of the data that does not fit; the first one is told.
    #[must_use]
    pub fn but(self, misfit: Misfit) -> Self {
        Self { misfit: self.misfit.or(Some(misfit)), ..self }
    }

    /// What of a peer's word can be true of a job.
    #[must_use]
    pub fn within(self, job: &Job) -> Self {
        let clients = self.clients.min(job.per_node);
        let examples = self.examples.filter(|_| clients > 0 && job.privacy.is_none());
        let misfit = self.misfit.or_else(|| (clients == 0).then_some(Misfit::Failed));
        Self { clients, examples, misfit }
    }

    /// Whether the node would train.
    pub const fn trains(&self) -> bool {
        self.clients > 0
    }
}

/// A node's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FitsReply {
    /// It looked.
    Looked(Fit),
    /// It has other such questions to answer, or one of the same node.
    Busy,
    /// It could not read all of its data in time.
    Late,
}

/// What is known of a node after it was asked, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It looked.
    Said(Fit),
    /// It did not look: others ask it.
    Busy,
    /// It did not say in time.
    Late,
    /// Its program is older than the question.
    Older,
    /// It is there, and this node has no link to it.
    Unreached,
    /// It is not there now.
    Away,
}

/// What follows from all answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Distinct nodes that a set needs before it can be closed.
    pub needed: usize,
    /// Nodes that would train.
    pub nodes: usize,
    /// Clients that those have.
    pub clients: usize,
    /// Nodes that are there and did not say: they may train.
    pub unsaid: usize,
    /// Nodes that are away: they may come, and then may train.
    pub away: usize,
}

/// Whether rounds can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Enough nodes fit.
    Enough,
    /// Only if some of those train that are there and did not say.
    Unsure,
    /// Not with those that are there now.
    TooFew,
}

impl Verdict {
    /// What follows for a job.
    pub fn of(job: &Job, answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut verdict = Self { needed: job.floor(), ..Self::default() };
        for answer in answers {
            match answer {
                Answer::Said(fit) if fit.trains() => {
                    verdict.nodes += 1;
                    verdict.clients += usize::from(fit.clients);
                }
                Answer::Said(_) => {}
                Answer::Busy | Answer::Late | Answer::Older | Answer::Unreached => {
                    verdict.unsaid += 1;
                }
                Answer::Away => verdict.away += 1,
            }
        }
        verdict
    }

    /// Whether rounds can end. A set counts nodes, so that many clients of few do not help.
    pub const fn outlook(&self) -> Outlook {
        if self.nodes >= self.needed {
            Outlook::Enough
        } else if self.nodes.saturating_add(self.unsaid) >= self.needed {
            Outlook::Unsure
        } else {
            Outlook::TooFew
        }
    }
}

#[cfg(test)]
#[path = "fits_tests.rs"]
mod tests;
