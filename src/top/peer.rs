//! The connection that an action is about.

use crate::admin::api::ConnectionEntry;
use crate::admin::client::printable;

/// The connection that was selected when the key was pressed, even if the list has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: String,
    /// With its name, if it has one.
    pub(super) address: String,
}

impl Peer {
    pub(super) fn of(connection: &ConnectionEntry) -> Self {
        Peer {
            id: connection.id.clone(),
            address: connection.label(),
        }
    }

    /// Its path on the admin endpoint.
    pub(super) fn path(&self) -> String {
        let id: String = form_urlencoded::byte_serialize(self.id.as_bytes()).collect();
        format!("/connections/{id}")
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&printable(&format!("{} ({})", self.address, self.id)))
    }
}
