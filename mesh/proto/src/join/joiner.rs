//! The side that was given a code.

use std::net::SocketAddr;

use selvedge_base::{Dice, MeshId, NodeId, Wall};

use super::exchange::{Exchange, Transcript, same};
use super::{JoinCode, JoinError, JoinMessage, MAX_WELCOME_PEERS};
use crate::records::{self, Credential};

/// An attempt to join with a code.
pub struct Joiner {
    code: JoinCode,
    me: NodeId,
    issuer: NodeId,
    name: String,
    state: State,
}

/// What the shell does next.
#[derive(Debug)]
#[must_use]
pub enum JoinerStep {
    /// Send this.
    Send(JoinMessage),
    /// This node is a member: store the credential.
    Joined(Box<Joined>),
    /// Give up.
    Failed(JoinError),
}

/// The fruit of joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The mesh.
    pub mesh: MeshId,
    /// What to present from now on.
    pub credential: Credential,
    /// Where other members are.
    pub peers: Vec<(NodeId, Vec<SocketAddr>)>,
}

enum State {
    Started(Box<Exchange>),
    Proved(MeshId),
    Done,
}

impl Joiner {
    /// Begins to join at `issuer`, the node at the other end of the TLS connection, and says what
    /// to send first.
    ///
    /// # Errors
    /// [`JoinError::WrongIssuer`] when another node issued the code, [`JoinError::Credential`] for
    /// an unusable name.
    pub fn new(
        code: JoinCode,
        me: NodeId,
        issuer: NodeId,
        name: &str,
        dice: Dice,
    ) -> Result<(Self, JoinMessage), JoinError> {
        records::check_name(name)?;
        if !code.names(&issuer) {
            return Err(JoinError::WrongIssuer(issuer.short()));
        }
        let exchange = Exchange::joiner(&code, me, issuer, dice);
        let pake = exchange.message.clone();
        let start = JoinMessage::Start { code_id: code.id, pake, name: name.to_owned() };
        let state = State::Started(Box::new(exchange));
        Ok((Self { code, me, issuer, name: name.to_owned(), state }, start))
    }

    /// Takes what the issuer sent.
    pub fn received(&mut self, message: JoinMessage, wall: Wall) -> JoinerStep {
        let step = match (std::mem::replace(&mut self.state, State::Done), message) {
            (State::Started(exchange), JoinMessage::Challenge { pake, mesh, confirm }) => {
                self.challenged(*exchange, &pake, mesh, &confirm)
            }
            (State::Proved(mesh), JoinMessage::Welcome { credential, peers }) => {
                self.welcomed(mesh, *credential, peers, wall)
            }
            (_, JoinMessage::Refused(refusal)) => Err(JoinError::Refused(refusal)),
            (
                State::Started(_) | State::Proved(_) | State::Done,
                JoinMessage::Start { .. }
                | JoinMessage::Challenge { .. }
                | JoinMessage::Prove { .. }
                | JoinMessage::Welcome { .. },
            ) => Err(JoinError::OutOfOrder),
        };
        step.unwrap_or_else(JoinerStep::Failed)
    }

    fn challenged(
        &mut self,
        exchange: Exchange,
        pake: &[u8],
        mesh: MeshId,
        confirm: &[u8; 32],
    ) -> Result<JoinerStep, JoinError> {
        self.check_mesh(&mesh)?;
        let message = exchange.message.clone();
        let transcript = Transcript {
            code_id: self.code.id,
            mesh,
            joiner: self.me,
            issuer: self.issuer,
            name: &self.name,
            joiner_pake: &message,
            issuer_pake: pake,
        };
        let proofs = exchange.finish(pake, &transcript)?;
        if !same(&proofs.of_issuer, confirm) {
            return Err(JoinError::WrongProof);
        }
        self.state = State::Proved(mesh);
        Ok(JoinerStep::Send(JoinMessage::Prove { confirm: proofs.of_joiner }))
    }

    fn welcomed(
        &self,
        mesh: MeshId,
        credential: Credential,
        mut peers: Vec<(NodeId, Vec<SocketAddr>)>,
        wall: Wall,
    ) -> Result<JoinerStep, JoinError> {
        credential.verify(mesh, self.me, wall)?;
        peers.truncate(MAX_WELCOME_PEERS);
        Ok(JoinerStep::Joined(Box::new(Joined { mesh, credential, peers })))
    }

    fn check_mesh(&self, mesh: &MeshId) -> Result<(), JoinError> {
        if self.code.is_for(mesh) {
            return Ok(());
        }
        Err(JoinError::WrongMesh {
            theirs: records::fingerprint_text(mesh),
            ours: crate::base32::grouped(&self.code.fingerprint),
        })
    }
}
