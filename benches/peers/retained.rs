//! Memory that a server retains per connection after one large message. The harness would send all
//! of them at once, and would measure the peak instead.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::child::{Failure, check_interrupt};
use crate::peers::{Mode, Ready};
use crate::proc;
use crate::scenario::{BEATING, Bench, Measured};

const MESSAGE_BYTES: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

pub fn measure(bench: &Bench, ready: &Ready) -> Result<Measured, Failure> {
    let server = ready.start(Mode::Reply, BEATING)?;
    let (count, pid) = (bench.size.kept, server.pid());
    let mut message = vec![b'x'; MESSAGE_BYTES];
    message[MESSAGE_BYTES - 1] = b'\n';
    let echo = |addr| echo(addr, &message).map_err(|error| format!("echo 16 KiB: {error}"));

    // Buffers that all connections share are no connection's cost.
    drop(echo(server.addr)?);
    proc::rest(pid)?;
    let before = proc::rss(pid)?;
    let mut open = Vec::with_capacity(count as usize);
    for _ in 0..count {
        check_interrupt()?;
        open.push(echo(server.addr)?);
    }
    proc::rest(pid)?;
    Ok(Measured {
        figures: vec![(proc::rss(pid)? - before) / f64::from(count)],
        remarks: Vec::new(),
    })
}

/// Has one message echoed on a connection, which stays open.
fn echo(addr: SocketAddr, message: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    // Closed by reset, so that its port is free at once.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(message)?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count if buffer[count - 1] == b'\n' => return Ok(stream),
            _ => {}
        }
    }
}
