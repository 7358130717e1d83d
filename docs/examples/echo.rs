//! The smallest server: every message comes back.
//!
//! `cargo run --example echo -- 127.0.0.1:7878`, then `nc 127.0.0.1 7878`.

use heartline::{Config, ConnId, Context, Handler, Server};

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        // A full queue makes the server close the connection: no error needs handling here.
        let _ = cx.send_parts(id, &[b"echo: ", message]);
    }
}

fn main() -> Result<(), heartline::Error> {
    let addr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7878".into());
    let mut server = Server::bind(addr, Config::default())?;
    println!("listening {}", server.local_addrs()[0]);
    server.run(&mut Echo)
}
