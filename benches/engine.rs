//! The cost of the pure parts, without a kernel: `cargo bench --bench engine`.

use std::hint::black_box;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use heartline::engine::outbox::{Outbox, Pool, SharedBytes};
use heartline::engine::wheel::Wheel;
use heartline::engine::{Engine, Work};
use heartline::framing::inbox::Inbox;
use heartline::framing::{Codec, Frame, HeartbeatWords};
use heartline::time::Timestamp;
use heartline::{Config, ConnId, Context, Framing, Handler};

const MESSAGES: usize = 1000;
const CONNECTIONS: usize = 1000;

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        cx.send(id, message)
            .expect("the queue is flushed each turn");
    }
}

fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("insert", |b| {
        let mut wheel = Wheel::new();
        let mut tick = 0;
        b.iter(|| {
            tick += 7;
            (0..CONNECTIONS).for_each(|key| wheel.insert(key, (tick + key as u64) % 4000));
        });
    });
    group.bench_function("insert and expire", |b| {
        let mut wheel = Wheel::new();
        let mut now = 0;
        b.iter(|| {
            (0..CONNECTIONS).for_each(|key| wheel.insert(key, now + 1 + key as u64 % 50));
            now += 50;
            while let Some(key) = wheel.expire(now) {
                black_box(key);
            }
        });
    });
    group.finish();
}

fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, framing) in [
        ("lines", Framing::Lines),
        ("length", Framing::Length),
        ("raw", Framing::Raw),
    ] {
        // Raw splits a read at the length of the longest message: the same number of messages as
        // with the others.
        let codec = Codec::new(framing, HeartbeatWords::default(), 64)
            .expect("the default words are valid");
        let mut wire = Vec::new();
        (0..MESSAGES).for_each(|_| codec.encode(&[&[b'x'; 64]], &mut wire));
        let mut inbox = Inbox::default();
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| {
                let mut input = wire.as_slice();
                while let Ok(Some(frame)) = codec.decode(&mut inbox, &mut input) {
                    black_box(matches!(frame, Frame::Message(_)));
                }
            });
        });
    }
    group.finish();
}

fn outbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let shared = SharedBytes::new(vec![b'x'; 1024], Arc::default());
    let mut pool = Pool::default();
    group.bench_function("append and advance", |b| {
        let mut outbox = Outbox::default();
        b.iter(|| {
            (0..MESSAGES).for_each(|_| {
                outbox.append(&mut pool, |buffer| buffer.extend_from_slice(&[b'x'; 64]))
            });
            drain(&mut outbox, &mut pool);
        });
    });
    group.bench_function("append shared and advance", |b| {
        let mut outbox = Outbox::default();
        b.iter(|| {
            (0..MESSAGES).for_each(|_| outbox.append_shared(&mut pool, &shared));
            drain(&mut outbox, &mut pool);
        });
    });
    group.finish();
}

/// Empties an outbox in writes of 16 slices, as the server does.
fn drain(outbox: &mut Outbox, pool: &mut Pool) {
    while !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = outbox.peek(&mut slices);
        let written = slices[..filled].iter().map(|slice| slice.len()).sum();
        outbox.advance(written, pool);
    }
}

fn engine(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    for (name, active, pipelined) in [
        ("64 of 1000 active, 1 message each", 64, 1),
        ("64 of 1000 active, 16 messages each", 64, 16),
    ] {
        let (mut engine, ids) = engine_with(CONNECTIONS);
        let wire = b"a message of an ordinary length\n".repeat(pipelined);
        let mut now_ms = 0;
        group.throughput(Throughput::Elements((active * pipelined) as u64));
        group.bench_function(format!("turn: {name}"), |b| {
            b.iter(|| {
                now_ms += 1;
                for id in &ids[..active] {
                    let mut work = Work::new(u32::MAX);
                    engine.handle_bytes(
                        Timestamp::from_ms(now_ms),
                        *id,
                        &wire,
                        &mut work,
                        &mut Echo,
                    );
                }
                flush(&mut engine, Timestamp::from_ms(now_ms));
            });
        });
    }
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("ping 1000 quiet connections", |b| {
        let due = Timestamp::from_ms(5000);
        b.iter_batched_ref(
            || engine_with(CONNECTIONS).0,
            |engine| {
                engine.handle_timers(due, CONNECTIONS);
                flush(engine, due);
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn engine_with(connections: usize) -> (Engine, Vec<ConnId>) {
    let mut engine = Engine::new(&Config::default()).expect("the defaults are valid");
    let peer = SocketAddr::from(([192, 0, 2, 1], 7));
    let ids = (0..connections)
        .map(|_| {
            engine
                .handle_open(Timestamp::ZERO, peer, &mut Echo)
                .expect("there is no bound")
        })
        .collect();
    (engine, ids)
}

/// The end of a turn, on sockets that take everything.
fn flush(engine: &mut Engine, now: Timestamp) {
    while let Some(id) = engine.poll_dirty().or_else(|| engine.poll_broadcast_only()) {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = engine.outgoing(id, &mut slices);
        let written = black_box(&slices[..filled])
            .iter()
            .map(|slice| slice.len())
            .sum();
        engine.handle_written(now, id, written, &mut Echo);
    }
}

criterion_group!(benches, wheel, framing, outbox, engine);
criterion_main!(benches);
