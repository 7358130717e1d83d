//! A chat room: the first line a peer sends is its name, every later one goes to all others. A
//! second thread talks into the room too.
//!
//! `cargo run --example chat -- 127.0.0.1:7878`, then `nc 127.0.0.1 7878` twice; what you type into
//! the server's terminal goes to all.

use std::collections::HashMap;
use std::io::BufRead;
use std::time::Duration;

use heartline::{Closed, Config, ConnId, Context, Handler, Server};

#[derive(Default)]
struct Room {
    names: HashMap<ConnId, String>,
}

impl Room {
    fn tell_all(&self, cx: &mut Context<'_>, text: &str, but: ConnId) {
        // It fails only for text with a line feed in it, and lines have none.
        let _ = cx.broadcast(text.as_bytes(), Some(but));
    }
}

impl Handler for Room {
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        let _ = cx.send(id, b"your name?");
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        let text = String::from_utf8_lossy(message).into_owned();
        match self.names.get(&id) {
            Some(name) => self.tell_all(cx, &format!("{name}: {text}"), id),
            None => {
                self.tell_all(cx, &format!("* {text} is here"), id);
                let _ = cx.send(
                    id,
                    format!("hello {text}, {} in the room", cx.connections()).as_bytes(),
                );
                self.names.insert(id, text);
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_>, id: ConnId, closed: &Closed) {
        if let Some(name) = self.names.remove(&id) {
            self.tell_all(cx, &format!("* {name} has gone ({})", closed.reason), id);
        }
    }
}

fn main() -> Result<(), heartline::Error> {
    let addr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7878".into());
    let mut server = Server::bind(addr, Config::default())?;
    println!("listening {}", server.local_addrs()[0]);

    // Any thread may hold a handle. At the end of stdin the room is closed, within two seconds.
    let handle = server.handle();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = handle.broadcast(format!("* the house: {line}"));
        }
        handle.shutdown(Duration::from_secs(2));
    });
    server.run(&mut Room::default())
}
