//! A thread that queries the server, so that a slow server does not delay keys.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::list::ListRequest;
use super::peer::Peer;
use crate::admin::api::{ClosedEntry, ClosedList, ConnectionList, Status};
use crate::admin::client::{AdminClient, AdminError};
use crate::humanize::connections;

/// Most closes requested: as many as the tallest terminal has room for.
const CLOSES: usize = 20;

pub(super) enum PollerCommand {
    /// From now on this part of the list is wanted.
    Show(ListRequest),
    Act(AdminAction),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminAction {
    Close(Peer),
    Send(Peer, String),
    Broadcast(String),
}

pub(super) enum Update {
    Status(Box<Status>, Vec<ClosedEntry>),
    Lines(ListRequest, ConnectionList),
    /// A request has failed.
    Trouble(String),
    /// The result of an action.
    Done(String),
}

/// Sends requests every `interval`, and commands in between, until the sender is gone: commands
/// from before are done first.
pub(super) fn work(
    client: &AdminClient,
    interval: Duration,
    mut query: ListRequest,
    orders: &Receiver<PollerCommand>,
    mut tell: impl FnMut(Update),
) {
    let mut next = Instant::now() + interval;
    loop {
        match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(PollerCommand::Show(wanted)) => {
                query = wanted;
                tell(lines(client, &query).unwrap_or_else(trouble));
            }
            Ok(PollerCommand::Act(action)) => {
                tell(Update::Done(act(client, &action)));
                refresh(client, &query, &mut tell);
            }
            Err(RecvTimeoutError::Timeout) => {
                refresh(client, &query, &mut tell);
                // A server that takes longer than the interval is queried as often as it answers.
                next = (next + interval).max(Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Queries everything that is shown.
fn refresh(client: &AdminClient, query: &ListRequest, tell: &mut impl FnMut(Update)) {
    // A server that does not answer one request does not answer the other.
    match first_refresh(client, query) {
        Ok(news) => news.into_iter().for_each(tell),
        Err(error) => tell(trouble(error)),
    }
}

pub(super) fn first_refresh(
    client: &AdminClient,
    query: &ListRequest,
) -> Result<[Update; 2], AdminError> {
    let status = client.read("/status")?;
    let closes: ClosedList = client.read(&format!("/closed?limit={CLOSES}"))?;
    Ok([
        Update::Status(Box::new(status), closes.closed),
        lines(client, query)?,
    ])
}

fn lines(client: &AdminClient, query: &ListRequest) -> Result<Update, AdminError> {
    Ok(Update::Lines(query.clone(), client.read(&query.path())?))
}

fn trouble(error: AdminError) -> Update {
    Update::Trouble(error.to_string())
}

/// Performs the action, and returns its result as a sentence.
fn act(client: &AdminClient, action: &AdminAction) -> String {
    let done = match action {
        AdminAction::Close(peer) => client
            .ask("DELETE", &peer.path(), b"")
            .map(|_| format!("closing {peer}")),
        AdminAction::Send(peer, text) => client
            .ask("POST", &format!("{}/send", peer.path()), text.as_bytes())
            .map(|_| format!("message queued for {peer}")),
        AdminAction::Broadcast(text) => {
            client
                .ask("POST", "/broadcast", text.as_bytes())
                .map(|answer| {
                    let receivers = serde_json::from_slice::<serde_json::Value>(&answer.body)
                        .ok()
                        .and_then(|body| body["receivers"].as_u64());
                    format!(
                        "message queued for {}",
                        receivers.map_or("all connections".to_string(), connections)
                    )
                })
        }
    };
    match (done, action) {
        (Ok(sentence), _) => sentence,
        (
            Err(AdminError::Refused { code: 404, .. }),
            AdminAction::Close(peer) | AdminAction::Send(peer, _),
        ) => format!("{peer} is gone"),
        (Err(error), AdminAction::Close(peer)) => format!("{peer} was not closed: {error}"),
        (Err(error), _) => format!("not sent: {error}"),
    }
}
