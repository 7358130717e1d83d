//! Names and groups, as a handler uses them.

use super::{Broadcast, Context, Engine, LoginDecision};
use crate::directory::{Directory, Name, TooManyGroups};
use crate::error::SendError;
use crate::id::ConnId;

/// Numbers of names and groups at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameCounts {
    /// Different names.
    pub names: usize,
    /// Groups with members.
    pub groups: usize,
    /// Members of all groups together.
    pub memberships: usize,
    /// Logins that wait for a decision, or for their name.
    pub pending_logins: usize,
}

impl Engine {
    /// Queues a message for the connections with that name. See [`Context::send_to`].
    pub fn send_to(&mut self, name: &str, message: &[u8]) -> Result<Broadcast, SendError> {
        match *self.directory.holders(name) {
            [] => Err(SendError::Closed),
            [id] => self.send(id, &[message]).map(|()| Broadcast::Complete(1)),
            _ => {
                let ids = self.directory.holders(name).to_vec();
                self.send_many(&ids, message)
            }
        }
    }

    /// Queues a message for the members of a group. See [`Context::publish`].
    pub fn publish(&mut self, group: &str, message: &[u8]) -> Result<Broadcast, SendError> {
        let ids = self.directory.members(group).to_vec();
        self.send_many(&ids, message)
    }

    /// Adds a connection to a group. See [`Context::join`].
    pub fn join(&mut self, id: ConnId, group: &Name) -> Result<bool, TooManyGroups> {
        if !self.is_open(id) {
            return Ok(false);
        }
        self.directory.join(id, group)
    }

    /// Removes a connection from a group. See [`Context::leave`].
    pub fn leave(&mut self, id: ConnId, group: &str) -> bool {
        self.directory.leave(id, group)
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Numbers of names, groups and logins under way. See [`Context::name_counts`].
    pub fn name_counts(&self) -> NameCounts {
        NameCounts {
            names: self.directory.names(),
            groups: self.directory.groups(),
            memberships: self.directory.memberships(),
            pending_logins: self.pending_logins(),
        }
    }
}

impl Context<'_> {
    /// Decides about a login for which [`Handler::on_login`](super::Handler::on_login) returned
    /// [`LoginDecision::Pending`]. The first decision counts. Returns `false`, and does nothing, if
    /// no login of the connection waits for one: it was decided, timed out, or the connection is
    /// gone.
    pub fn login(&mut self, id: ConnId, decision: LoginDecision) -> bool {
        self.engine.decide_login(id, decision)
    }

    /// Closes a connection whose proof of its name no longer holds, as
    /// [`CloseReason::LoginExpired`](crate::CloseReason::LoginExpired). What is queued is sent
    /// first. `false` if it has no name, or is closed or closing already.
    pub fn expire_login(&mut self, id: ConnId) -> bool {
        self.engine.expire_login(id)
    }

    /// The name of a connection; `None` if it has none, and before its login is complete. In
    /// `on_close` the connection still has its name.
    pub fn name_of(&self, id: ConnId) -> Option<&Name> {
        self.engine.directory().name(id)
    }

    /// The connections with a name: at most one, unless `OnDuplicate::Allow` is set.
    pub fn connections_named(&self, name: &str) -> &[ConnId] {
        self.engine.directory().holders(name)
    }

    /// Queues a message for the connections with a name, as [`Context::send`] does for one, and as
    /// [`Context::send_many`] for several.
    ///
    /// Fails as [`SendError::Closed`] if no connection has the name.
    pub fn send_to(&mut self, name: &str, message: &[u8]) -> Result<Broadcast, SendError> {
        self.engine.send_to(name, message)
    }

    /// Queues a message for each of `ids` that is open; ids that come twice count once. Large
    /// messages are shared, not copied for each.
    ///
    /// With more than 256 ids, or while another broadcast is under way, this goes on in later
    /// turns, as [`Context::broadcast`] does. Errors are the same.
    pub fn send_many(&mut self, ids: &[ConnId], message: &[u8]) -> Result<Broadcast, SendError> {
        self.engine.send_many(ids, message)
    }

    /// Queues a message for the members of a group, as [`Context::send_many`] does. A connection
    /// that joins later does not get it; one that leaves later does. A group without members has no
    /// receivers.
    pub fn publish(&mut self, group: &str, message: &[u8]) -> Result<Broadcast, SendError> {
        self.engine.publish(group, message)
    }

    /// Adds a connection to a group, with or without a name. It leaves when it is closed. `false`
    /// if it is a member already, or not open. Fails if it is in 64 groups.
    pub fn join(&mut self, id: ConnId, group: &Name) -> Result<bool, TooManyGroups> {
        self.engine.join(id, group)
    }

    /// Removes a connection from a group. `false` if it is not a member.
    pub fn leave(&mut self, id: ConnId, group: &str) -> bool {
        self.engine.leave(id, group)
    }

    /// Numbers of names, groups and logins under way.
    pub fn name_counts(&self) -> NameCounts {
        self.engine.name_counts()
    }

    /// The groups of a connection, in no order.
    pub fn groups_of(&self, id: ConnId) -> impl Iterator<Item = &Name> {
        self.engine.directory().groups_of(id)
    }

    /// The members of a group, in no order.
    pub fn members(&self, group: &str) -> &[ConnId] {
        self.engine.directory().members(group)
    }
}
