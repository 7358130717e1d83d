//! A line echo on tokio, as a peer to compare with: one task per connection on one thread, each
//! read under a timeout.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SILENCE: Duration = Duration::from_secs(20);

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        println!("listening {}", listener.local_addr()?);
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hold(stream));
            }
        }
    })
}

async fn hold(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.extend_from_slice(b"echo: ");
        if timeout(SILENCE, reader.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        writer.write_all(&line).await?;
    }
}
