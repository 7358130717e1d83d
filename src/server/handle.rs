//! The server, for other threads.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel as unbounded};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::Waker;

use crate::engine::{Close, Context};
use crate::error::SendError;
use crate::framing::Codec;
use crate::id::ConnId;

/// Commands that wait at most. A thread that is faster than the server gets
/// [`SendError::Full`].
const QUEUED_COMMANDS: usize = 4096;

pub(super) enum Command {
    Send(ConnId, Vec<u8>),
    Broadcast(Vec<u8>),
    Close(ConnId, Close),
    Run(Task),
}

/// A closure for the server's thread.
pub(super) type Task = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// Reaches a running server from other threads: cheap to clone, safe to keep after the server has
/// stopped.
///
/// Commands are carried out at the beginning of the next turn, those of one thread in the order in
/// which it gave them. `Ok` means that a command was queued; a message for a connection that has
/// closed by then is dropped.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    shared: Arc<HandleState>,
}

#[derive(Debug)]
struct HandleState {
    waker: Waker,
    /// Commands that wait. The channel itself has no bound: one that has takes the memory for all
    /// of them at once.
    queued: AtomicUsize,
    /// Whether the server was woken and has not read the queue since: one system call serves any
    /// number of commands.
    woken: AtomicBool,
    /// Apart from the queue, so that it can never be full.
    shutdown: Mutex<Option<Duration>>,
    /// No command will be carried out any more.
    closed: AtomicBool,
    /// Checks that messages can be sent.
    codec: Codec,
}

/// The server's end.
pub(super) struct Commands {
    queue: Receiver<Command>,
    shared: Arc<HandleState>,
}

pub(super) fn channel(waker: Waker, codec: Codec) -> (Handle, Commands) {
    let (sender, queue) = unbounded();
    let shared = Arc::new(HandleState {
        waker,
        queued: AtomicUsize::new(0),
        woken: AtomicBool::new(false),
        shutdown: Mutex::new(None),
        closed: AtomicBool::new(false),
        codec,
    });
    (
        Handle {
            commands: sender,
            shared: Arc::clone(&shared),
        },
        Commands { queue, shared },
    )
}

impl Handle {
    /// Queues a message for one connection.
    ///
    /// [`SendError::Full`]: too many commands wait; try again later. [`SendError::Closed`]: the
    /// server has stopped. [`SendError::InvalidMessage`]: the framing cannot carry the message.
    pub fn send(&self, id: ConnId, message: impl Into<Vec<u8>>) -> Result<(), SendError> {
        let message = message.into();
        self.shared.codec.encoded_len(&[&message])?;
        self.push(Command::Send(id, message))
    }

    /// Queues a message for every connection that is open when the server gets to it. Errors as for
    /// [`Handle::send`].
    pub fn broadcast(&self, message: impl Into<Vec<u8>>) -> Result<(), SendError> {
        let message = message.into();
        self.shared.codec.encoded_len(&[&message])?;
        self.push(Command::Broadcast(message))
    }

    /// Closes a connection; does nothing if it is closed by then. Errors as for [`Handle::send`].
    pub fn close(&self, id: ConnId, how: Close) -> Result<(), SendError> {
        self.push(Command::Close(id, how))
    }

    /// Runs a closure on the server's thread, at the beginning of its next turn. It sees the server
    /// as a handler does: it can send to many connections, read snapshots, and close.
    ///
    /// Like a callback it must not block: it delays every connection. A panic in it is one of the
    /// handler's. If the server has stopped by then, the closure is dropped without a call.
    ///
    /// [`SendError::Full`]: too many commands wait; try again later. [`SendError::Closed`]: the
    /// server has stopped.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = heartline::Server::bind("127.0.0.1:0", heartline::Config::default())?;
    /// let handle = server.handle();
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// handle.run(move |cx| drop(sender.send(cx.connections())))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(
        &self,
        task: impl FnOnce(&mut Context<'_>) + Send + 'static,
    ) -> Result<(), SendError> {
        self.push(Command::Run(Box::new(task)))
    }

    /// Begins to shut down the server: it stops accepting, answers what it has received, and closes
    /// each connection at a random instant within `grace`, at the end of which the remaining ones
    /// are cut off. `run` returns when none is left.
    ///
    /// Never fails and is never lost. A repeated call can only bring the end forward;
    /// `Duration::ZERO` ends at once.
    pub fn shutdown(&self, grace: Duration) {
        let mut shutdown = self
            .shared
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *shutdown = Some(shutdown.map_or(grace, |earlier| earlier.min(grace)));
        drop(shutdown);
        self.wake();
    }

    fn push(&self, command: Command) -> Result<(), SendError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        let queued = match self.shared.queued.fetch_add(1, Ordering::Relaxed) {
            QUEUED_COMMANDS.. => Err(SendError::Full),
            _ => self.commands.send(command).map_err(|_| SendError::Closed),
        };
        match queued {
            Ok(()) => self.wake(),
            Err(_) => drop(self.shared.queued.fetch_sub(1, Ordering::Relaxed)),
        }
        queued
    }

    pub(super) fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::SeqCst)
            && let Err(error) = self.shared.waker.wake()
        {
            // The next caller tries again.
            self.shared.woken.store(false, Ordering::SeqCst);
            log::error!("waker error={error}");
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("queued", &self.shared.queued)
            .field("closed", &self.shared.closed)
            .finish_non_exhaustive()
    }
}

impl Commands {
    /// Called before the queue is read: a command that is queued later wakes the server again.
    pub(super) fn clear_wake_flag(&self) {
        self.shared.woken.store(false, Ordering::SeqCst);
    }

    pub(super) fn next(&self) -> Option<Command> {
        let command = self.queue.try_recv().ok()?;
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        Some(command)
    }

    /// The server has stopped: commands that wait are dropped, and no more are taken.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        while self.next().is_some() {}
    }

    pub(super) fn take_shutdown(&self) -> Option<Duration> {
        self.shared
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
