//! The interfaces between an application and its client.

use super::event::{ClientState, Event};
use super::queue::SendQueue;
use super::rtt::RttStats;
use super::session::Session;
use crate::error::SendError;

/// What happens on a client's connection, called on the thread that turns the client. A
/// callback must not block: heartbeats wait meanwhile.
pub trait ClientHandler {
    /// A message arrived. It is borrowed: copy what must be kept. Heartbeats are answered by the
    /// client and not passed on.
    fn on_message(&mut self, client: &mut ClientContext<'_>, message: &[u8]);

    /// An event of the connection. Default: nothing is done.
    fn on_event(&mut self, client: &mut ClientContext<'_>, event: &Event) {
        let _ = (client, event);
    }
}

/// The client, as its handler sees it.
pub struct ClientContext<'a> {
    pub(super) session: &'a mut Session,
    pub(super) queue: &'a mut SendQueue,
}

impl ClientContext<'_> {
    /// Queues a message. It is sent in this turn if the connection is up, or else in order after
    /// the next connect.
    ///
    /// At most once: a message that the kernel has taken whole is never sent again, even if the
    /// connection breaks before the server has read it. A message that was sent in part is sent
    /// again from its beginning on the next connection.
    ///
    /// Fails with [`SendError::Full`] at the bound `max_queue`, [`SendError::Closed`] after
    /// `finish` or once done, and [`SendError::InvalidMessage`]. An empty message under raw framing
    /// does nothing, and succeeds.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        if self.session.is_finishing() || self.session.is_done() {
            return Err(SendError::Closed);
        }
        self.queue.push(message)
    }

    /// Sends what is queued, over any number of connections, then shuts the writing side, delivers
    /// what the server still sends, and is done at the server's end of stream. A server that
    /// neither sends nor closes is waited for as long as the heartbeat allows silence; without a
    /// heartbeat, for ever. Repeated calls change nothing.
    pub fn finish(&mut self) {
        self.session.handle_finish();
    }

    /// Drops the connection and everything queued, now. Repeated calls, and calls once done, change
    /// nothing.
    pub fn stop(&mut self) {
        self.session.handle_stop();
    }

    /// Stops reading from the server, at once: bytes that were read already are kept and decoded
    /// after [`ClientContext::resume_reads`]. Pings are still sent, so the server knows that this
    /// client is alive; unread bytes prove that the server is. Repeated calls change nothing.
    pub fn pause_reads(&mut self) {
        self.session.pause_reads(true);
    }

    /// Reads from the server again. Early and repeated calls change nothing.
    pub fn resume_reads(&mut self) {
        self.session.pause_reads(false);
    }

    /// The state of the client.
    pub fn state(&self) -> ClientState {
        self.session.state()
    }

    /// The number of connections so far, which is the epoch of the latest; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.session.epoch()
    }

    /// Round-trip times of the heartbeats so far.
    pub fn rtt(&self) -> RttStats {
        *self.session.rtt()
    }
}
