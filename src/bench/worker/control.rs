//! The worker's ear for its coordinator: plan and orders, a line of JSON each, on stdin.

use std::io::{self, Read};
use std::os::fd::AsFd;

use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};
use serde::de::DeserializeOwned;

/// The coordinator's pipe.
pub(super) struct Control {
    pipe: Receiver,
    read: Vec<u8>,
    ended: bool,
}

impl Control {
    /// Takes stdin, which must be a pipe.
    pub(super) fn from_stdin() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Control {
            pipe: Receiver::from(stdin),
            read: Vec::new(),
            ended: false,
        })
    }

    /// Waits for the first line; from then on `registry` reports further ones.
    pub(super) fn first<T: DeserializeOwned>(
        &mut self,
        registry: &Registry,
        token: Token,
    ) -> io::Result<T> {
        let first = loop {
            if let Some(first) = self.take_line() {
                break first?;
            }
            if self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read_some()?;
        };
        self.pipe.set_nonblocking(true)?;
        registry.register(&mut self.pipe, token, Interest::READABLE)?;
        Ok(first)
    }

    /// Reads what there is.
    pub(super) fn handle_event(&mut self) -> io::Result<()> {
        while !self.ended {
            match self.read_some() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next line that was read.
    pub(super) fn take_line<T: DeserializeOwned>(&mut self) -> Option<io::Result<T>> {
        let end = memchr::memchr(b'\n', &self.read)?;
        let parsed = serde_json::from_slice(&self.read[..end]).map_err(io::Error::from);
        self.read.drain(..=end);
        Some(parsed)
    }

    /// Whether the coordinator has hung up.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    fn read_some(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.pipe.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(n) => self.read.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
