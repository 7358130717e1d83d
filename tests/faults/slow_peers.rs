//! Peers that are alive by every byte they send, but send or read extremely slowly, or flood.

use std::io::Write;
use std::thread;
use std::time::Instant;

use crate::common::{DEADLINE, Serve, field, wait_until};
use crate::connect::Connect;
use crate::{LAG, TICK, addr, ms, served};

#[test]
fn endless_frame_is_closed_by_the_frame_timeout() {
    let server = Serve::start(&["--frame-timeout", "1s"]);
    let (mut endless, mut slow) = (served(&server), served(&server));
    let start = Instant::now();
    let mut bytes = 0;
    while server.closes().is_empty() {
        assert!(start.elapsed() < DEADLINE, "nobody was closed");
        // It may have been closed since: then this write fails.
        let _ = endless.stream.write(b"x");
        // As slow, but each of its messages ends in time.
        slow.send(if bytes % 5 == 4 { b"\n" } else { b"y" });
        bytes += 1;
        thread::sleep(ms(100));
    }
    let took = start.elapsed();
    assert!(took > ms(1000) && took < ms(1000) + TICK + LAG, "{took:?}");
    let closes = server.closes();
    assert_eq!(closes.len(), 1, "{closes:?}");
    assert_eq!(
        (field(&closes[0], "reason"), field(&closes[0], "addr")),
        ("frame-timeout", addr(&endless).as_str())
    );
    slow.send("\n");
    slow.expect("echo: yyyy\necho: yyyy\n");
}

#[test]
fn first_message_timeout_accepts_pongs() {
    let server = Serve::start(&[
        "--first-message-timeout",
        "2s",
        "--heartbeat",
        "300ms",
        "--missed",
        "20",
    ]);
    let start = Instant::now();
    let (mute, mut mumbling) = (server.connect(), server.connect());
    // Bytes, but no message and no heartbeat.
    mumbling.send("mumble");
    let mut answering = Connect::start(server.addr(), &["--heartbeat", "off", "--tries", "1"]);
    let closes = server.wait_for_closes(2);
    let took = start.elapsed();
    assert!(took > ms(2000) && took < ms(2000) + TICK + LAG, "{took:?}");
    for peer in [&mute, &mumbling] {
        let close = closes
            .iter()
            .find(|close| field(close, "addr") == addr(peer))
            .expect("its close");
        assert_eq!(field(close, "reason"), "first-message-timeout");
    }
    thread::sleep(ms(500));
    answering.is_served("hello");
    assert_eq!((server.closes().len(), answering.statuses()), (2, vec![]));
}

#[test]
fn flood_is_throttled_then_closed_without_delaying_others() {
    let server = Serve::start(&["--max-message-rate", "50"]);
    let (mut flood, mut neighbour) = (served(&server), served(&server));
    let flood_addr = addr(&flood);
    let start = Instant::now();
    let mut writer = flood.stream.try_clone().expect("a second descriptor");
    let flooding = thread::spawn(move || {
        let messages = b"flood\n".repeat(10_000);
        // Until the server closes the line.
        while writer.write_all(&messages).is_ok() {}
    });
    let reading = thread::spawn(move || {
        let mut answers = 0;
        while flood.read_line().is_some() {
            answers += 1;
        }
        answers
    });
    let mut waits = Vec::new();
    wait_until("the flood is ended", || {
        let asked = Instant::now();
        neighbour.send("hello\n");
        neighbour.expect("echo: hello\n");
        waits.push(asked.elapsed());
        // Well below its own rate.
        thread::sleep(ms(90));
        !server.closes().is_empty()
    });
    let took = start.elapsed();
    assert!(took > ms(10_000) && took < ms(11_000) + LAG, "{took:?}");
    waits.sort();
    let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    assert!(
        median < ms(100) && worst < LAG,
        "a neighbour waited {median:?} for its echo, {worst:?} at worst"
    );
    let closes = server.closes();
    assert_eq!(closes.len(), 1, "{closes:?}");
    assert_eq!(
        (field(&closes[0], "reason"), field(&closes[0], "addr")),
        ("rate-limited", flood_addr.as_str())
    );
    let answers = reading.join().expect("no panic");
    // A second's worth at once, then 50 a second for as long as it lasted.
    assert!(
        (300..=50 * (took.as_secs() + 3)).contains(&answers),
        "{answers} answers in {took:?}"
    );
    flooding.join().expect("no panic");
}
