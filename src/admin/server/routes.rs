//! The routes of the endpoint and their parameters.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use super::http::{Failure, RequestHead};
use super::listing::ListQuery;
use super::names::{Listed, NameQuery};
use crate::admin::api::{Direction, MAX_CLOSED, MAX_LISTED, MAX_OFFSET, Sort};
use crate::args::values;
use crate::engine::Close;
use crate::framing::handshake::percent_decode;
use crate::id::ConnId;

/// A request that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Page,
    Health,
    Metrics,
    Status,
    Connections(ListQuery),
    Connection(ConnId),
    Send(ConnId),
    Broadcast,
    Close(ConnId, Close),
    Names(NameQuery),
    SendToName(String),
    CloseName(String, Close),
    SendToGroup(String),
    Closed { limit: usize },
    Drain(Option<Duration>),
    Events,
}

/// Closes in an answer without `limit`.
const CLOSED_BY_DEFAULT: usize = 100;
/// Names in an answer without `limit`.
const NAMES_BY_DEFAULT: usize = 100;

const GET: &str = "GET, HEAD";

impl Route {
    pub(super) fn find(head: &RequestHead) -> Result<Self, Failure> {
        // Without the first, which is empty: a path begins with a slash.
        let segments: Vec<&str> = head.path.split('/').skip(1).collect();
        // The method is checked first: the parameters of a forbidden request do not matter.
        match segments[..] {
            [""] => allow(head, GET).map(|()| Route::Page),
            ["healthz"] => allow(head, GET).map(|()| Route::Health),
            ["metrics"] => allow(head, GET).map(|()| Route::Metrics),
            ["status"] => allow(head, GET).map(|()| Route::Status),
            ["events"] => allow(head, GET).map(|()| Route::Events),
            ["closed"] => allow(head, GET).and_then(|()| closed(&head.query)),
            ["connections"] => allow(head, GET).and_then(|()| connections(&head.query)),
            ["connections", id] if head.method == "DELETE" => close(connection(id)?, &head.query),
            ["connections", id] => allow(head, "GET, HEAD, DELETE")
                .and_then(|()| connection(id))
                .map(Route::Connection),
            ["connections", id, "send"] => allow(head, "POST")
                .and_then(|()| no_parameters(&head.query))
                .and_then(|()| connection(id))
                .map(Route::Send),
            ["names"] => allow(head, GET).and_then(|()| names(Listed::Names, &head.query)),
            ["groups"] => allow(head, GET).and_then(|()| names(Listed::Groups, &head.query)),
            ["names", name] => allow(head, "DELETE").and_then(|()| {
                let how = how_to_close(&head.query)?;
                Ok(Route::CloseName(decoded(name)?, how))
            }),
            ["names", name, "send"] => allow(head, "POST")
                .and_then(|()| no_parameters(&head.query))
                .and_then(|()| decoded(name))
                .map(Route::SendToName),
            ["groups", group, "send"] => allow(head, "POST")
                .and_then(|()| no_parameters(&head.query))
                .and_then(|()| decoded(group))
                .map(Route::SendToGroup),
            ["broadcast"] => allow(head, "POST")
                .and_then(|()| no_parameters(&head.query))
                .map(|()| Route::Broadcast),
            ["drain"] => allow(head, "POST").and_then(|()| drain(&head.query)),
            _ => Err(Failure::new(404, "no such path; see docs/admin.md")),
        }
    }

    /// Whether the body is a message.
    pub(super) fn takes_message(&self) -> bool {
        matches!(
            self,
            Route::Send(_) | Route::SendToName(_) | Route::SendToGroup(_) | Route::Broadcast
        )
    }
}

fn allow(head: &RequestHead, methods: &'static str) -> Result<(), Failure> {
    if methods.split(", ").any(|method| method == head.method) {
        Ok(())
    } else {
        Err(Failure::new(405, format!("method not allowed; use {methods}")).with("Allow", methods))
    }
}

/// No such connection, or not an id.
pub(super) fn gone() -> Failure {
    Failure::new(404, "no such connection")
}

fn connection(id: &str) -> Result<ConnId, Failure> {
    let parsed: Option<ConnId> = id.parse().ok();
    // One has one name: `from_str` would take `+1.02` for `1.2`.
    parsed
        .filter(|parsed| parsed.to_string() == id)
        .ok_or_else(gone)
}

fn connections(query: &str) -> Result<Route, Failure> {
    let mut wanted = ListQuery::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "sort" => {
                wanted.sort = Sort::from_name(&value)
                    .ok_or_else(|| bad("sort", "silence, age, queued, bytes or round_trip"))?
            }
            "order" => {
                wanted.order =
                    Direction::from_name(&value).ok_or_else(|| bad("order", "desc or asc"))?
            }
            "offset" => wanted.offset = number("offset", &value, MAX_OFFSET)?,
            "limit" => wanted.limit = number("limit", &value, MAX_LISTED)?,
            "search" => wanted.search = value.into_owned(),
            key => return Err(unknown(key)),
        }
    }
    if wanted.offset + wanted.limit > MAX_OFFSET {
        return Err(Failure::new(
            400,
            format!("offset and limit together are at most {MAX_OFFSET}"),
        ));
    }
    Ok(Route::Connections(wanted))
}

fn closed(query: &str) -> Result<Route, Failure> {
    let mut limit = CLOSED_BY_DEFAULT;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "limit" => limit = number("limit", &value, MAX_CLOSED)?,
            key => return Err(unknown(key)),
        }
    }
    Ok(Route::Closed { limit })
}

/// No connection has that name.
pub(super) fn name_gone() -> Failure {
    Failure::new(404, "no connection has this name")
}

/// A name in a path: a `/` of a name is `%2F`.
fn decoded(segment: &str) -> Result<String, Failure> {
    percent_decode(segment)
        .map(Cow::into_owned)
        .map_err(|_| Failure::new(400, "a name in a path is percent-encoded UTF-8"))
}

fn names(listed: Listed, query: &str) -> Result<Route, Failure> {
    let mut wanted = NameQuery {
        listed,
        prefix: String::new(),
        after: String::new(),
        limit: NAMES_BY_DEFAULT,
    };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "prefix" => wanted.prefix = value.into_owned(),
            "after" => wanted.after = value.into_owned(),
            "limit" => wanted.limit = number("limit", &value, MAX_LISTED)?,
            key => return Err(unknown(key)),
        }
    }
    Ok(Route::Names(wanted))
}

fn close(id: ConnId, query: &str) -> Result<Route, Failure> {
    Ok(Route::Close(id, how_to_close(query)?))
}

fn how_to_close(query: &str) -> Result<Close, Failure> {
    let mut how = Close::AfterFlush;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        how = match (&*key, &*value) {
            ("now", "true") => Close::Now,
            ("now", "false") => Close::AfterFlush,
            ("now", _) => return Err(bad("now", "true or false")),
            (key, _) => return Err(unknown(key)),
        };
    }
    Ok(how)
}

fn drain(query: &str) -> Result<Route, Failure> {
    let mut grace = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "grace" => {
                grace = Some(
                    values::duration(&value)
                        .map_err(|problem| Failure::new(400, format!("grace: {problem}")))?,
                )
            }
            key => return Err(unknown(key)),
        }
    }
    Ok(Route::Drain(grace))
}

fn number(key: &str, value: &str, most: usize) -> Result<usize, Failure> {
    // Nothing but digits: `from_str` alone would take a plus sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    usize::from_str(value)
        .ok()
        .filter(|number| digits && *number <= most)
        .ok_or_else(|| bad(key, &format!("a number up to {most}")))
}

fn bad(key: &str, expected: &str) -> Failure {
    Failure::new(400, format!("{key} is {expected}"))
}

/// Rejects parameters of a request that changes something, since ignoring one would change the
/// wrong thing.
fn no_parameters(query: &str) -> Result<(), Failure> {
    match form_urlencoded::parse(query.as_bytes()).next() {
        Some((key, _)) => Err(unknown(&key)),
        None => Ok(()),
    }
}

fn unknown(key: &str) -> Failure {
    Failure::new(400, format!("unknown parameter {key:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, target: &str) -> Result<Route, u16> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let head = RequestHead {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            ..RequestHead::default()
        };
        Route::find(&head).map_err(|failure| failure.code)
    }

    #[test]
    fn route_depends_on_path_and_method() {
        let id: ConnId = "3.7".parse().expect("an id");
        for (target, route) in [
            ("/", Route::Page),
            ("/healthz", Route::Health),
            ("/metrics", Route::Metrics),
            ("/status", Route::Status),
            ("/events", Route::Events),
            ("/connections", Route::Connections(ListQuery::default())),
            ("/connections/3.7", Route::Connection(id)),
            ("/closed", Route::Closed { limit: 100 }),
            ("/closed?limit=1000", Route::Closed { limit: 1000 }),
        ] {
            assert_eq!(find("GET", target), Ok(route.clone()), "{target}");
            assert_eq!(find("HEAD", target), Ok(route), "{target}");
            assert_eq!(find("POST", target), Err(405), "{target}");
            assert_eq!(find("OPTIONS", target), Err(405), "{target}");
        }
        assert_eq!(find("POST", "/connections/3.7/send"), Ok(Route::Send(id)));
        assert_eq!(find("POST", "/broadcast"), Ok(Route::Broadcast));
        assert_eq!(find("POST", "/drain"), Ok(Route::Drain(None)));
        assert_eq!(
            find("POST", "/drain?grace=1500ms"),
            Ok(Route::Drain(Some(Duration::from_millis(1500))))
        );
        assert_eq!(
            find("DELETE", "/connections/3.7"),
            Ok(Route::Close(id, Close::AfterFlush))
        );
        assert_eq!(
            find("DELETE", "/connections/3.7?now=true"),
            Ok(Route::Close(id, Close::Now))
        );
        for target in ["/connections/3.7/send", "/broadcast", "/drain"] {
            assert_eq!(find("GET", target), Err(405), "{target}");
        }
        assert_eq!(
            find("POST", "/names/a%2Fb%20%C3%A4/send"),
            Ok(Route::SendToName("a/b ä".into()))
        );
        assert_eq!(
            find("DELETE", "/names/dev-17?now=true"),
            Ok(Route::CloseName("dev-17".into(), Close::Now))
        );
        assert_eq!(
            find("POST", "/groups/fleet/send"),
            Ok(Route::SendToGroup("fleet".into()))
        );
        let query = NameQuery {
            listed: Listed::Groups,
            prefix: "a+".into(),
            after: "ab".into(),
            limit: 7,
        };
        assert_eq!(
            find("GET", "/groups?prefix=a%2B&after=ab&limit=7"),
            Ok(Route::Names(query))
        );
        for (method, target, code) in [
            ("GET", "/names/a", 405),
            ("POST", "/names", 405),
            ("POST", "/names/%4/send", 400),
            ("POST", "/names/%ff/send", 400),
            ("GET", "/names?limit=1001", 400),
            ("GET", "/names?search=a", 400),
            ("DELETE", "/names/a?how=now", 400),
            ("POST", "/groups/a/send?x=1", 400),
        ] {
            assert_eq!(find(method, target), Err(code), "{method} {target}");
        }
        assert_eq!(find("DELETE", "/connections"), Err(405));
        assert_eq!(
            find("get", "/status"),
            Err(405),
            "methods are case-sensitive"
        );
    }

    #[test]
    fn unknown_paths_are_404() {
        for target in [
            "/nowhere",
            "/status/",
            "//",
            "/connections/",
            "/connections/3",
            "/connections/3.x",
            "/connections/3.7/send/",
        ] {
            assert_eq!(find("GET", target), Err(404), "{target}");
        }
        assert_eq!(find("POST", "/connections/me/send"), Err(404));
        assert_eq!(find("DELETE", "/connections/99999999999.1"), Err(404));
    }

    #[test]
    fn listing_follows_the_query() {
        let expected = ListQuery {
            sort: Sort::Bytes,
            order: Direction::Ascending,
            offset: 99_000,
            limit: 1000,
            search: "[::1]:".into(),
        };
        let target = "/connections?sort=bytes&order=asc&offset=99000&limit=1000&search=%5B::1%5D:";
        assert_eq!(find("GET", target), Ok(Route::Connections(expected)));
    }

    #[test]
    fn invalid_queries_are_rejected() {
        for target in [
            "/connections?sort=colour",
            "/connections?order=up",
            "/connections?limit=1001",
            "/connections?limit=-1",
            "/connections?limit=many",
            "/connections?limit=",
            "/connections?offset=100000&limit=1",
            "/connections?offset=99999999999999999999",
            "/connections?colour=red",
            "/closed?limit=1001",
            "/closed?offset=1",
        ] {
            assert_eq!(find("GET", target), Err(400), "{target}");
        }
        for target in [
            "/drain?grace=5",
            "/drain?grace=soon",
            "/drain?grace=",
            "/drain?now=true",
        ] {
            assert_eq!(find("POST", target), Err(400), "{target}");
        }
        for target in ["/connections/3.7?now=perhaps", "/connections/3.7?then=true"] {
            assert_eq!(find("DELETE", target), Err(400), "{target}");
        }
    }
}
