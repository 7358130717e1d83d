//! Listening on a Unix socket: only the user of this process gets in, and a socket that a crash has left behind is replaced.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// Reading and writing, for the owner alone: connect(2) asks for the latter.
const OWNER_ONLY: u32 = 0o600;

/// A listening Unix socket at `path`, non-blocking, with mode 0600. What is there already is replaced if it is a socket that nobody listens on.
pub(crate) fn listen_unix(path: &Path, backlog: i32) -> io::Result<mio::net::UnixListener> {
    let addr = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path, &addr)? => {
            fs::remove_file(path)?;
            socket.bind(&addr)?;
        }
        bound => bound?,
    }
    // Before it listens: until then nobody can connect, whatever the umask has left open.
    fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
    socket.listen(backlog)?;
    Ok(mio::net::UnixListener::from_std(socket.into()))
}

fn is_abandoned(path: &Path, addr: &SockAddr) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A queue that is full is somebody's as well: it must not be waited for.
    caller.set_nonblocking(true)?;
    Ok(caller
        .connect(addr)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let first = listen_unix(&path, 8).expect("a listener");
        assert_eq!(
            fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode()
                & 0o777,
            OWNER_ONLY
        );
        assert_eq!(
            listen_unix(&path, 8).expect_err("somebody listens").kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        listen_unix(&path, 8).expect("the abandoned one is replaced");

        let file = dir.path().join("file");
        fs::write(&file, "precious").expect("written");
        assert_eq!(
            listen_unix(&file, 8).expect_err("it is no socket").kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    }
}
