//! The list of connections: sorting, search, the visible part, and the selection.

use crate::admin::api::{ConnectionEntry, ConnectionList};
use crate::admin::api::{MAX_LISTED, MAX_OFFSET, Sort};

/// The query of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListRequest {
    sort: Sort,
    descending: bool,
    address: String,
    offset: usize,
    limit: usize,
}

impl ListRequest {
    pub(super) fn path(&self) -> String {
        let order = if self.descending { "desc" } else { "asc" };
        const PATH: &str = "/connections?";
        let mut path = form_urlencoded::Serializer::for_suffix(PATH.to_string(), PATH.len());
        path.append_pair("sort", self.sort.as_str())
            .append_pair("order", order);
        path.append_pair("offset", &self.offset.to_string())
            .append_pair("limit", &self.limit.to_string());
        if !self.address.is_empty() {
            path.append_pair("search", &self.address);
        }
        path.finish()
    }
}

#[derive(Debug)]
pub(super) struct List {
    sort: Sort,
    descending: bool,
    address: String,
    /// The selected place, counted from the first line of all.
    cursor: usize,
    /// The connection that the user selected: the selection follows it.
    followed: Option<String>,
    /// The first place that is seen, and how many are.
    top: usize,
    rows: usize,
    /// The part of the list that is here.
    part: ConnectionList,
    /// Whether it is of the list as it is sorted and searched now.
    current: bool,
}

impl List {
    pub(super) fn new() -> Self {
        List {
            sort: Sort::Silence,
            descending: true,
            address: String::new(),
            cursor: 0,
            followed: None,
            top: 0,
            rows: 1,
            part: ConnectionList::default(),
            current: false,
        }
    }

    pub(super) fn sort(&self) -> Sort {
        self.sort
    }

    pub(super) fn descending(&self) -> bool {
        self.descending
    }

    /// The prefix of the addresses.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn matched(&self) -> u64 {
        self.part.matched
    }

    /// Whether the visible rows are those of the current query.
    pub(super) fn is_current(&self) -> bool {
        self.current
    }

    /// The rows to fetch: the visible ones and as many before and after them, so that scrolling
    /// finds them present. It changes once per page.
    pub(super) fn query(&self) -> ListRequest {
        let page = self.top / self.rows * self.rows;
        let offset = page.saturating_sub(self.rows);
        let limit = (self.rows * 4)
            .min(MAX_LISTED)
            .min(MAX_OFFSET - offset.min(MAX_OFFSET - 1));
        ListRequest {
            sort: self.sort,
            descending: self.descending,
            address: self.address.clone(),
            offset,
            limit,
        }
    }

    /// The answer to `query`.
    pub(super) fn take(&mut self, query: &ListRequest, part: ConnectionList) {
        if (query.sort, query.descending, &query.address)
            != (self.sort, self.descending, &self.address)
        {
            // Of a list that is not wanted any more; another answer is on its way.
            return;
        }
        (self.part, self.current) = (part, true);
        if let Some(followed) = &self.followed {
            match self
                .part
                .connections
                .iter()
                .position(|connection| connection.id == *followed)
            {
                Some(index) => self.cursor = self.first() + index,
                None => self.followed = None,
            }
        }
        self.keep_in_view();
    }

    /// Sets the number of visible rows.
    pub(super) fn fit(&mut self, rows: usize) {
        self.rows = rows.clamp(1, MAX_LISTED / 4);
        self.keep_in_view();
    }

    /// The visible rows, from the top; `None` for a row that was not fetched yet.
    pub(super) fn seen(&self) -> impl Iterator<Item = (bool, Option<&ConnectionEntry>)> {
        let end = self.reachable().min(self.top + self.rows);
        (self.top..end).map(|place| (place == self.cursor, self.at(place)))
    }

    pub(super) fn selected(&self) -> Option<&ConnectionEntry> {
        self.at(self.cursor)
    }

    /// Sorts by this key; by the current key, in the opposite order.
    pub(super) fn sort_by(&mut self, sort: Sort) {
        self.descending = self.sort != sort || !self.descending;
        self.sort = sort;
        self.start_over();
    }

    pub(super) fn search(&mut self, address: &str) {
        self.address = address.to_string();
        self.start_over();
    }

    /// Selects another line, and follows it.
    pub(super) fn step(&mut self, places: isize) {
        self.go(self.cursor.saturating_add_signed(places));
        self.followed = self.selected().map(|connection| connection.id.clone());
    }

    /// Moves by pages. The selection then stays on the page and follows no connection.
    pub(super) fn page(&mut self, pages: isize) {
        let places = pages.saturating_mul(self.rows as isize);
        self.top = self.top.saturating_add_signed(places);
        self.go(self.cursor.saturating_add_signed(places));
    }

    pub(super) fn first_line(&mut self) {
        self.go(0);
    }

    pub(super) fn last_line(&mut self) {
        self.go(usize::MAX);
    }

    fn go(&mut self, place: usize) {
        self.followed = None;
        self.cursor = place;
        self.keep_in_view();
    }

    fn start_over(&mut self) {
        self.current = false;
        self.go(0);
    }

    fn keep_in_view(&mut self) {
        let reachable = self.reachable();
        self.cursor = self.cursor.min(reachable.saturating_sub(1));
        // No empty rows below the last connection while there are some above.
        self.top = self.top.min(reachable.saturating_sub(self.rows));
        self.top = self
            .top
            .clamp((self.cursor + 1).saturating_sub(self.rows), self.cursor);
    }

    fn reachable(&self) -> usize {
        usize::try_from(self.part.matched)
            .unwrap_or(usize::MAX)
            .min(MAX_OFFSET)
    }

    /// The place of the first line that is here.
    fn first(&self) -> usize {
        usize::try_from(self.part.offset).unwrap_or(usize::MAX)
    }

    fn at(&self, place: usize) -> Option<&ConnectionEntry> {
        self.part.connections.get(place.checked_sub(self.first())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a server that holds connections with these ids.
    fn answer(ids: &[usize], query: &ListRequest) -> ConnectionList {
        let connection = |id: &usize| ConnectionEntry {
            id: id.to_string(),
            ..ConnectionEntry::default()
        };
        let connections = ids
            .iter()
            .skip(query.offset)
            .take(query.limit)
            .map(connection)
            .collect();
        ConnectionList {
            matched: ids.len() as u64,
            offset: query.offset as u64,
            connections,
            ..ConnectionList::default()
        }
    }

    fn refresh(list: &mut List, ids: &[usize]) {
        let query = list.query();
        list.take(&query, answer(ids, &query));
    }

    fn list(rows: usize, ids: &[usize]) -> List {
        let mut list = List::new();
        list.fit(rows);
        refresh(&mut list, ids);
        list
    }

    fn selected(list: &List) -> &str {
        list.selected().map_or("", |connection| &connection.id)
    }

    #[test]
    fn list_query_names_sort_order_and_range() {
        let mut list = list(10, &[]);
        assert_eq!(
            list.query().path(),
            "/connections?sort=silence&order=desc&offset=0&limit=40"
        );
        list.sort_by(Sort::RoundTrip);
        list.sort_by(Sort::RoundTrip);
        list.search("[::1]&x=");
        assert_eq!(
            list.query().path(),
            "/connections?sort=round_trip&order=asc&offset=0&limit=40&search=%5B%3A%3A1%5D%26x%3D"
        );
    }

    #[test]
    fn selection_reaches_every_row() {
        let ids: Vec<usize> = (0..97).collect();
        let mut list = list(10, &ids);
        for id in ids.iter().skip(1) {
            list.step(1);
            assert_eq!(selected(&list), id.to_string(), "before the next answer");
            assert!(list.seen().any(|(selected, _)| selected));
            assert!(list.seen().all(|(_, connection)| connection.is_some()));
            refresh(&mut list, &ids);
        }
        list.step(1);
        assert_eq!(selected(&list), "96", "the last is the last");
        for _ in 0..20 {
            list.page(-1);
            assert!(
                list.seen().all(|(_, connection)| connection.is_some()),
                "before the next answer"
            );
            refresh(&mut list, &ids);
        }
        assert_eq!(selected(&list), "0");
        list.last_line();
        refresh(&mut list, &ids);
        assert_eq!((selected(&list), list.seen().count()), ("96", 10));
    }

    #[test]
    fn selection_follows_its_connection() {
        let mut list = list(10, &[1, 2, 3, 4, 5]);
        refresh(&mut list, &[5, 4, 3, 2, 1]);
        assert_eq!(
            selected(&list),
            "5",
            "nobody has gone anywhere: it stays at the top"
        );
        list.step(1);
        refresh(&mut list, &[1, 2, 3, 4, 5]);
        assert_eq!(selected(&list), "4");
        refresh(&mut list, &[1, 2, 3, 5]);
        assert_eq!(selected(&list), "5");
        refresh(&mut list, &[5, 1, 2, 3]);
        assert_eq!(
            selected(&list),
            "3",
            "who has not been gone to is not followed"
        );
        refresh(&mut list, &[]);
        assert_eq!((list.selected(), list.seen().count()), (None, 0));
        list.step(1);
        list.page(1);
        list.last_line();
        assert_eq!(list.selected(), None);
    }

    #[test]
    fn outdated_list_answers_are_ignored() {
        let mut list = list(10, &[1, 2]);
        let old = list.query();
        list.sort_by(Sort::Age);
        assert!(!list.is_current());
        list.take(&old, answer(&[7, 8], &old));
        assert_eq!((selected(&list), list.is_current()), ("1", false));
        refresh(&mut list, &[7, 8]);
        assert_eq!((selected(&list), list.is_current()), ("7", true));
    }

    #[test]
    fn no_query_passes_the_bounds_of_the_server() {
        let mut list = List::new();
        for rows in [0, 1, 7, 250, 5000] {
            list.fit(rows);
            let matched = 2_000_000;
            list.take(
                &list.query(),
                ConnectionList {
                    matched,
                    ..ConnectionList::default()
                },
            );
            list.last_line();
            let query = list.query();
            assert!(
                (1..=1000).contains(&query.limit) && query.offset + query.limit <= 100_000,
                "{query:?}"
            );
            assert!(
                query.offset <= list.top && list.top + list.rows <= query.offset + query.limit,
                "{query:?} of {list:?}"
            );
        }
    }
}
