//! The listening socket of the endpoint, TCP or Unix, and its streams.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use mio::Interest;
use mio::event::Source;

use super::access::Access;
use crate::error::{ConfigError, Error};
use crate::keepalive::Keepalive;
use crate::net::{self, HostPort, SocketOptions};
use crate::server::Server;

/// Backlog: as many clients as there are connections, so that all of them may come at once.
const BACKLOG: u32 = super::MAX_CONNECTIONS as u32;
/// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`), so that a client whose host
/// has vanished does not keep its connection for a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// An address as it is given: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(text.into()),
        })
    }
}

impl Address {
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self, Address::Tcp(_))
    }

    /// Checks the address without listening. Returns the TCP addresses;
    /// [`AdminListener::open`] uses one.
    pub(super) fn check(&self, access: &Access) -> Result<Vec<SocketAddr>, Error> {
        match self.resolve(access)? {
            Resolved::Tcp(addrs) => Ok(addrs),
            Resolved::Unix(path) => net::check_unix(path)
                .map(|()| Vec::new())
                .map_err(Error::io(format!("listen on {self}"))),
        }
    }

    /// The addresses of a listener, if `access` allows them.
    fn resolve(&self, access: &Access) -> Result<Resolved<'_>, Error> {
        match self {
            Address::Tcp(addr) => {
                let addrs = resolve(addr)?;
                for addr in &addrs {
                    access.check_exposure(addr.ip())?;
                }
                Ok(Resolved::Tcp(addrs))
            }
            Address::Unix(path) if path.as_os_str().is_empty() => {
                Err(ConfigError::new("admin", "unix: needs a path").into())
            }
            Address::Unix(path) => Ok(Resolved::Unix(path)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => write!(f, "{addr} for --admin"),
            Address::Unix(path) => write!(f, "unix:{} for --admin", path.display()),
        }
    }
}

/// An address that can be listened on.
enum Resolved<'a> {
    Tcp(Vec<SocketAddr>),
    Unix(&'a Path),
}

pub(super) enum AdminListener {
    Tcp(mio::net::TcpListener),
    /// The file is dropped first: while the socket listens, another server does not replace it.
    Unix(SocketFile, mio::net::UnixListener),
}

impl AdminListener {
    /// Fails, before anything is opened, on an address that `access` does not allow.
    pub(super) fn open(address: &Address, access: &Access) -> Result<Self, Error> {
        let listen = match address.resolve(access)? {
            Resolved::Tcp(addrs) => {
                let options = SocketOptions {
                    keepalive: Some(Keepalive::default()),
                    user_timeout: Some(USER_TIMEOUT),
                };
                // One family may be turned off.
                let mut tried = addrs
                    .into_iter()
                    .map(|addr| net::listen(addr, &options, BACKLOG, false));
                let first = tried
                    .next()
                    .expect("a name that has no address is an error");
                first
                    .or_else(|error| tried.find_map(Result::ok).ok_or(error))
                    .map(AdminListener::Tcp)
            }
            Resolved::Unix(path) => net::listen_unix(path, BACKLOG as i32)
                .and_then(|listener| Ok(AdminListener::Unix(SocketFile::find(path)?, listener))),
        };
        listen.map_err(Error::io(format!("listen on {address}")))
    }

    pub(super) fn register(&mut self, server: &Server, index: usize) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            AdminListener::Tcp(listener) => listener,
            AdminListener::Unix(_, listener) => listener,
        };
        server.register_event_source(source, index, Interest::READABLE)
    }

    /// Accepts the next client, with its name for the log.
    pub(super) fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            AdminListener::Tcp(listener) => listener
                .accept()
                .map(|(stream, peer)| (Stream::Tcp(stream), peer.to_string())),
            AdminListener::Unix(_, listener) => listener
                .accept()
                .map(|(stream, _)| (Stream::Unix(stream), "unix".into())),
        }
    }
}

/// The address in the form that a client needs, if the system still reports it.
impl fmt::Display for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminListener::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => write!(f, "http://{addr}"),
                Err(error) => write!(f, "http: {error}"),
            },
            AdminListener::Unix(file, _) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

/// The addresses of a name.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>, Error> {
    let parsed = HostPort::parse(addr)
        .map_err(|error| ConfigError::new("admin", format!("{error}, or unix:PATH")))?;
    // A name server that is down is no fault of the settings: a later start may succeed.
    let doing = format!("look up {addr} for --admin");
    parsed.resolve().map_err(Error::io(doing))
}

/// The file of a Unix socket. It is removed when the endpoint is dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a socket that another process has put there meanwhile is kept.
    identity: (u64, u64),
}

impl SocketFile {
    fn find(path: &Path) -> io::Result<Self> {
        Ok(SocketFile {
            path: path.into(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // A socket that cannot be removed is replaced by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// A client's connection.
pub(super) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    pub(super) fn register(&mut self, server: &Server, index: usize) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        };
        server.register_event_source(source, index, Interest::READABLE | Interest::WRITABLE)
    }

    /// Shuts the writing side. Errors do not matter: the client is gone then.
    pub(super) fn finish(&self) {
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
