//! Listening and dialling sockets, with the options of long-lived connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::keepalive::Keepalive;

/// How many unsent bytes the kernel takes for one connection before `write(2)` fails with `EAGAIN`
/// (`TCP_NOTSENT_LOWAT` of tcp(7)). The socket becomes writable again at half of it. Without a
/// limit the kernel takes up to `tcp_wmem` (4 MB), which the memory limit does not count.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) const MAX_UNSENT: u32 = 64 << 10;

/// The options of a long-lived connection.
#[derive(Clone, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) user_timeout: Option<Duration>,
}

impl SocketOptions {
    /// Sets keepalive, user timeout, a limit on unsent bytes ([`MAX_UNSENT`]), and `TCP_NODELAY`:
    /// messages are small and written once per turn, so waiting for more only adds delay.
    fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        match &self.keepalive {
            Some(keepalive) => {
                let params = TcpKeepalive::new()
                    .with_time(keepalive.idle)
                    .with_interval(keepalive.interval)
                    .with_retries(keepalive.count);
                socket.set_tcp_keepalive(&params)?;
            }
            None => socket.set_keepalive(false)?,
        }
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        socket.set_tcp_user_timeout(self.user_timeout)?;
        #[cfg(any(target_os = "android", target_os = "linux"))]
        socket.set_tcp_notsent_lowat(MAX_UNSENT)?;
        Ok(())
    }

    /// Sets what connections inherit that are accepted from now on.
    pub(crate) fn apply_to_listener(&self, listener: &mio::net::TcpListener) -> io::Result<()> {
        self.apply(&SockRef::from(listener))
    }

    /// Sets up a connection that was accepted from one of these listeners. On Linux there is
    /// nothing to do: it has inherited every option from the listener, which saves five system
    /// calls per connection.
    pub(crate) fn apply_to_accepted(&self, stream: &mio::net::TcpStream) -> io::Result<()> {
        if cfg!(target_os = "linux") {
            Ok(())
        } else {
            self.apply(&SockRef::from(stream))
        }
    }
}

/// A listening socket, non-blocking. IPv6 sockets serve IPv6 only, so `[::]:7878` and
/// `0.0.0.0:7878` can be listened on together.
pub(crate) fn listen(
    addr: SocketAddr,
    options: &SocketOptions,
    backlog: u32,
    reuse_port: bool,
) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Otherwise a restart would have to wait for the last server's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    options.apply(&SockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Takes over a listening socket that another process has bound, as a service manager does: its
/// address, backlog and sharing stay.
pub(crate) fn take_over(
    listener: std::net::TcpListener,
    options: &SocketOptions,
) -> io::Result<mio::net::TcpListener> {
    let socket = SockRef::from(&listener);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if !socket.is_listener()? {
        return Err(io::Error::other(
            "it does not listen (a connection, as Accept=yes of systemd.socket(5) passes it?)",
        ));
    }
    options.apply(&socket)?;
    listener.set_nonblocking(true)?;
    Ok(mio::net::TcpListener::from_std(listener))
}

/// Begins to connect, without waiting. The stream becomes writable when the attempt is over;
/// `take_error` then returns its result.
pub(crate) fn dial(addr: SocketAddr, options: &SocketOptions) -> io::Result<mio::net::TcpStream> {
    let stream = mio::net::TcpStream::connect(addr)?;
    options.apply(&SockRef::from(&stream))?;
    Ok(stream)
}

/// Makes the later close of a connection a reset: the kernel keeps neither buffers nor the port.
pub(crate) fn reset_on_close(stream: &mio::net::TcpStream) {
    // Without it the connection takes its leave as any other does, which is slower and no worse.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> SocketOptions {
        let keepalive = Keepalive {
            idle: Duration::from_secs(11),
            interval: Duration::from_secs(7),
            count: 5,
        };
        SocketOptions {
            keepalive: Some(keepalive),
            user_timeout: Some(Duration::from_secs(90)),
        }
    }

    fn assert_set_up(stream: &mio::net::TcpStream) {
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().expect("getsockopt"));
        assert!(socket.tcp_nodelay().expect("getsockopt"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("getsockopt"),
            Duration::from_secs(11)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().expect("getsockopt"),
            Duration::from_secs(7)
        );
        assert_eq!(socket.tcp_keepalive_retries().expect("getsockopt"), 5);
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("getsockopt"),
            Some(Duration::from_secs(90))
        );
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_notsent_lowat().expect("getsockopt"), MAX_UNSENT);
    }

    /// This saves the calls per accepted connection: it inherits the options of the listener.
    #[test]
    fn socket_options_are_set_on_both_ends() {
        let listener = listen(
            "127.0.0.1:0".parse().expect("an address"),
            &options(),
            16,
            false,
        )
        .expect("a listener");
        let dialled = dial(listener.local_addr().expect("bound"), &options()).expect("a dial");
        let accepted = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        options().apply_to_accepted(&accepted).expect("options");
        assert_set_up(&dialled);
        assert_set_up(&accepted);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn socket_that_does_not_listen_is_refused() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let addr: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        bound.bind(&addr.into()).expect("a port");
        let error = take_over(bound.into(), &options()).expect_err("it does not listen");
        assert!(
            error.to_string().starts_with("it does not listen"),
            "{error}"
        );
    }

    #[test]
    fn both_families_can_listen_on_one_port() {
        let options = SocketOptions {
            keepalive: None,
            user_timeout: None,
        };
        let v4 = listen(
            "0.0.0.0:0".parse().expect("an address"),
            &options,
            16,
            false,
        )
        .expect("IPv4");
        let port = v4.local_addr().expect("bound").port();
        match listen(
            SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)),
            &options,
            16,
            false,
        ) {
            Ok(v6) => assert_eq!(v6.local_addr().expect("bound").port(), port),
            Err(error) => assert_ne!(
                error.kind(),
                io::ErrorKind::AddrInUse,
                "the two must not collide"
            ),
        }
    }
}
