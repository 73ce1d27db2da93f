//! Wishes for other anchors: which of those that stewards told are known, and in which order.
//!
//! Owns the rule by which what several stewards told becomes one list, and its bound. The last wish
//! of an epoch is what is proposed; those before it may have been proposed already, by somebody who
//! had not heard of the later ones, and then only they can be closed: so every anchor has to know
//! them. How wishes travel, and who may wish, is not known here: lists come in the order in which
//! the mesh ranks them, the one that governs at the end.

use thiserror::Error;

use super::job::Committee;

/// Wishes for other anchors that are known at once: stewards who do not know of each other are few,
/// and one who asks again while nothing was closed has seen another machine fail.
pub const MAX_WISHES: usize = 8;

/// Whoever wishes does not know how far the job is: later anchors may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("anchors of epoch {known} were asked for already, which are later than those of {asked}")]
pub struct Behind {
    /// The epoch of the latest wish that is known.
    pub known: u64,
    /// The epoch that was asked for.
    pub asked: u64,
}

/// One more wish is known, the last one from now on. Of more than [`MAX_WISHES`] the oldest goes.
pub(super) fn hear(wishes: &mut Vec<Committee>, wish: Committee) {
    wishes.retain(|known| *known != wish);
    if wishes.len() >= MAX_WISHES {
        wishes.remove(0);
    }
    wishes.push(wish);
}

/// All wishes of these lists, the list that governs at the end: before its wishes are those of
/// stewards who did not know of them.
pub fn merge_wishes(lists: impl IntoIterator<Item = Vec<Committee>>) -> Vec<Committee> {
    let mut wishes = Vec::new();
    for wish in lists.into_iter().flatten() {
        hear(&mut wishes, wish);
    }
    wishes
}

/// What a steward tells who knows of these wishes and has one more: those that may still be closed,
/// and its own at the end.
///
/// # Errors
/// [`Behind`] where somebody wished for later anchors.
pub fn one_more_wish(
    mut wishes: Vec<Committee>,
    wish: Committee,
) -> Result<Vec<Committee>, Behind> {
    let asked = wish.epoch;
    if let Some(known) = wishes.iter().map(|one| one.epoch).max().filter(|known| *known > asked) {
        return Err(Behind { known, asked });
    }
    // Of an earlier set none can be closed beside it.
    wishes.retain(|one| one.epoch == asked);
    hear(&mut wishes, wish);
    Ok(wishes)
}

/// The last of these wishes that is for later anchors than those of an epoch. The very last one may
/// be of a steward that was behind.
pub fn last_wish_after(wishes: &[Committee], epoch: u64) -> Option<&Committee> {
    wishes.iter().rev().find(|wish| wish.epoch > epoch)
}
