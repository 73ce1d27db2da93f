//! The answers to one request, as one stream of pieces.
//!
//! A request for `n` answers asks the node `n` times; the pieces come interleaved, each with the
//! index of its answer. Owns the merging; dropping it cancels all of them.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::BoxStream;
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_core::Piece;
use selvedge_runtime::Call;

use super::backend::Backend;

/// All answers to one request.
pub(super) struct Answers {
    /// `None` once an answer has ended.
    open: Vec<Option<BoxStream<'static, Piece>>>,
    /// Where to look first, so that no answer starves the others.
    turn: usize,
}

impl Answers {
    /// Asks for every answer at once.
    pub(super) fn ask(backend: &dyn Backend, calls: Vec<Call>) -> Self {
        Self { open: calls.into_iter().map(|call| Some(backend.generate(call))).collect(), turn: 0 }
    }
}

impl Stream for Answers {
    type Item = (usize, Piece);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut waiting = false;
        for step in 0..this.open.len() {
            let index = (this.turn + step) % this.open.len();
            let Some(answer) = &mut this.open[index] else { continue };
            match answer.as_mut().poll_next(cx) {
                Poll::Pending => waiting = true,
                Poll::Ready(piece) => {
                    let piece = piece.unwrap_or_else(broken_off);
                    if matches!(piece, Piece::Finished { .. } | Piece::Failed(_)) {
                        this.open[index] = None;
                    }
                    this.turn = index + 1;
                    return Poll::Ready(Some((index, piece)));
                }
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(None) }
    }
}

/// An answer ends with its last piece; one that ends before is our fault.
fn broken_off() -> Piece {
    Piece::Failed(Refusal::new(
        Stage::Execute,
        Blame::Us,
        Retry::Elsewhere,
        Code::Internal,
        "the answer broke off without a reason; this is a fault of the node",
    ))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use selvedge_base::NodeId;

    use super::*;

    fn started() -> Piece {
        Piece::Started { prompt_tokens: 1, served_by: NodeId([1; 32]) }
    }

    fn refused() -> Piece {
        Piece::Failed(Refusal::client(Stage::Route, Code::ModelNotFound, "no"))
    }

    fn answers(of: Vec<Vec<Piece>>) -> Answers {
        let open = of.into_iter().map(|pieces| Some(futures::stream::iter(pieces).boxed()));
        Answers { open: open.collect(), turn: 0 }
    }

    #[tokio::test]
    async fn answers_take_turns() {
        let both = answers(vec![vec![started(), refused()], vec![started(), refused()]]);
        let order: Vec<usize> = both.map(|(index, _)| index).collect().await;
        assert_eq!(order, [0, 1, 0, 1]);
    }

    #[tokio::test]
    async fn an_answer_that_just_ends_is_a_failure() {
        let pieces: Vec<_> = answers(vec![vec![started()]]).collect().await;
        assert_eq!(pieces.len(), 2);
        assert!(
            matches!(&pieces[1], (0, Piece::Failed(refusal)) if refusal.code == Code::Internal)
        );
    }
}
