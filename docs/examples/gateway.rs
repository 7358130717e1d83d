//! A gateway: devices log in with a token, report at least every 30 seconds, and are told things by
//! name or by group. Reports, ends and statistics go to stdout.
//!
//! `cargo run --example gateway -- 127.0.0.1:7878 dev-1=one dev-2=two`, then in another terminal
//! `nc 127.0.0.1 7878` and `hello version=1 name=dev-1 token=one`. What you type into the gateway's
//! terminal goes to a device (`dev-1 blink`) or to all of them (`#devices blink`).

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use heartline::{
    Close, Closed, Config, ConnId, Context, DenyReason, Handle, Handler, Identity, Login,
    LoginDecision, LoginMode, LoginRequest, Name, Server,
};

const REPORT_EVERY_MS: u64 = 30_000;
const STATISTICS_EVERY_MS: u64 = 1000;
/// The code of devices that are closed because they did not report.
const NO_REPORT: u16 = 1;

struct Gateway {
    tokens: HashMap<String, Name>,
    devices: Name,
    /// A thread prints: the loop waits for no terminal.
    printer: SyncSender<String>,
    reports: u64,
}

impl Gateway {
    fn print(&self, line: String) {
        // What the printer has no room for is not printed.
        let _ = self.printer.try_send(line);
    }

    fn expect_report(cx: &mut Context<'_>, id: ConnId) {
        let at = cx.now().plus_ms(REPORT_EVERY_MS);
        cx.set_deadline(id, Some(at));
    }
}

impl Handler for Gateway {
    fn on_login(
        &mut self,
        _: &mut Context<'_>,
        _: ConnId,
        request: &LoginRequest<'_>,
    ) -> LoginDecision {
        match request.token.and_then(|token| self.tokens.get(token)) {
            None => LoginDecision::Deny(DenyReason::BadToken),
            Some(owner) if request.name.is_some_and(|name| name != owner) => {
                LoginDecision::Deny(DenyReason::NameMismatch)
            }
            Some(owner) => Identity::named(owner.clone())
                .in_groups(vec![self.devices.clone()])
                .map_or(
                    LoginDecision::Deny(DenyReason::Refused),
                    LoginDecision::Accept,
                ),
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_>, id: ConnId) {
        Gateway::expect_report(cx, id);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, id: ConnId, message: &[u8]) {
        self.reports += 1;
        Gateway::expect_report(cx, id);
        if let Some(name) = cx.name_of(id) {
            self.print(format!("{name}: {}", String::from_utf8_lossy(message)));
        }
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, id: ConnId) {
        cx.close_with(id, Close::AfterFlush, NO_REPORT);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let (names, reports) = (cx.name_counts().names, self.reports);
        self.print(format!("* {names} devices, {reports} reports"));
        let at = cx.now().plus_ms(STATISTICS_EVERY_MS);
        cx.wake_at(Some(at));
    }

    fn on_close(&mut self, _: &mut Context<'_>, _: ConnId, closed: &Closed) {
        let name = closed
            .name
            .as_ref()
            .map_or("a device", |name| name.as_str());
        let why = match closed.code {
            Some(NO_REPORT) => "it did not report",
            _ => closed.reason.as_str(),
        };
        self.print(format!("* {name} has gone ({why})"));
    }
}

/// Sends each line of stdin to the device, or to the group, that its first word names.
fn send_lines(handle: &Handle) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some((to, text)) = line.split_once(' ') else {
            eprintln!("NAME TEXT, or #GROUP TEXT");
            continue;
        };
        let (to, text) = (to.to_owned(), text.to_owned());
        let done = handle.run(move |cx| {
            // A device that is not there gets nothing: delivery is at most once.
            let _ = match to.strip_prefix('#') {
                Some(group) => cx.publish(group, text.as_bytes()),
                None => cx.send_to(&to, text.as_bytes()),
            };
        });
        if let Err(error) = done {
            eprintln!("not sent: {error}");
        }
    }
    handle.shutdown(Duration::from_secs(2));
}

fn print_lines(lines: &Receiver<String>) {
    for line in lines {
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return;
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7878".into());
    let tokens = args
        .filter_map(|pair| {
            let (name, token) = pair.split_once('=')?;
            Some((token.to_owned(), Name::new(name).ok()?))
        })
        .collect();
    let config = Config {
        login: Login {
            mode: LoginMode::Required,
            ..Login::default()
        },
        ..Config::default()
    };
    let mut server = Server::bind(addr, config)?;
    println!("listening {}", server.local_addrs()[0]);

    let (printer, lines) = sync_channel(1024);
    std::thread::spawn(move || print_lines(&lines));
    let handle = server.handle();
    std::thread::spawn(move || send_lines(&handle));

    let mut cx = server.context();
    let at = cx.now();
    cx.wake_at(Some(at));
    let mut gateway = Gateway {
        tokens,
        devices: Name::new("devices")?,
        printer,
        reports: 0,
    };
    server.run(&mut gateway)?;
    Ok(())
}
