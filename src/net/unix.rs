//! Listening on a Unix socket: only the user of this process gets in, and a socket that a crash has
//! left behind is replaced.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// Reading and writing, for the owner alone: connect(2) needs write permission.
const OWNER_ONLY: u32 = 0o600;

/// A second in all, at the start of a program.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A listening Unix socket at `path`, non-blocking, with mode 0600. An existing socket without a
/// listener is replaced; any other file is an error.
///
/// Between bind(2) and listen(2) a socket looks abandoned, so the directory is locked meanwhile
/// (flock(2)): of two processes that start at once, one gets the path.
pub(crate) fn listen_unix(path: &Path, backlog: i32) -> io::Result<mio::net::UnixListener> {
    let _locked = lock(directory(path))?;
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
    // Before it listens: until then no process can connect, whatever the umask allows.
    fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
    socket.listen(backlog)?;
    Ok(mio::net::UnixListener::from_std(socket.into()))
}

/// Fails where [`listen_unix`] would. Creates nothing.
pub(crate) fn check_unix(path: &Path) -> io::Result<()> {
    SockAddr::unix(path)?;
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the existing file is not a socket",
        )),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(access(directory(path), Access::WRITE_OK | Access::EXEC_OK)?),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Locks a directory until the returned file is dropped. Returns `None` if the directory cannot be
/// opened (binding in it may still work), or if another program holds the lock for more than a
/// second.
fn lock(directory: &Path) -> io::Result<Option<fs::File>> {
    let Ok(file) = fs::File::open(directory) else {
        return Ok(None);
    };
    for _ in 0..LOCK_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn is_abandoned(path: &Path, addr: &SockAddr) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue has a listener as well. It is not waited for.
    caller.set_nonblocking(true)?;
    Ok(caller
        .connect(addr)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stale_unix_socket_is_replaced() {
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

    #[test]
    fn one_of_many_concurrent_starts_gets_the_socket_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let barrier = std::sync::Barrier::new(8);
        let listeners = std::thread::scope(|scope| {
            let threads = (0..8).map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    listen_unix(&path, 8).ok()
                })
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            joined.collect::<Vec<_>>()
        });
        assert_eq!(listeners.iter().flatten().count(), 1);
    }
}
