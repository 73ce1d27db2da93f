//! The issuer's book of codes: each works once, for a while, for at most five attempts.
//!
//! An attempt counts when it begins, so hanging up after a guess buys nothing. The shell stores
//! the book before it sends the answer that the attempt led to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Dice, MeshId, Micros, NodeId, Wall};
use serde::{Deserialize, Serialize};

use super::{JoinCode, JoinError, MAX_ATTEMPTS, MAX_CODE_ADDRS, MAX_INVITES, MAX_TTL};
use crate::records;

/// The codes a node has issued; serialise it to store it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invites {
    codes: BTreeMap<u32, Invite>,
}

/// One code and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The code.
    pub code: JoinCode,
    /// When it stops working.
    pub not_after: Wall,
    /// Attempts begun.
    pub attempts: u8,
    /// Who joined with it.
    pub used_by: Option<NodeId>,
}

impl Invites {
    /// Issues a code that works until `ttl` from now (at most [`MAX_TTL`]).
    ///
    /// # Errors
    /// [`JoinError::TooManyInvites`].
    pub fn issue(
        &mut self,
        mesh: &MeshId,
        issuer: &NodeId,
        addrs: &[SocketAddr],
        ttl: Micros,
        wall: Wall,
        dice: &mut Dice,
    ) -> Result<JoinCode, JoinError> {
        self.codes.retain(|_, invite| wall <= invite.not_after);
        if self.codes.len() >= MAX_INVITES {
            return Err(JoinError::TooManyInvites);
        }
        let mut id = dice.next() as u32;
        while self.codes.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        let mut secret = [0; 8];
        dice.fill(&mut secret);
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&issuer.0[..8]);
        let code = JoinCode {
            id,
            fingerprint: records::fingerprint(mesh),
            secret,
            issuer: prefix,
            addrs: addrs.iter().take(MAX_CODE_ADDRS).copied().collect(),
        };
        let not_after = wall.plus(ttl.min(MAX_TTL));
        let invite = Invite { code: code.clone(), not_after, attempts: 0, used_by: None };
        self.codes.insert(id, invite);
        Ok(code)
    }

    /// The codes, whatever became of them.
    pub fn iter(&self) -> impl Iterator<Item = &Invite> {
        self.codes.values()
    }

    /// Withdraws a code.
    pub fn withdraw(&mut self, id: u32) -> bool {
        self.codes.remove(&id).is_some()
    }

    /// Begins an attempt: counts it and hands out the code to run the exchange with.
    pub(super) fn begin(&mut self, id: u32, wall: Wall) -> Result<JoinCode, JoinError> {
        let invite = self.codes.get_mut(&id).ok_or(JoinError::UnknownCode)?;
        check_open(invite, wall)?;
        if invite.attempts >= MAX_ATTEMPTS {
            return Err(JoinError::TooManyAttempts);
        }
        if !plant::is_on(Plant::AttemptsUncounted) {
            invite.attempts += 1;
        }
        Ok(invite.code.clone())
    }

    /// Spends a code whose secret `node` proved; of two at once only the first gets it.
    pub(super) fn spend(&mut self, id: u32, node: NodeId, wall: Wall) -> Result<(), JoinError> {
        let invite = self.codes.get_mut(&id).ok_or(JoinError::UnknownCode)?;
        check_open(invite, wall)?;
        invite.used_by = Some(node);
        Ok(())
    }
}

fn check_open(invite: &Invite, wall: Wall) -> Result<(), JoinError> {
    if invite.used_by.is_some() {
        return Err(JoinError::Used);
    }
    if wall > invite.not_after {
        return Err(JoinError::Expired);
    }
    Ok(())
}
