use super::*;
use crate::access_list::AccessList;
use crate::config::OnFull;

const HEADER: &str = "PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n";

/// 192.0.2.9 is a balancer.
fn behind_a_balancer(change: impl FnOnce(&mut Config)) -> Rig {
    let mut config = Config {
        proxies: ["192.0.2.9"]
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect(),
        ..config()
    };
    change(&mut config);
    Rig::new(&config)
}

fn refused(rig: &mut Rig) -> Vec<RejectReason> {
    std::iter::from_fn(|| rig.engine.poll_rejected())
        .map(|(_, _, refusal)| refusal)
        .collect()
}

#[test]
fn split_proxy_header_names_the_peer() {
    for split in 0..HEADER.len() {
        let mut rig = behind_a_balancer(|_| ());
        let id = rig.try_open(9).expect("room");
        assert!(
            rig.handler.seen.is_empty() && !rig.engine.is_open(id) && rig.engine.wants_read(id)
        );
        rig.receive(id, &HEADER[..split]);
        rig.receive(id, &format!("{}hello\n", &HEADER[split..]));
        assert_eq!(
            rig.handler.seen,
            [Seen::Open(id), Seen::Message(id, "hello".into())]
        );
        assert_eq!(
            rig.engine.peer_addr(id),
            Some(SocketAddr::from(([198, 51, 100, 7], 4000)))
        );
        rig.flush(id);
        assert_eq!(rig.engine.buffered(), 0);
    }
}

#[test]
fn proxy_header_from_an_unlisted_address_is_a_message() {
    let mut rig = behind_a_balancer(|_| ());
    let id = rig.open();
    rig.receive(id, HEADER);
    assert_eq!(rig.messages(), [HEADER.trim_end()]);
    assert_eq!(
        rig.engine.peer_addr(id),
        Some(SocketAddr::from(([192, 0, 2, 1], 7)))
    );
}

#[test]
fn rules_for_addresses_see_the_real_peer() {
    let deny = ["198.51.100.0/24"]
        .iter()
        .map(|network| network.parse().expect("a network"))
        .collect();
    let mut rig = behind_a_balancer(|config| {
        config.access = AccessList {
            deny,
            ..AccessList::default()
        }
    });
    let id = rig.try_open(9).expect("the balancer itself is not denied");
    rig.receive(id, HEADER);
    assert_eq!(refused(&mut rig), [RejectReason::Denied]);

    let mut rig = behind_a_balancer(|config| config.limits.max_connections_per_ip = 1);
    let ids = [(); 3].map(|()| rig.try_open(9).expect("a balancer brings many"));
    rig.receive(ids[0], HEADER);
    rig.receive(ids[1], HEADER);
    rig.receive(ids[2], &HEADER.replace("100.7", "100.8"));
    assert_eq!(refused(&mut rig), [RejectReason::PerIpLimit]);
    assert!(rig.engine.is_open(ids[0]) && rig.engine.is_open(ids[2]));
}

#[test]
fn rejected_proxy_header_has_no_callback() {
    let mut rig = behind_a_balancer(|_| ());
    let [late, wrong, gone, reset, short] = [(); 5].map(|()| rig.try_open(9).expect("room"));
    rig.receive(late, "PROXY TCP4 ");
    rig.receive(wrong, "hello\n");
    rig.engine.handle_eof(rig.now, gone);
    rig.engine
        .handle_failure(rig.now, reset, CloseReason::PeerReset);
    rig.receive(short, "PROXY");
    rig.engine.handle_eof(rig.now, short);
    assert_eq!(
        refused(&mut rig),
        [
            RejectReason::ProxyHeader,
            // Which balancers do, and is no fault of anybody's.
            RejectReason::Probe,
            RejectReason::Probe,
            RejectReason::ProxyHeader
        ]
    );
    rig.pass_until(9999, false);
    assert_eq!(refused(&mut rig), []);
    rig.pass_until(10_200, false);
    assert_eq!(refused(&mut rig), [RejectReason::ProxyHeader]);
    assert!(rig.handler.seen.is_empty() && rig.reasons().is_empty());
    let stats = rig.engine.stats();
    assert_eq!(
        (
            stats.opened,
            stats.refused(RejectReason::ProxyHeader),
            rig.engine.connections(),
            rig.engine.buffered()
        ),
        (0, 3, 0, 0)
    );
    assert_eq!(rig.engine.poll_timeout(), None);
}

#[test]
fn shutdown_rejects_connections_awaiting_their_proxy_header() {
    let mut rig = behind_a_balancer(|_| ());
    rig.try_open(9).expect("room");
    rig.engine.handle_shutdown(rig.now, 5000);
    assert_eq!(refused(&mut rig), [RejectReason::ShuttingDown]);
    assert!(rig.engine.is_drained());
}

#[test]
fn idlest_connection_is_evicted() {
    let mut config = config();
    (
        config.limits.max_connections,
        config.limits.on_full,
        config.heartbeat,
    ) = (Some(200), OnFull::EvictIdlest, None);
    let mut rig = Rig::new(&config);
    let ids: Vec<ConnId> = (0..200)
        .map(|ms| {
            rig.now = Timestamp::from_ms(ms);
            rig.open()
        })
        .collect();
    rig.now = Timestamp::from_ms(1000);
    let mut evicted = Vec::new();
    for newcomer in 0..150 {
        if newcomer == 10 {
            // Was found to be idle, and is not any more.
            rig.receive(ids[11], "I am here\n");
        }
        rig.open();
        evicted.extend(rig.reap().into_iter().map(|(id, closed)| {
            assert_eq!(closed.reason, CloseReason::Evicted);
            id
        }));
        assert_eq!(rig.engine.connections(), 200);
    }
    let expected: Vec<ConnId> = ids
        .iter()
        .copied()
        .filter(|id| *id != ids[11])
        .take(150)
        .collect();
    assert_eq!(evicted, expected);
}

#[test]
fn rejected_address_evicts_no_connection() {
    let mut config = config();
    (
        config.limits.max_connections,
        config.limits.on_full,
        config.limits.max_connections_per_ip,
    ) = (Some(2), OnFull::EvictIdlest, 2);
    let mut rig = Rig::new(&config);
    let stays = rig.try_open(1).expect("room");
    rig.try_open(2).expect("room");
    rig.try_open(3).expect("the idlest goes");
    assert_eq!(rig.reap().len(), 1);
    assert!(!rig.engine.is_open(stays));
    rig.try_open(3).expect("one more of it, for the other");
    rig.reap();
    assert_eq!(rig.try_open(3), Err(RejectReason::PerIpLimit));
}

#[test]
fn headers_that_do_not_end_count_against_the_memory() {
    let mut rig = behind_a_balancer(|config| {
        (
            config.limits.max_outbox,
            config.limits.max_message,
            config.limits.max_memory,
        ) = (300, 100, Some(400));
    });
    let ids: Vec<ConnId> = (0..20).map(|_| rig.try_open(9).expect("room")).collect();
    for id in ids {
        rig.receive(id, &HEADER[..40]);
        assert!(rig.engine.buffered() <= 400);
    }
    assert!(!refused(&mut rig).is_empty());
}

/// Rejects connections from one address in `on_open`.
struct Picky(Vec<ConnId>);

impl Handler for Picky {
    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        if cx
            .peer_addr(id)
            .is_some_and(|peer| peer.ip().to_string() == "192.0.2.9")
        {
            let _ = cx.send(id, b"not you");
            assert!(cx.reject(id));
        }
        self.0.push(id);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, _: &[u8]) {
        assert!(!cx.reject(id), "too late");
    }

    fn on_close(&mut self, _: &mut Context<'_>, id: ConnId, _: &Closed) {
        panic!("{id} was rejected, or is open");
    }
}

#[test]
fn connection_that_the_application_rejects_counts_as_a_rejection() {
    let mut config = config();
    config.limits.max_connections = Some(1);
    config.limits.max_connections_per_ip = 1;
    let mut engine = Engine::new(&config).expect("valid");
    let mut handler = Picky(Vec::new());
    let now = Timestamp::ZERO;
    let mut open = |engine: &mut Engine, ip| {
        let peer = SocketAddr::from(([192, 0, 2, ip], 7));
        engine.handle_open(now, peer, &mut handler)
    };
    for _ in 0..3 {
        let id = open(&mut engine, 9).expect("there is room");
        assert!(!engine.is_open(id));
        let (rejected, _, reason) = engine.poll_rejected().expect("rejected");
        assert_eq!((rejected, reason), (id, RejectReason::Application));
    }
    let id = open(&mut engine, 1).expect("there is room");
    let mut work = Work::new(u32::MAX);
    engine.handle_bytes(now, id, b"x\n", &mut work, &mut handler);
    let stats = engine.stats();
    assert_eq!(stats.refused(RejectReason::Application), 3);
    assert_eq!((stats.opened, stats.closed_in_all()), (1, 0));
    assert_eq!(engine.open_ids().collect::<Vec<_>>(), [id]);
    assert_eq!(handler.0.len(), 4);
}
