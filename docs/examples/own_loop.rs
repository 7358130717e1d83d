//! Own the loop: a gateway whose own poll watches a UDP socket and, beside it, the whole server as
//! one more descriptor. Each datagram, a sensor's reading, goes to every line.
//!
//! `cargo run --example own_loop -- 127.0.0.1:7878 127.0.0.1:9000`, then `nc 127.0.0.1 7878`, and
//! `echo 21.5 | nc -u -w0 127.0.0.1 9000`.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use heartline::{Config, ConnId, Context, Handler, Server, Turn};
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

const SERVER: Token = Token(0);
const SENSORS: Token = Token(1);

/// Lines only listen here; what they say is not asked for.
struct Listeners;

impl Handler for Listeners {
    fn on_message(&mut self, _: &mut Context<'_>, _: ConnId, _: &[u8]) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let lines_addr = args.next().unwrap_or_else(|| "127.0.0.1:7878".into());
    let sensors_addr = args.next().unwrap_or_else(|| "127.0.0.1:9000".into());

    let mut server = Server::bind(lines_addr, Config::default())?;
    let handle = server.handle();
    let mut sensors = UdpSocket::bind(sensors_addr.parse()?)?;
    println!(
        "listening {} sensors {}",
        server.local_addrs()[0],
        sensors.local_addr()?
    );

    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(16);
    poll.registry().register(
        &mut SourceFd(&server.as_raw_fd()),
        SERVER,
        Interest::READABLE,
    )?;
    poll.registry()
        .register(&mut sensors, SENSORS, Interest::READABLE)?;

    let mut datagram = [0; 1500];
    // The server's descriptor is registered edge-triggered by mio, so a turn comes after every
    // wait, whatever ended it.
    while server.turn(&mut Listeners, Some(Duration::ZERO))? == Turn::Running {
        match poll.poll(&mut events, server.next_wait()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        if events.iter().any(|event| event.token() == SENSORS) {
            while let Ok(n) = sensors.recv(&mut datagram) {
                // Refused only when 4096 readings wait already: then the newest is dropped.
                let _ = handle.broadcast(datagram[..n].trim_ascii());
            }
        }
    }
    Ok(())
}
