//! Servers that follow a script, on loopback, each in a thread; among them those of the two
//! articles.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longer than anything here takes on the slowest machine; a wait that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Runs `script` with a listening socket.
pub fn server<T: Send + 'static>(
    script: impl FnOnce(TcpListener) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of our own");
    let addr = listener.local_addr().expect("bound");
    (addr, thread::spawn(move || script(listener)))
}

/// The next client. Every read from it has a deadline.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("a client");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a timeout above zero");
    stream.set_nodelay(true).expect("an option of TCP");
    stream
}

/// The server of the first article: it answers each line with `echo: ` and the line, heartbeats
/// included.
pub fn first_article(listener: TcpListener) {
    let stream = accept(&listener);
    let mut writer = stream.try_clone().expect("a second descriptor");
    for line in BufReader::new(stream).lines() {
        writeln!(writer, "echo: {}", line.expect("text")).expect("the client reads");
    }
}

/// The server of the second article: each read is a message, here sent back in capitals; a `ping`
/// is answered with `pong`.
pub fn second_article(listener: TcpListener) {
    let mut stream = accept(&listener);
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).expect("the client writes") {
            0 => return,
            n if &buffer[..n] == b"ping" => stream.write_all(b"pong").expect("the client reads"),
            n => stream
                .write_all(&buffer[..n].to_ascii_uppercase())
                .expect("the client reads"),
        }
    }
}
