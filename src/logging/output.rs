//! Writing to a descriptor whose reader is another program, without ever waiting for it: a log, a
//! pipe, a terminal.
//!
//! `O_NONBLOCK` belongs to the open file description, which other processes share. So a pipe, a
//! FIFO and a terminal are opened anew (`/proc/self/fd/N`, proc(5)), and writes to a socket have
//! `MSG_DONTWAIT` (send(2)). For a file, whose writes wait for its disk, and for whatever cannot be
//! opened anew, a thread writes. It exists only then: with a second thread the kernel counts
//! references to descriptors, which costs each system call a little.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::time::Timespec;
use socket2::SockRef;

/// How often the loop checks a thread that writes.
const RETRY: Duration = Duration::from_millis(20);

/// A descriptor, and bytes that wait for it to take them.
pub(crate) struct Output {
    to: To,
    pending: Vec<u8>,
    /// The most that waits.
    max_pending: usize,
}

enum To {
    /// It does not wait.
    NonBlocking(File),
    Socket(OwnedFd),
    Thread(Arc<WriterQueue>),
}

impl Output {
    /// Writes to an inherited descriptor, such as stderr, with at most `max_pending` bytes waiting.
    pub(crate) fn inherited(fd: BorrowedFd<'_>, max_pending: usize) -> io::Result<Self> {
        let to = match file_type(fd)? {
            FileType::Fifo | FileType::CharacterDevice => match open_anew(fd) {
                Ok(file) => To::NonBlocking(file),
                Err(_) => To::Thread(start_thread(fd.try_clone_to_owned()?.into())?),
            },
            FileType::Socket => To::Socket(fd.try_clone_to_owned()?),
            _ => To::Thread(start_thread(fd.try_clone_to_owned()?.into())?),
        };
        Ok(Output::new(to, max_pending))
    }

    /// Writes to a file that was opened with `O_NONBLOCK`.
    pub(crate) fn opened(file: File, max_pending: usize) -> io::Result<Self> {
        let to = match file_type(file.as_fd())? {
            FileType::Fifo | FileType::CharacterDevice => To::NonBlocking(file),
            _ => To::Thread(start_thread(file)?),
        };
        Ok(Output::new(to, max_pending))
    }

    fn new(to: To, max_pending: usize) -> Self {
        Output {
            to,
            pending: Vec::new(),
            max_pending,
        }
    }

    /// Writes all of `bytes` or queues them. `Ok(false)` if there is no room for them: then nothing
    /// of them is written. Fails if the reader is gone.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.flush()?;
        let has_room = self.push(bytes);
        self.flush()?;
        Ok(has_room)
    }

    /// Queues all of `bytes` for [`Output::flush`]. `false` if there is no room for them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if let To::Thread(shared) = &self.to {
            return shared.push(bytes, self.max_pending);
        }
        let has_room = self.pending.len() + bytes.len() <= self.max_pending;
        if has_room {
            self.pending.extend_from_slice(bytes);
        }
        has_room
    }

    /// Bytes that wait.
    pub(crate) fn pending(&self) -> usize {
        match &self.to {
            To::Thread(shared) => shared.lock().bytes.len(),
            _ => self.pending.len(),
        }
    }

    /// Writes what waits, as far as it is taken without waiting. Returns whether nothing waits any
    /// more. If the reader is gone, what waits is lost.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        if let To::Thread(shared) = &self.to {
            return shared.is_idle();
        }
        if self.pending.is_empty() {
            return Ok(true);
        }
        match self.to.write(&self.pending) {
            Ok(written) => {
                self.pending.drain(..written);
                Ok(self.pending.is_empty())
            }
            Err(error) => {
                self.pending.clear();
                Err(error)
            }
        }
    }

    /// Waits until some of what waits may be taken or `other` is readable, for at most `limit`.
    pub(crate) fn wait(&self, other: BorrowedFd<'_>, limit: Option<Duration>) {
        let other = PollFd::from_borrowed_fd(other, PollFlags::IN);
        match &self.to {
            To::Thread(_) => poll_for(&mut [other], Some(limit.unwrap_or(RETRY).min(RETRY))),
            to => poll_for(&mut [other, PollFd::new(to, PollFlags::OUT)], limit),
        }
    }

    /// Waits for at most `limit` until all is written: for the end of the process, which does
    /// not wait for this thread.
    pub(crate) fn finish(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        if let To::Thread(shared) = &self.to {
            return shared.wait_until_idle(end);
        }
        while let Ok(false) = self.flush() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            poll_for(&mut [PollFd::new(&self.to, PollFlags::OUT)], Some(left));
        }
    }
}

/// An interrupted wait counts as one that has ended.
fn poll_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let _ = poll(fds, limit.as_ref());
}

impl To {
    /// As much as is taken without waiting; 0 if nothing is.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                To::NonBlocking(file) => file.write(bytes),
                To::Socket(socket) => {
                    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                    SockRef::from(&*socket).send_with_flags(bytes, flags)
                }
                To::Thread(_) => unreachable!("a thread takes its bytes by itself"),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }
}

impl AsFd for To {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            To::NonBlocking(file) => file.as_fd(),
            To::Socket(socket) => socket.as_fd(),
            To::Thread(_) => unreachable!("a thread has its descriptor to itself"),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let To::Thread(shared) = &self.to {
            shared.close();
        }
    }
}

fn file_type(fd: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

fn open_anew(fd: BorrowedFd<'_>) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The state that the writer thread of a slow file shares with the loop.
struct WriterQueue {
    queue: Mutex<PendingLines>,
    changed: Condvar,
}

#[derive(Default)]
struct PendingLines {
    bytes: Vec<u8>,
    writing: bool,
    closed: bool,
    /// The error of the last write.
    error: Option<io::Error>,
}

impl WriterQueue {
    /// Held for a copy at most, never while something is written.
    fn lock(&self) -> MutexGuard<'_, PendingLines> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8], max: usize) -> bool {
        let mut queue = self.lock();
        let has_room = queue.bytes.len() + bytes.len() <= max;
        if has_room {
            queue.bytes.extend_from_slice(bytes);
            self.changed.notify_all();
        }
        has_room
    }

    /// Fails once if something could not be written.
    fn is_idle(&self) -> io::Result<bool> {
        let mut queue = self.lock();
        match queue.error.take() {
            Some(error) => Err(error),
            None => Ok(queue.bytes.is_empty() && !queue.writing),
        }
    }

    fn wait_until_idle(&self, end: Instant) {
        let mut queue = self.lock();
        while !queue.bytes.is_empty() || queue.writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn run(&self, mut file: File) {
        loop {
            let mut queue = self.lock();
            queue.writing = false;
            self.changed.notify_all();
            while queue.bytes.is_empty() {
                if queue.closed {
                    return;
                }
                let waited = self.changed.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
            }
            queue.writing = true;
            let bytes = std::mem::take(&mut queue.bytes);
            drop(queue);
            if let Err(error) = file.write_all(&bytes) {
                self.lock().error = Some(error);
            }
        }
    }
}

fn start_thread(file: File) -> io::Result<Arc<WriterQueue>> {
    let shared = Arc::new(WriterQueue {
        queue: Mutex::default(),
        changed: Condvar::new(),
    });
    let theirs = Arc::clone(&shared);
    thread::Builder::new()
        .name("output".into())
        .stack_size(64 * 1024)
        .spawn(move || theirs.run(file))?;
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Fills the buffer completely, and returns what it has accepted.
    fn fill(output: &mut Output) -> Vec<u8> {
        let mut taken = Vec::new();
        for n in 0..100_000 {
            let line = format!("line {n}\n");
            if !output.write(line.as_bytes()).expect("somebody may read") {
                return taken;
            }
            taken.extend_from_slice(line.as_bytes());
        }
        panic!("it takes more than a pipe and its own buffer can hold");
    }

    fn assert_bounded(mut output: Output, mut reader: impl Read) {
        let taken = fill(&mut output);
        assert!(!output.flush().expect("somebody may read"));
        let mut read = vec![0; taken.len()];
        let mut at = 0;
        while at < taken.len() {
            at += reader.read(&mut read[at..]).expect("there is more");
            output.flush().expect("somebody reads");
        }
        assert_eq!(read, taken, "whole lines, in order");
        assert!(output.flush().expect("somebody reads"));
        assert!(output.write(b"more\n").expect("somebody reads"));
    }

    #[test]
    fn unread_pipe_takes_whole_lines_up_to_the_limit() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let output = Output::inherited(writer.as_fd(), 4096).expect("it can be opened anew");
        assert!(matches!(output.to, To::NonBlocking(_)));
        drop(writer);
        assert_bounded(output, reader);
    }

    #[test]
    fn unread_socket_takes_whole_lines_up_to_the_limit() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        let output = Output::inherited(writer.as_fd(), 4096).expect("a descriptor is free");
        drop(writer);
        assert_bounded(output, reader);
    }

    #[test]
    fn inherited_descriptor_keeps_its_flags() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        let _output = Output::inherited(writer.as_fd(), 4096).expect("it can be opened anew");
        let flags = rustix::fs::fcntl_getfl(&writer).expect("its flags");
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn file_output_writes_everything_on_a_thread() {
        let mut file = tempfile::tempfile().expect("a file");
        let mut output = Output::inherited(file.as_fd(), 4096).expect("a thread");
        assert!(output.write(b"one\n").expect("there is room"));
        assert!(!output.write(&[b'x'; 5000]).expect("there is no room"));
        output.finish(Duration::from_secs(10));
        let mut text = String::new();
        io::Seek::rewind(&mut file).expect("a file");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "one\n");
    }

    #[test]
    fn closed_reader_is_an_error() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut output = Output::inherited(writer.as_fd(), 4096).expect("it can be opened anew");
        drop((reader, writer));
        assert_eq!(
            output.write(b"x").expect_err("nobody reads").kind(),
            ErrorKind::BrokenPipe
        );
    }
}
