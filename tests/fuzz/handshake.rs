//! The handshake: no bytes make a parser panic, what is read is written back with the same meaning,
//! and no escaped message is taken for a control message.

use heartline::framing::handshake::{
    ESCAPE, Hello, MAX_HELLO, ServerControl, encode_end, is_control, is_hello, needs_escape,
    unescape,
};

pub fn handshake(data: &[u8]) {
    hello(data);
    hello(&[b"hello version=1 ", data].concat());
    server(data);
    for word in [&b"welcome version=1 "[..], b"denied ", b"bye "] {
        server(&[word, data].concat());
    }
    escaping(data);
}

fn hello(message: &[u8]) {
    let Ok(hello) = Hello::parse(message) else {
        return;
    };
    assert!(message.len() <= MAX_HELLO);
    let written = hello.encode();
    assert!(is_hello(&written));
    assert!(written.iter().all(|byte| (b' '..=b'~').contains(byte)));
    // A value may be longer in its encoding than it was.
    if written.len() <= MAX_HELLO {
        assert_eq!(Hello::parse(&written), Ok(hello));
    }
}

fn server(message: &[u8]) {
    let Ok(Some(control)) = ServerControl::parse(message) else {
        return;
    };
    assert!(is_control(message));
    let written = match &control {
        ServerControl::Welcome(welcome) => welcome.encode(),
        ServerControl::Denied(reason) => encode_end("denied", reason, None),
        ServerControl::Bye(reason) => encode_end("bye", reason, None),
    };
    assert_eq!(ServerControl::parse(&written), Ok(Some(control)));
}

fn escaping(message: &[u8]) {
    let cut = message.len() / 2;
    let escape = needs_escape(&[message]);
    assert_eq!(escape, needs_escape(&[&message[..cut], &message[cut..]]));
    let sent = if escape {
        [&[ESCAPE], message].concat()
    } else {
        message.to_vec()
    };
    assert!(!is_control(&sent));
    assert_eq!(unescape(&sent), message);
}
