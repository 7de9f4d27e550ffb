//! `slice`: a response that its upstream is asked for in slices of one size, one request after the other, so that each
//! of them can be kept and fetched by itself.
//!
//! 1. `proxy_set_header Range $slice_range` asks for the slice that the client's range begins in: `append_range`.
//! 2. `filter` looks at the answer. A 206 with the right Content-Range becomes the 200 of the whole; `ranges` makes it
//!    the client's own 206. Any other status passes as it is: that upstream knows no ranges.
//! 3. The `Plan` says which bytes of which slice are the client's. The shell follows it: the upstream's own response
//!    first, then an `Order` at a time, each for the next slice.
//! 4. Those are requests in the same location with the same head, and `filter` looks at their answers too. One that is
//!    not the slice that was asked for, or of another version, ends the body before its time.

use std::ops::Range;
use std::rc::Rc;

use crate::base::ascii::append_decimal;
use crate::base::level::Level;
use crate::conf::directive::Arity;
use crate::http::body::Body;
use crate::http::build::arguments::size;
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::subrequest::Order;
use crate::http::variables::VariableEntry;
use crate::message::{FieldName, Status, parse_content_range};

settings! {
    module slice;
    fields {
        /// Bytes of the slices that a response is asked for in, by `$slice_range`; 0 for the whole at once.
        size: u64 = 0, inherit;
            "slice" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
    }
}

/// `$slice_range`: the value of the Range field that asks for the present slice.
pub static VARIABLES: &[VariableEntry] = &[VariableEntry::new("slice_range", append_range)];

/// The slice that a request asks its upstream for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its first byte.
    pub start: u64,
    /// Its length, unless the content ends before.
    pub size: u64,
    /// The entity tag of the slices before it; empty if there is none.
    pub etag: Rc<[u8]>,
}

/// What is remembered of a request.
pub struct State {
    slice: Slice,
    /// How the body is to be made, once the first slice has turned out to be one.
    plan: Option<Plan>,
}

/// See [`State`]; none for requests that have not asked for `$slice_range`.
pub type Note = Option<Box<State>>;

/// What a subrequest for this slice remembers.
pub fn for_subrequest(slice: Slice) -> Note {
    Some(Box::new(State { slice, plan: None }))
}

fn append_range(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    if exchange.notes.slice.is_none() {
        let size = context.site.settings(exchange.location).slice.size;
        if size == 0 || exchange.is_subrequest() {
            return false;
        }
        let start = requested_start(exchange) / size * size;
        let slice = Slice { start, size, etag: Rc::default() };
        exchange.notes.slice = Some(Box::new(State { slice, plan: None }));
    }
    let Some(state) = &exchange.notes.slice else { return false };
    let Slice { start, size, .. } = state.slice;
    out.extend_from_slice(b"bytes=");
    append_decimal(out, start);
    out.push(b'-');
    append_decimal(out, start + (size - 1));
    true
}

/// Where the client's range begins, as far as that can be known without the content's length; read as nginx reads it.
fn requested_start(exchange: &Exchange) -> u64 {
    if exchange.head.has(FieldName::IfRange) {
        return 0;
    }
    let Some((unit, set)) = exchange.head.field(FieldName::Range).and_then(|value| value.split_at_checked(6))
    else {
        return 0;
    };
    if !unit.eq_ignore_ascii_case(b"bytes=") || set.contains(&b',') {
        return 0;
    }
    let digits = set.trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    // An offset is a signed number of 64 bits.
    crate::base::ascii::parse_u64(&digits[..end]).filter(|start| *start <= i64::MAX as u64).unwrap_or(0)
}

/// Header filter: makes a slice the whole that it is of, and keeps how to make the rest; a status if it is none.
pub fn filter(exchange: &mut Exchange, context: &mut Context) -> Option<Status> {
    let mut state = exchange.notes.slice.take()?;
    state.plan = None;
    let is_part = exchange.is_subrequest();
    let failure = match exchange.response.status {
        Status::PARTIAL_CONTENT => match look_at(exchange, &state.slice) {
            Ok(_) if is_part => None,
            Ok(plan) => {
                become_whole(exchange, &plan);
                state.plan = Some(plan);
                None
            }
            Err(failure) => Some(failure),
        },
        // An error page, or an upstream that does not know ranges; the same again would not find another answer.
        _ if !is_part => return None,
        status => Some(format!("unexpected status code {} in slice response", status.0)),
    };
    let Some(failure) = failure else {
        exchange.notes.slice = Some(state);
        return None;
    };
    exchange.log_in_scope(context.env, Level::Error, format_args!("{failure}"));
    if !is_part {
        // The fields of the slice do not belong to the 502 that replaces it.
        exchange.response.fields.clear_lines();
        return Some(Status::BAD_GATEWAY);
    }
    // Whose part it was sees that it is none, by the status.
    exchange.notes.slice = Some(state);
    exchange.response.status = Status::BAD_GATEWAY;
    exchange.response.set_content_length(0);
    exchange.body = Body::Empty;
    None
}

/// Whether a 206 is what was asked for, and how the body begins then.
fn look_at(exchange: &Exchange, slice: &Slice) -> Result<Plan, String> {
    let response = &exchange.response;
    let etag = response.etag.map_or(&b""[..], |span| response.text(span));
    if !slice.etag.is_empty() && *etag != *slice.etag {
        return Err("etag mismatch in slice response".into());
    }
    let range = response.fields.first(FieldName::ContentRange).and_then(parse_content_range);
    let Some((range, total)) = range else { return Err("invalid range in slice response".into()) };
    let Some(total) = total else { return Err("no complete length in slice response".into()) };
    let end = slice.start.saturating_add(slice.size).min(total);
    if range != (slice.start..end) {
        return Err(format!("unexpected range in slice response: {}-{}", range.start, range.end));
    }
    let length = match &exchange.body {
        Body::Upstream(length) => *length,
        body => Some(body.len()),
    };
    if !exchange.is_head() && length.is_some_and(|length| length != range.end - range.start) {
        return Err("unexpected length in slice response".into());
    }
    let present = range;
    Ok(Plan { size: slice.size, total, wanted: 0..total, present, etag: etag.into() })
}

fn become_whole(exchange: &mut Exchange, plan: &Plan) {
    if let Body::Upstream(length @ None) = &mut exchange.body {
        *length = Some(plan.present.end - plan.present.start);
    }
    let response = &mut exchange.response;
    response.status = Status::OK;
    response.reason = None;
    response.fields.retain(|id, _| !matches!(id, FieldName::ContentRange | FieldName::AcceptRanges));
    response.set_content_length(plan.total);
    exchange.allow_ranges = true;
}

impl Exchange {
    /// Whether the response is made of slices.
    pub fn is_sliced(&self) -> bool {
        self.notes.slice.as_ref().is_some_and(|state| state.plan.is_some())
    }

    /// Cuts the client's range out of a response that is made of slices; `false` if it is none.
    pub fn slice_wanted(&mut self, range: &Range<u64>) -> bool {
        let plan = self.notes.slice.as_mut().and_then(|state| state.plan.as_mut());
        plan.map(|plan| plan.wanted = range.clone()).is_some()
    }

    /// How to make the body, for the shell.
    pub fn take_slices(&mut self) -> Option<Plan> {
        self.notes.slice.as_mut()?.plan.take()
    }

    /// What was asked for in one location is not what another one asks for.
    pub fn forget_slice(&mut self) {
        if !self.is_subrequest() {
            self.notes.slice = None;
        }
    }

    /// The request for a slice of this one's response.
    pub fn order_slice(&self, slice: Slice) -> Order {
        Order {
            location: Some(self.location),
            keeps_method: true,
            with_body: !matches!(self.request_body, RequestBody::Unread),
            slice: Some(slice),
            ..Order::default()
        }
    }
}

/// What is still to be sent, and what of it comes from where. Slices come in order; who follows the plan asks
/// [`Plan::next_step`] what to do with the bytes of the present one, tells it with [`Plan::advance`] what was done, and
/// begins the next one with [`Plan::next_slice`] when the present one is at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    size: u64,
    total: u64,
    /// Bytes of the content that the client still gets.
    wanted: Range<u64>,
    /// Bytes of the content that the present slice still brings.
    present: Range<u64>,
    etag: Rc<[u8]>,
}

/// What to do with bytes of the present slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// So many are not the client's.
    Skip(u64),
    /// So many are.
    Send(u64),
    /// The slice should not have any more.
    Surplus,
}

impl Plan {
    /// Bytes that the client still gets.
    pub fn left(&self) -> u64 {
        self.wanted.end - self.wanted.start
    }

    /// What to do with the next `available` bytes (not 0), or with the first of them.
    pub fn next_step(&self, available: u64) -> PlanStep {
        let Range { start, end } = self.present;
        let most = available.min(end - start);
        let (from, to) = (self.wanted.start, self.wanted.end);
        match most {
            0 => PlanStep::Surplus,
            most if from < start || from >= end || from == to => PlanStep::Skip(most),
            most if from > start => PlanStep::Skip(most.min(from - start)),
            most => PlanStep::Send(most.min(to - from)),
        }
    }

    /// So many bytes were skipped or sent.
    pub fn advance(&mut self, count: u64) {
        debug_assert!(count <= self.present.end - self.present.start, "within the present slice");
        if self.present.start == self.wanted.start && self.left() > 0 {
            self.wanted.start += count;
        }
        self.present.start += count;
    }

    /// Whether all bytes of the present slice have come.
    pub fn slice_is_whole(&self) -> bool {
        self.present.is_empty()
    }

    /// The slice with the next byte; only while something is [`left`](Plan::left).
    pub fn next_slice(&mut self) -> Slice {
        let start = self.wanted.start / self.size * self.size;
        self.present = start..start.saturating_add(self.size).min(self.total);
        Slice { start, size: self.size, etag: Rc::clone(&self.etag) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::testing::{World, complaints};

    const SITE: &str = "slice 10; server { location / { proxy_set_header Range $slice_range; \
        add_header X-Slice [$slice_range]; proxy_pass http://b; } location /off/ { slice 0; return 200 [$slice_range]; } \
        location /other/ { slice 4; return 200 $slice_range; } location /redirect/ { slice 7; set $a $slice_range; \
        error_page 404 = /other/; return 404; } }";

    fn part(range: &str, more: &str) -> String {
        format!("HTTP/1.1 206 P\r\nContent-Range: bytes {range}\r\nAccept-Ranges: bytes\r\n{more}\r\n")
    }

    #[test]
    fn the_slice_that_the_client_s_range_begins_in_is_asked_for() {
        let mut world = World::new(SITE);
        for (range, asked) in [
            ("Range: bytes=0-1", "0-3"),
            ("Range: bytes=3-9", "0-3"),
            ("Range: BYTES=  4-", "4-7"),
            ("Range: bytes=1003-1", "1000-1003"),
            ("Range: bytes=9x", "8-11"),
            ("Range: bytes=-5", "0-3"),
            ("Range: bytes=5-6,8-9", "0-3"),
            ("Range: bytes=99999999999999999999-", "0-3"),
            ("Range: bytes=9223372036854775807-", "9223372036854775804-9223372036854775807"),
            ("Range: lines=5-6", "0-3"),
            ("Range: bytes=", "0-3"),
            ("Range: x", "0-3"),
            ("If-Range: \"x\"\r\nRange: bytes=5-6", "0-3"),
            ("X: y", "0-3"),
        ] {
            let reply = world.get_with("/other/", &format!("{range}\r\n"));
            assert_eq!(reply.text(), format!("bytes={asked}"), "{range}");
        }
        assert_eq!(world.get("/off/").text(), "[]");
        assert_eq!(world.get_with("/redirect/", "Range: bytes=5-\r\n").text(), "bytes=4-7");
    }

    #[test]
    fn a_slice_becomes_the_whole_or_the_client_s_range_of_it() {
        let mut world = World::new(SITE);
        let first = part("0-9/25", "Content-Length: 10\r\nETag: \"x\"\r\n") + "0123456789";
        let reply = world.upstream(&first).get("/");
        assert_eq!((reply.status, &reply.field("content-length")[..]), (200, "25"));
        assert_eq!((&reply.field("accept-ranges")[..], reply.has("content-range")), ("bytes", false));
        assert_eq!((&reply.field("etag")[..], &reply.field("x-slice")[..]), ("\"x\"", "[bytes=0-9]"));
        let second = part("10-19/25", "Content-Length: 10\r\n") + "0123456789";
        let reply = world.upstream(&second).get_with("/", "Range: bytes=12-22\r\n");
        assert_eq!((reply.status, &reply.field("content-range")[..]), (206, "bytes 12-22/25"));
        assert_eq!(reply.field("content-length"), "11");
        let reply = world.upstream(&second).get_with("/", "Range: bytes=12-11\r\n");
        assert_eq!((reply.status, &reply.field("content-range")[..]), (416, "bytes */25"));
        let reply = world.upstream(&first).get_with("/", "Range: bytes=0-1,5-6\r\n");
        assert_eq!((reply.status, &reply.field("content-length")[..]), (200, "25"));
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Range: as it came\r\n\r\nabc";
        let reply = world.upstream(whole).get_with("/", "Range: bytes=1-1\r\n");
        assert_eq!((reply.status, reply.text()), (200, "abc"));
        assert_eq!(reply.field("content-range"), "as it came");
    }

    #[test]
    fn what_is_not_the_slice_that_was_asked_for_is_a_bad_gateway() {
        let mut world = World::new(SITE);
        let lines = |range: &str| part(range, "ETag: \"x\"\r\nContent-Length: 10\r\n") + "0123456789";
        for (response, told) in [
            (lines("3-12/25"), "unexpected range in slice response: 3-13"),
            (lines("0-8/25"), "unexpected range in slice response: 0-9"),
            (lines("0-10/25"), "unexpected range in slice response: 0-11"),
            (lines("0-9/*"), "no complete length in slice response"),
            (lines("none"), "invalid range in slice response"),
            ("HTTP/1.1 206 P\r\nContent-Length: 1\r\n\r\na".into(), "invalid range in slice response"),
            (part("0-9/25", "Content-Length: 9\r\n") + "012345678", "unexpected length in slice response"),
        ] {
            let reply = world.upstream(&response).get("/");
            assert_eq!((reply.status, &reply.log_texts()[..]), (502, &[&format!("[error] {told}")[..]][..]));
            let leftovers = ["content-range", "accept-ranges", "etag", "last-modified"];
            assert!(!leftovers.iter().any(|name| reply.has(name)), "{}", reply.head);
        }
        let mut world = World::new(&format!("error_page 502 = /other/; {SITE}"));
        assert_eq!(world.upstream(&lines("3-12/25")).get("/").text(), "bytes=0-3");
    }

    #[test]
    fn a_slice_has_a_size() {
        for text in ["slice x;", "slice -1;"] {
            assert_eq!(complaints(text), ["[emerg] \"slice\" directive invalid value"], "{text}");
        }
        assert_eq!(complaints("slice 1m; slice 2m;"), ["[emerg] \"slice\" directive is duplicate"]);
        assert_eq!(complaints("slice 1m; server { slice 0; location / { slice 2m; } }"), [""; 0]);
    }

    /// Follows a plan over a content, each slice coming in pieces of this length.
    fn follow(content: &[u8], first: Range<u64>, wanted: Range<u64>, size: u64, piece: usize) -> (Vec<u8>, usize) {
        let total = content.len() as u64;
        let mut plan = Plan { size, total, wanted, present: first, etag: Rc::default() };
        let (mut sent, mut slices) = (Vec::new(), 0);
        let mut rest = content[plan.present.start as usize..plan.present.end as usize].to_vec();
        while plan.left() > 0 {
            if rest.is_empty() {
                assert!(plan.slice_is_whole());
                let slice = plan.next_slice();
                let end = (slice.start + slice.size).min(total);
                rest = content[slice.start as usize..end as usize].to_vec();
                slices += 1;
                continue;
            }
            let count = match plan.next_step(rest.len().min(piece) as u64) {
                PlanStep::Surplus => panic!("no more than was announced"),
                PlanStep::Skip(count) => count,
                PlanStep::Send(count) => {
                    sent.extend_from_slice(&rest[..count as usize]);
                    count
                }
            };
            plan.advance(count);
            rest.drain(..count as usize);
        }
        (sent, slices)
    }

    proptest! {
        #[test]
        fn a_plan_yields_what_the_client_wants_and_asks_for_no_more(
            content in prop::collection::vec(any::<u8>(), 1..200),
            size in 1u64..50,
            first in 0u64..200,
            ends in (0u64..200, 0u64..200),
            piece in 1usize..60,
        ) {
            let total = content.len() as u64;
            let first = first % total / size * size;
            let (from, to) = (ends.0 % total, ends.1 % total);
            let wanted = from.min(to)..from.max(to) + 1;
            let present = first..(first + size).min(total);
            let (sent, slices) = follow(&content, present.clone(), wanted.clone(), size, piece);
            prop_assert_eq!(&sent[..], &content[wanted.start as usize..wanted.end as usize]);
            let needed = (wanted.end - 1) / size - wanted.start / size + 1;
            let first_helps = wanted.start / size * size == present.start;
            prop_assert_eq!(slices as u64, needed - u64::from(first_helps));
        }
    }

    #[test]
    fn more_than_a_slice_is_surplus() {
        let mut plan = Plan { size: 2, total: 5, wanted: 0..5, present: 0..2, etag: Rc::default() };
        assert_eq!(plan.next_step(9), PlanStep::Send(2));
        plan.advance(2);
        assert!(plan.slice_is_whole());
        assert_eq!(plan.next_step(1), PlanStep::Surplus);
        assert_eq!(plan.next_slice().start, 2);
    }
}
