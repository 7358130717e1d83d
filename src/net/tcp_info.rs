//! What the kernel knows about a peer: which bytes it has acknowledged, and for how long it has
//! acknowledged nothing.
//!
//! The only unsafe code of the crate: no safe wrapper reads `TCP_INFO` or `SIOCOUTQ`.
#![allow(unsafe_code)]

use std::time::Duration;

use mio::net::TcpStream;

/// For how long the peer's kernel has acknowledged nothing although something sent is outstanding
/// (`tcpi_unacked`, `tcpi_last_ack_recv` of tcp(7)'s `TCP_INFO`). `None` if nothing is outstanding,
/// and where the system does not report it.
///
/// A peer whose window is closed has nothing outstanding: its kernel answers the probes.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn unacknowledged_for(stream: &TcpStream) -> Option<Duration> {
    let info = tcp_info(stream).filter(|info| info.tcpi_unacked > 0)?;
    Some(Duration::from_millis(info.tcpi_last_ack_recv.into()))
}

/// How long ago the kernel received the last bytes of the peer, read or not
/// (`tcpi_last_data_recv`). `None` where the system does not report it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn received_before(stream: &TcpStream) -> Option<Duration> {
    let info = tcp_info(stream)?;
    Some(Duration::from_millis(info.tcpi_last_data_recv.into()))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn tcp_info(stream: &TcpStream) -> Option<libc::tcp_info> {
    use std::os::fd::AsRawFd;

    // SAFETY: all of its fields are integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`, which has as many and outlives the
    // call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (result == 0).then_some(info)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn unacknowledged_for(_: &TcpStream) -> Option<Duration> {
    None
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn received_before(_: &TcpStream) -> Option<Duration> {
    None
}

/// How many bytes written to `stream` the peer's kernel has not acknowledged, sent or not
/// (`SIOCOUTQ` of tcp(7)). A FIN that was sent and not acknowledged counts as one byte. `None`
/// where the system does not report it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn unacknowledged_bytes(stream: &TcpStream) -> Option<usize> {
    use std::os::fd::AsRawFd;

    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one `int` into `bytes`, which outlives the call. `SIOCOUTQ` has the
    // number of `TIOCOUTQ`.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        usize::try_from(bytes).ok()
    } else {
        None
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn unacknowledged_bytes(_: &TcpStream) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Outstanding bytes take a network that loses them: see the tests in namespaces.
    #[test]
    fn unread_bytes_in_the_peers_kernel_are_acknowledged() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut dialled =
            std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("a dial");
        let _accepted = listener.accept().expect("a connection");
        dialled.write_all(b"nobody reads this").expect("room");
        let stream = TcpStream::from_std(dialled);
        for _ in 0..1000 {
            if unacknowledged_for(&stream).is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("loopback acknowledges within 5 s");
    }

    #[test]
    fn unacknowledged_bytes_fall_as_the_peer_reads() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("bound");
        let mut dialled = std::net::TcpStream::connect(address).expect("a dial");
        let (mut accepted, _) = listener.accept().expect("a connection");
        dialled.set_nonblocking(true).expect("fcntl");
        let mut written = 0;
        while let Ok(count) = dialled.write(&[b'x'; 65_536]) {
            written += count;
        }
        let stream = TcpStream::from_std(dialled);
        let full = unacknowledged_bytes(&stream).expect("the kernel tells");
        assert!(full > 0, "the buffers of both ends are full");
        accepted
            .read_exact(&mut vec![0; written])
            .expect("all of it");
        for _ in 0..1000 {
            if unacknowledged_bytes(&stream) == Some(0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("loopback acknowledges within 5 s");
    }
}
