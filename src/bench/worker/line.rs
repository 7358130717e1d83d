//! One connection of the load: its socket, unwritten bytes, and messages in flight.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;

use crate::bench::scan::Scan;

/// A connection of the plan. There are thousands, so it is small; queues take memory only while
/// something is in them.
#[derive(Default)]
pub(super) struct LoadConnection {
    /// `None` before the dial and after the end.
    pub(super) stream: Option<TcpStream>,
    pub(super) group: u16,
    pub(super) established: bool,
    /// Sends nothing any more; the server must find it out.
    pub(super) mute: bool,
    /// In the list of those that have more to read.
    pub(super) ready: bool,
    /// An event announced the end of stream. No further event does, so reading goes on until it is
    /// reached.
    pub(super) end_in_sight: bool,
    pub(super) scan: Scan,
    /// Messages that were pushed to it.
    pub(super) received: u32,
    pub(super) dialled_ns: u64,
    /// Just before its last byte was written.
    pub(super) last_sent_ns: u64,
    /// When the messages that have no reply yet were intended to be sent, oldest first.
    pub(super) outstanding: VecDeque<u64>,
    unwritten: Vec<u8>,
}

/// The result of a read.
pub(super) enum LineRead {
    /// This many bytes, and whether there may be more.
    Bytes(usize, bool),
    Nothing,
    /// The connection has ended, and why.
    End(&'static str),
}

impl LoadConnection {
    pub(super) fn of_group(group: u16) -> Self {
        LoadConnection {
            group,
            ..LoadConnection::default()
        }
    }

    pub(super) fn is_stuck(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// How the dial went; `Ok(false)`: it is still under way.
    pub(super) fn finish_dial(&mut self, addr: SocketAddr) -> io::Result<bool> {
        let Some(stream) = &self.stream else {
            return Ok(false);
        };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        // TCP's simultaneous open: without a listener on a port of the ephemeral range, a dial
        // may connect to itself.
        if stream.local_addr()? == addr {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.established = true;
        Ok(true)
    }

    /// Writes, and keeps what the kernel does not take. Fails if the connection is broken; a read
    /// returns the cause.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_stuck() {
            self.unwritten.extend_from_slice(bytes);
            return Ok(());
        }
        let taken = self.write_some(bytes)?;
        self.unwritten.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Writes what was kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.is_stuck() {
            let unwritten = std::mem::take(&mut self.unwritten);
            let taken = self.write_some(&unwritten)?;
            self.unwritten.extend_from_slice(&unwritten[taken..]);
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else {
            return Ok(bytes.len());
        };
        loop {
            match stream.write(bytes) {
                Ok(taken) => return Ok(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// One read. A short one has emptied the socket, unless an end of stream was announced.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> LineRead {
        let Some(stream) = &mut self.stream else {
            return LineRead::Nothing;
        };
        loop {
            return match stream.read(buffer) {
                Ok(0) => LineRead::End(CLOSED_BY_SERVER),
                Ok(n) => LineRead::Bytes(n, n == buffer.len() || self.end_in_sight),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.end_in_sight = false;
                    LineRead::Nothing
                }
                Err(error) => LineRead::End(cause(&error)),
            };
        }
    }
}

pub(super) const CLOSED_BY_SERVER: &str = "closed-by-server";
pub(super) const TIMEOUT: &str = "timeout";

/// Why a connection could not be made or has ended, in the words of the report.
pub(super) fn cause(error: &io::Error) -> &'static str {
    use rustix::io::Errno;

    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => return "no-descriptors",
        Some(Errno::NOBUFS | Errno::NOMEM) => return "no-memory",
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut => TIMEOUT,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "reset",
        // The kernel reports the first when it looks for a port at the dial, the second when it
        // does so for a source address.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => "no-ports",
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => "unreachable",
        io::ErrorKind::PermissionDenied => "forbidden",
        _ => "other",
    }
}
