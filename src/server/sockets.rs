//! The sockets, by slot.

use mio::net::TcpStream;

use crate::id::ConnId;

/// The socket of each connection, by slot like the engine's slab: the engine has no descriptors.
#[derive(Default)]
pub(super) struct Sockets(Vec<Option<TcpStream>>);

impl Sockets {
    pub(super) fn insert(&mut self, id: ConnId, stream: TcpStream) {
        if self.0.len() <= id.slot() {
            self.0.resize_with(id.slot() + 1, || None);
        }
        self.0[id.slot()] = Some(stream);
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut TcpStream> {
        self.0.get_mut(id.slot())?.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<TcpStream> {
        self.0.get_mut(id.slot())?.take()
    }
}
