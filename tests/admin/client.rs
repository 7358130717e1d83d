//! An HTTP client that sends exactly what a test gives it, and never waits for ever.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::common::{DEADLINE, Serve};

pub trait Wire: Read + Write + Send {
    fn finish(&self);
}

impl Wire for TcpStream {
    fn finish(&self) {
        self.shutdown(Shutdown::Write)
            .expect("the connection is open");
    }
}

impl Wire for UnixStream {
    fn finish(&self) {
        self.shutdown(Shutdown::Write)
            .expect("the connection is open");
    }
}

/// One connection to an admin endpoint.
pub struct Client {
    pub wire: Box<dyn Wire>,
    host: String,
    read: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (of, value) = line.split_once(": ")?;
            of.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The body of a reply that is JSON by its own word.
    pub fn json(&self) -> Value {
        assert_eq!(
            self.header("Content-Type"),
            Some("application/json"),
            "{self:?}"
        );
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a reply that must have this code.
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        let json = self.json();
        assert_eq!(code >= 400, json["error"].is_string(), "{self:?}");
        json
    }
}

impl Client {
    pub fn connect(server: &Serve) -> Client {
        Client::to(&server.admin)
    }

    pub fn to(address: &str) -> Client {
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = UnixStream::connect(path).expect("the server accepts");
            stream
                .set_read_timeout(Some(DEADLINE))
                .expect("a timeout above zero");
            stream
                .set_write_timeout(Some(DEADLINE))
                .expect("a timeout above zero");
            return Client {
                wire: Box::new(stream),
                host: "localhost".into(),
                read: Vec::new(),
            };
        }
        let host = address
            .strip_prefix("http://")
            .expect("an address of the endpoint");
        let stream = TcpStream::connect(host).expect("the server accepts");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout above zero");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a timeout above zero");
        stream.set_nodelay(true).expect("an option of TCP");
        Client {
            wire: Box::new(stream),
            host: host.into(),
            read: Vec::new(),
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire
            .write_all(bytes.as_ref())
            .expect("the server reads");
    }

    /// Sends the head of a request.
    pub fn ask(&mut self, method_and_target: &str, headers: &[&str]) {
        let headers: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        self.send(format!(
            "{method_and_target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n",
            self.host
        ));
    }

    pub fn get(&mut self, target: &str) -> Reply {
        self.ask(&format!("GET {target}"), &[]);
        self.reply()
    }

    pub fn post(&mut self, target: &str, body: &str) -> Reply {
        self.ask(
            &format!("POST {target}"),
            &[&format!("Content-Length: {}", body.len())],
        );
        self.send(body);
        self.reply()
    }

    pub fn delete(&mut self, target: &str) -> Reply {
        self.ask(&format!("DELETE {target}"), &[]);
        self.reply()
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Reply {
        let head = self.head();
        self.with_body(head)
    }

    /// Reads one reply to a HEAD request.
    pub fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = self
                .read
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end + 4;
            }
            assert!(
                self.read_more() > 0,
                "the end, after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).expect("text");
        let code = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("{head:?}"));
        Reply {
            code,
            head,
            body: String::new(),
        }
    }

    fn with_body(&mut self, mut reply: Reply) -> Reply {
        let length: usize = reply
            .header("Content-Length")
            .and_then(|length| length.parse().ok())
            .unwrap_or_else(|| panic!("{reply:?}"));
        while self.read.len() < length {
            assert!(
                self.read_more() > 0,
                "the end, after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
        reply.body = String::from_utf8(self.read.drain(..length).collect()).expect("text");
        reply
    }

    fn read_more(&mut self) -> usize {
        let mut chunk = [0; 16 * 1024];
        let n = self.wire.read(&mut chunk).unwrap_or_else(|error| {
            panic!("{error}, after {:?}", String::from_utf8_lossy(&self.read))
        });
        self.read.extend_from_slice(&chunk[..n]);
        n
    }

    /// The next line of a stream, without its line feed.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return String::from_utf8(line).expect("text");
            }
            assert!(self.read_more() > 0, "the end of the stream");
        }
    }

    /// The next event of a stream: its name and its data.
    pub fn event(&mut self) -> (String, Value) {
        let name = self
            .line()
            .strip_prefix("event: ")
            .expect("the name of an event")
            .to_owned();
        let data =
            serde_json::from_str(self.line().strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(self.line(), "", "an empty line ends an event");
        (name, data)
    }

    /// Reads to the end, orderly or by a reset, and returns how many bytes came before.
    pub fn drain(&mut self) -> usize {
        let mut chunk = [0; 16 * 1024];
        let mut bytes = self.read.len();
        loop {
            match self.wire.read(&mut chunk) {
                Ok(0) => return bytes,
                Ok(n) => bytes += n,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Expects the connection to end in order, with nothing more before that.
    pub fn expect_end(&mut self) {
        assert_eq!(
            self.read_more(),
            0,
            "{:?} before the end",
            String::from_utf8_lossy(&self.read)
        );
    }
}
