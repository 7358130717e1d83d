//! The way into a client from other threads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use mio::Waker;

use super::queue::SendQueue;
use crate::error::SendError;
use crate::framing::Codec;

/// Sends through a client, and ends it, from any thread. Cheap to clone; it outlives its client
/// without harm.
#[derive(Clone)]
pub struct ClientHandle(Arc<ClientHandleState>);

impl ClientHandle {
    /// Queues a message behind all that this handle and its clones queued before. It never waits.
    ///
    /// Fails with [`SendError::Full`] when `max_queue` bytes wait to be taken over by the client
    /// (32 bytes per message counted), with [`SendError::Closed`] once `finish` or `stop` was
    /// called or the client is gone, and with [`SendError::InvalidMessage`].
    pub fn send(&self, message: &[u8]) -> Result<(), SendError> {
        let charged_len = self.0.charged_len(message)?;
        let mut command_queue = self.0.lock();
        if command_queue.closed {
            return Err(SendError::Closed);
        }
        if command_queue.bytes + charged_len > self.0.max_bytes {
            return Err(SendError::Full);
        }
        command_queue.put(message, charged_len);
        drop(command_queue);
        self.0.wake();
        Ok(())
    }

    /// As [`ClientHandle::send`], but waits for room: for threads that read a file or a terminal,
    /// so that these wait for the server.
    ///
    /// Must not be called on the thread that turns the client, which would wait for itself. Fails
    /// with [`SendError::Full`] only if the message would not even fit an empty queue. Returns with
    /// [`SendError::Closed`] as soon as the client ends.
    pub fn send_blocking(&self, message: &[u8]) -> Result<(), SendError> {
        let charged_len = self.0.charged_len(message)?;
        if charged_len > self.0.max_bytes {
            return Err(SendError::Full);
        }
        let full = |command_queue: &mut CommandQueue| {
            !command_queue.closed && command_queue.bytes + charged_len > self.0.max_bytes
        };
        let mut command_queue = self
            .0
            .room
            .wait_while(self.0.lock(), full)
            .expect(UNPOISONED);
        if command_queue.closed {
            return Err(SendError::Closed);
        }
        command_queue.put(message, charged_len);
        drop(command_queue);
        self.0.wake();
        Ok(())
    }

    /// As [`ClientContext::finish`](super::ClientContext::finish), after all that was queued
    /// before. Never lost, however full the queue is; calling again changes nothing.
    pub fn finish(&self) {
        self.0.close(|command_queue| command_queue.finish = true);
    }

    /// As [`ClientContext::stop`](super::ClientContext::stop). Never lost; calling again changes
    /// nothing.
    pub fn stop(&self) {
        self.0.close(|command_queue| command_queue.stop = true);
    }
}

/// A message in the command queue counts with its header and the overhead of its allocation, so
/// that the bound in bytes also bounds the number of messages. This is more than in the client's
/// own queue, so that what fits the command queue fits there too.
const COMMAND_OVERHEAD: usize = 32;
const _: () = assert!(COMMAND_OVERHEAD > super::queue::MESSAGE_OVERHEAD);

const UNPOISONED: &str = "nothing that can panic runs while the command queue is locked";

/// What handles and client share.
pub(super) struct ClientHandleState {
    command_queue: Mutex<CommandQueue>,
    /// Signalled when the command queue gets room or is closed.
    room: Condvar,
    waker: Waker,
    /// Whether the client was woken and has not read the queue since: one system call wakes it for
    /// any number of messages.
    woken: AtomicBool,
    codec: Codec,
    max_bytes: usize,
}

#[derive(Default)]
struct CommandQueue {
    messages: VecDeque<Vec<u8>>,
    /// The charges of the messages.
    bytes: usize,
    /// No message is taken any more.
    closed: bool,
    finish: bool,
    stop: bool,
}

impl CommandQueue {
    fn put(&mut self, message: &[u8], charged_len: usize) {
        self.bytes += charged_len;
        self.messages.push_back(message.to_vec());
    }
}

/// What the command queue held beside messages.
pub(super) struct Taken {
    pub(super) stop: bool,
    pub(super) finish: bool,
    /// Messages are left for which the client's queue has no room yet.
    pub(super) left: bool,
}

impl ClientHandleState {
    pub(super) fn new(waker: Waker, codec: Codec, max_bytes: usize) -> Arc<Self> {
        Arc::new(ClientHandleState {
            command_queue: Mutex::default(),
            room: Condvar::new(),
            waker,
            woken: AtomicBool::new(false),
            codec,
            max_bytes,
        })
    }

    pub(super) fn handle(self: &Arc<Self>) -> ClientHandle {
        ClientHandle(Arc::clone(self))
    }

    /// Moves messages to the client's queue while it has room.
    pub(super) fn take(&self, queue: &mut SendQueue) -> Taken {
        // Called before the command queue is read: a command that is queued later wakes the client
        // again.
        self.woken.store(false, Ordering::SeqCst);
        let mut command_queue = self.lock();
        let mut taken = false;
        while let Some(message) = command_queue.messages.front()
            && queue.push(message) != Err(SendError::Full)
        {
            command_queue.bytes -= self
                .charged_len(message)
                .expect("framed once, framed again");
            command_queue.messages.pop_front();
            taken = true;
        }
        if taken {
            self.room.notify_all();
        }
        Taken {
            stop: command_queue.stop,
            finish: command_queue.finish,
            left: !command_queue.messages.is_empty(),
        }
    }

    /// Takes no more messages. Threads that wait for room return.
    pub(super) fn shut(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }

    fn close(&self, how: impl FnOnce(&mut CommandQueue)) {
        let mut command_queue = self.lock();
        command_queue.closed = true;
        how(&mut command_queue);
        drop(command_queue);
        self.room.notify_all();
        self.wake();
    }

    fn charged_len(&self, message: &[u8]) -> Result<usize, SendError> {
        Ok(self
            .codec
            .encoded_len(&[message])?
            .saturating_add(COMMAND_OVERHEAD))
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // The next caller tries again.
            self.woken.store(false, Ordering::SeqCst);
            log::error!("client-wake-failed error={error:?}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, CommandQueue> {
        self.command_queue.lock().expect(UNPOISONED)
    }
}
