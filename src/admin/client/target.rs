//! Where an admin endpoint is.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::HostPort;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// HOST:PORT.
    Tcp(String),
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("write unix:PATH".to_string())
            } else {
                Ok(Target::Unix(path.into()))
            };
        }
        if text.starts_with("https://") {
            return Err(
                "the admin endpoint has no TLS; use a tunnel and write http://HOST:PORT"
                    .to_string(),
            );
        }
        let authority = text
            .strip_prefix("http://")
            .map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        // A name goes into the header unchanged.
        let is_printable = |char: char| char.is_ascii_graphic() && !"/@?#".contains(char);
        let well_formed = authority.chars().all(is_printable)
            && HostPort::parse(authority).is_ok_and(|parsed| parsed.port > 0);
        if well_formed {
            Ok(Target::Tcp(authority.to_string()))
        } else {
            Err("write HOST:PORT, http://HOST:PORT or unix:PATH".to_string())
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(authority) => f.write_str(authority),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// The value of the `Host` header.
    pub(super) fn host(&self) -> &str {
        match self {
            Target::Tcp(authority) => authority,
            Target::Unix(_) => "localhost",
        }
    }

    /// Connects by `deadline`; a name with several addresses is tried at each.
    pub(super) fn connect(&self, deadline: Instant) -> io::Result<AdminStream> {
        match self {
            Target::Tcp(authority) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                let parsed = HostPort::parse(authority).map_err(io::Error::other)?;
                for addr in parsed.resolve()? {
                    match TcpStream::connect_timeout(&addr, remaining(deadline)?) {
                        Ok(stream) => return Ok(AdminStream::Tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Target::Unix(path) => {
                // By way of socket2, whose connect has a timeout: a full backlog would block.
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.connect_timeout(&SockAddr::unix(path)?, remaining(deadline)?)?;
                Ok(AdminStream::Unix(socket.into()))
            }
        }
    }
}

/// The time until `deadline`; an error if it has passed.
pub(super) fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

pub(super) enum AdminStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AdminStream {
    pub(super) fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = Some(remaining(deadline)?);
            let written = match self {
                AdminStream::Tcp(stream) => stream
                    .set_write_timeout(left)
                    .and_then(|()| stream.write(rest)),
                AdminStream::Unix(stream) => stream
                    .set_write_timeout(left)
                    .and_then(|()| stream.write(rest)),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = Some(remaining(deadline)?);
            let read = match self {
                AdminStream::Tcp(stream) => stream
                    .set_read_timeout(left)
                    .and_then(|()| stream.read(buffer)),
                AdminStream::Unix(stream) => stream
                    .set_read_timeout(left)
                    .and_then(|()| stream.read(buffer)),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_forms() {
        for (text, shown, host) in [
            ("127.0.0.1:7879", "127.0.0.1:7879", "127.0.0.1:7879"),
            ("http://localhost:7879/", "localhost:7879", "localhost:7879"),
            ("[::1]:7879", "[::1]:7879", "[::1]:7879"),
            (
                "unix:/run/heartline/admin",
                "unix:/run/heartline/admin",
                "localhost",
            ),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(
                (target.to_string().as_str(), target.host()),
                (shown, host),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_values_are_rejected() {
        for text in [
            "",
            "nowhere",
            "127.0.0.1",
            ":7879",
            "::1:7879",
            "host:0",
            "host:65536",
            "http://a:1/status",
            "a b:1",
            "a\r\nb:1",
            "unix:",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
        assert!(
            "https://host:7879"
                .parse::<Target>()
                .is_err_and(|problem| problem.contains("tunnel"))
        );
    }
}
