//! The side that issued the code: one machine per attempt, over one book of codes.

use std::net::SocketAddr;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Dice, MeshId, NodeId, Wall};

use super::exchange::{Exchange, Transcript, same};
use super::{Invites, JoinError, JoinMessage, MAX_WELCOME_PEERS};
use crate::records::{self, Credential};

/// One attempt of one node to join.
pub struct Issuer {
    mesh: MeshId,
    me: NodeId,
    joiner: NodeId,
    state: State,
}

/// What the shell does next.
#[derive(Debug)]
#[must_use]
pub enum IssuerStep {
    /// Store the book of codes, then send this.
    Send(JoinMessage),
    /// The joiner proved the code, which is spent: store the book, sign a membership for `node`,
    /// then send [`Issuer::welcome`].
    Admit {
        /// Who.
        node: NodeId,
        /// What it wants to be called.
        name: String,
    },
    /// Store the book, send this, close the connection.
    Refuse(JoinMessage, JoinError),
}

enum State {
    Waiting(Box<Dice>),
    Challenged { code_id: u32, name: String, expected: [u8; 32] },
    Done,
}

impl Issuer {
    /// An attempt of `joiner`, the node at the other end of the TLS connection.
    pub fn new(mesh: MeshId, me: NodeId, joiner: NodeId, dice: Dice) -> Self {
        Self { mesh, me, joiner, state: State::Waiting(Box::new(dice)) }
    }

    /// Takes what the joiner sent.
    pub fn received(
        &mut self,
        invites: &mut Invites,
        message: JoinMessage,
        wall: Wall,
    ) -> IssuerStep {
        let step = match (std::mem::replace(&mut self.state, State::Done), message) {
            (State::Waiting(dice), JoinMessage::Start { code_id, pake, name }) => {
                self.started(invites, *dice, code_id, &pake, name, wall)
            }
            (State::Challenged { code_id, name, expected }, JoinMessage::Prove { confirm }) => {
                self.proved(invites, code_id, name, &expected, &confirm, wall)
            }
            (
                State::Waiting(_) | State::Challenged { .. } | State::Done,
                JoinMessage::Start { .. }
                | JoinMessage::Challenge { .. }
                | JoinMessage::Prove { .. }
                | JoinMessage::Welcome { .. }
                | JoinMessage::Refused(_),
            ) => Err(JoinError::OutOfOrder),
        };
        step.unwrap_or_else(|error| {
            IssuerStep::Refuse(JoinMessage::Refused(error.refusal()), error)
        })
    }

    /// The last message to a node that was admitted.
    pub fn welcome(
        credential: Credential,
        mut peers: Vec<(NodeId, Vec<SocketAddr>)>,
    ) -> JoinMessage {
        peers.truncate(MAX_WELCOME_PEERS);
        JoinMessage::Welcome { credential: Box::new(credential), peers }
    }

    fn started(
        &mut self,
        invites: &mut Invites,
        dice: Dice,
        code_id: u32,
        pake: &[u8],
        name: String,
        wall: Wall,
    ) -> Result<IssuerStep, JoinError> {
        records::check_name(&name)?;
        let code = invites.begin(code_id, wall)?;
        let exchange = Exchange::issuer(&code, self.joiner, self.me, dice);
        let message = exchange.message.clone();
        let transcript = Transcript {
            code_id,
            mesh: self.mesh,
            joiner: self.joiner,
            issuer: self.me,
            name: &name,
            joiner_pake: pake,
            issuer_pake: &message,
        };
        let proofs = exchange.finish(pake, &transcript)?;
        self.state = State::Challenged { code_id, name, expected: proofs.of_joiner };
        let confirm = proofs.of_issuer;
        let answer = JoinMessage::Challenge { pake: message, mesh: self.mesh, confirm };
        Ok(IssuerStep::Send(answer))
    }

    fn proved(
        &self,
        invites: &mut Invites,
        code_id: u32,
        name: String,
        expected: &[u8; 32],
        confirm: &[u8; 32],
        wall: Wall,
    ) -> Result<IssuerStep, JoinError> {
        if !same(expected, confirm) && !plant::is_on(Plant::CodeUnproved) {
            return Err(JoinError::WrongProof);
        }
        invites.spend(code_id, self.joiner, wall)?;
        Ok(IssuerStep::Admit { node: self.joiner, name })
    }
}
