//! Many clients of the library at once, over real sockets on loopback. How a fleet comes back after
//! a restart is tested in virtual time, beside the machine that decides it
//! (`src/client/session/fleet.rs`); here is what only whole clients have: chance of their own.

use std::net::TcpListener;
use std::time::Duration;

use heartline::client::{Backoff, Client, ClientConfig, ClientContext, ClientHandler, Event};

const CLIENTS: usize = 100;
const HOUR: Duration = Duration::from_secs(3600);

/// Notes the wait after the first dial.
#[derive(Default)]
struct Wait(Option<Duration>);

impl ClientHandler for Wait {
    fn on_message(&mut self, _: &mut ClientContext<'_>, message: &[u8]) {
        panic!("nobody sends {message:?}");
    }

    fn on_event(&mut self, _: &mut ClientContext<'_>, event: &Event) {
        if let Event::Reconnecting { delay, .. } = event {
            self.0 = Some(*delay);
        }
    }
}

fn first_wait(addr: &str) -> Duration {
    let config = ClientConfig {
        tries: None,
        backoff: Backoff::exponential(HOUR, HOUR),
        ..ClientConfig::default()
    };
    let (mut client, mut wait) = (
        Client::connect(addr, config).expect("connects"),
        Wait::default(),
    );
    loop {
        client.turn(&mut wait, None).expect("the poll works");
        if let Some(wait) = wait.0 {
            return wait;
        }
    }
}

/// With one seed for all, the best jitter would keep the herd together.
#[test]
fn clients_that_fail_together_wait_apart() {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    let mut waits: Vec<_> = (0..CLIENTS)
        .map(|_| first_wait(&format!("127.0.0.1:{port}")))
        .collect();
    waits.sort_unstable();
    assert!(
        waits[0] < HOUR / 4 && waits[CLIENTS - 1] > HOUR * 3 / 4,
        "{waits:?}"
    );
    waits.dedup();
    // Of 3.6 million waits, two of a hundred are hardly ever the same.
    assert!(waits.len() > CLIENTS - 5, "{waits:?}");
}
