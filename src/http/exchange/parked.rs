//! What is kept of an exchange while its response waits for a reader that takes nothing.
//!
//! An exchange on its way has room for whatever may become of it. Once its head is sent, and until its body is, little
//! of that is of use: what its line in the log says, what its filters go on with, what is given back at its end. A
//! [`ParkedExchange`] is that and nothing more, its texts in one piece; the exchange itself serves other requests
//! meanwhile. Any exchange can be parked at that point, and none is another one for having been.

use crate::base::regex::Captures;
use crate::http::body::Body;
use crate::http::body_filters::FilterSpecs;
use crate::http::modules::Notes;
use crate::http::phases::Stage;
use crate::http::site::{AddressId, LocationId, ServerId, SiteHandle};
use crate::http::subrequest::{Lineage, Order};
use crate::http::upstream_call::Passed;
use crate::http::variables::{Kept, Slot};
use crate::http::weaving::Weaving;
use crate::message::{Field, Fields, RequestFacts, ResponseFacts, Status};

use super::{ConnectionFacts, Exchange, Outcome, RequestBody};

/// See the module's documentation.
pub struct ParkedExchange {
    site: SiteHandle,
    address: AddressId,
    server: ServerId,
    location: LocationId,
    started_ms: u64,
    head: RequestFacts,
    response: ResponseFacts,
    texts: Texts<7>,
    /// The request's lines, and behind them the response's.
    lines: Box<[Field]>,
    request_lines: u32,
    /// The slots that are not unset.
    slots: Box<[(Slot, Kept)]>,
    outcome: Outcome,
    limit_rate: Option<u64>,
    request_body_length: u64,
    error_status: Option<Status>,
    stage: Stage,
    uri_changes_left: u8,
    flags: Flags,
    captures: Option<Box<Captures>>,
    notes: Option<Box<Notes>>,
    rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<ParkedExchange>() <= 408, "a parked exchange is to stay small");

struct Flags {
    uri_is_original: bool,
    uri_fits_location: bool,
    uri_extends_alias: bool,
    internal: bool,
    method_is_get: bool,
    in_error_page: bool,
    keep_alive: bool,
    allow_ranges: bool,
}

/// What few exchanges have.
#[derive(Default)]
struct Rare {
    /// Where the request says something else than its connection.
    connection: Option<ConnectionFacts>,
    request_body: RequestBody,
    body: Body,
    body_filters: FilterSpecs,
    weaving: Option<Box<Weaving>>,
    upstream: Option<Box<Passed>>,
    lineage: Option<Lineage>,
    order: Option<Box<Order>>,
    background: Vec<Order>,
    sent_trailers: Fields,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.connection.is_none()
            && matches!(self.request_body, RequestBody::Unread)
            && self.body.is_empty()
            && self.body_filters.is_empty()
            && self.weaving.is_none()
            && self.upstream.is_none()
            && self.lineage.is_none()
            && self.order.is_none()
            && self.background.is_empty()
            && self.sent_trailers.is_empty()
    }
}

/// Texts in one piece.
struct Texts<const N: usize> {
    bytes: Box<[u8]>,
    lengths: [u32; N],
}

impl<const N: usize> Texts<N> {
    fn pack(texts: [&[u8]; N]) -> Texts<N> {
        Texts { bytes: texts.concat().into_boxed_slice(), lengths: texts.map(|text| text.len() as u32) }
    }

    fn unpack(&self) -> [&[u8]; N] {
        let mut rest = &*self.bytes;
        self.lengths.map(|length| {
            let (text, behind) = rest.split_at(length as usize);
            rest = behind;
            text
        })
    }
}

impl Exchange {
    /// Leaves what is needed to go on with sending the body; what stays behind is memory for another request. `facts`
    /// are those of its connection.
    pub fn park(&mut self, facts: &ConnectionFacts) -> ParkedExchange {
        let Exchange {
            site,
            address,
            server,
            location,
            connection,
            started_ms,
            head,
            uri,
            args,
            uri_is_original,
            uri_fits_location,
            uri_extends_alias,
            internal,
            uri_changes_left,
            method_is_get,
            stage,
            // Each begins anew where an internal redirect leads to it.
            rewriting: _,
            trying: _,
            content_step: _,
            captures,
            capture_subject,
            path,
            // Of no use without a file to open.
            root_length: _,
            symlinks: _,
            opened: _,
            reading: _,
            // Nothing is computed now.
            variable_depth: _,
            sent_trailers,
            request_body,
            request_body_length,
            error_status,
            in_error_page,
            keep_alive,
            response,
            body,
            body_filters,
            weaving,
            allow_ranges,
            limit_rate,
            upstream,
            notes,
            lineage,
            order,
            background,
            outcome,
            slots,
            slot_text,
        } = self;
        let captures = std::mem::take(captures);
        let notes = std::mem::take(notes);
        let rare = Rare {
            connection: (!connection.are(facts)).then(|| connection.clone()),
            request_body: std::mem::take(request_body),
            body: std::mem::take(body),
            body_filters: std::mem::take(body_filters),
            weaving: weaving.take(),
            upstream: upstream.take_if(|passed| !passed.is_clear()),
            lineage: lineage.take(),
            order: order.take(),
            background: std::mem::take(background),
            sent_trailers: std::mem::take(sent_trailers),
        };
        let set = slots.iter().enumerate().filter(|(_, kept)| **kept != Kept::Unset);
        ParkedExchange {
            site: site.clone(),
            address: *address,
            server: *server,
            location: *location,
            started_ms: *started_ms,
            head: head.facts(),
            response: response.facts(),
            texts: Texts::pack([
                head.fields.text(),
                uri,
                args,
                path,
                capture_subject,
                slot_text,
                response.fields.text(),
            ]),
            lines: [head.fields.list(), response.fields.list()].concat().into_boxed_slice(),
            request_lines: head.fields.len() as u32,
            slots: set.map(|(slot, kept)| (Slot(slot as u16), *kept)).collect(),
            outcome: *outcome,
            limit_rate: *limit_rate,
            request_body_length: *request_body_length,
            error_status: *error_status,
            stage: *stage,
            uri_changes_left: *uri_changes_left,
            flags: Flags {
                uri_is_original: *uri_is_original,
                uri_fits_location: *uri_fits_location,
                uri_extends_alias: *uri_extends_alias,
                internal: *internal,
                method_is_get: *method_is_get,
                in_error_page: *in_error_page,
                keep_alive: *keep_alive,
                allow_ranges: *allow_ranges,
            },
            captures: (!captures.is_empty()).then(|| Box::new(captures)),
            notes: (!notes.are_settled()).then(|| Box::new(notes)),
            rare: (!rare.is_empty()).then(|| Box::new(rare)),
        }
    }

    /// Becomes the exchange that was parked.
    pub fn resume(&mut self, parked: ParkedExchange, facts: &ConnectionFacts) {
        self.begin_again(&parked.site, parked.address, parked.started_ms);
        self.server = parked.server;
        self.location = parked.location;
        let [head, uri, args, path, capture_subject, slot_text, response] = parked.texts.unpack();
        let (request_lines, response_lines) = parked.lines.split_at(parked.request_lines as usize);
        self.head.restore(head, request_lines, &parked.head);
        self.response.restore(response, response_lines, &parked.response);
        self.uri.extend_from_slice(uri);
        self.args.extend_from_slice(args);
        self.path.extend_from_slice(path);
        self.capture_subject.extend_from_slice(capture_subject);
        self.slot_text.extend_from_slice(slot_text);
        for (slot, kept) in &parked.slots {
            self.slots[usize::from(slot.0)] = *kept;
        }
        self.outcome = parked.outcome;
        self.limit_rate = parked.limit_rate;
        self.request_body_length = parked.request_body_length;
        self.error_status = parked.error_status;
        self.stage = parked.stage;
        self.uri_changes_left = parked.uri_changes_left;
        let flags = parked.flags;
        self.uri_is_original = flags.uri_is_original;
        self.uri_fits_location = flags.uri_fits_location;
        self.uri_extends_alias = flags.uri_extends_alias;
        self.internal = flags.internal;
        self.method_is_get = flags.method_is_get;
        self.in_error_page = flags.in_error_page;
        self.keep_alive = flags.keep_alive;
        self.allow_ranges = flags.allow_ranges;
        if let Some(captures) = parked.captures {
            self.captures = *captures;
        }
        if let Some(notes) = parked.notes {
            self.notes = *notes;
        }
        self.connection.clone_from(facts);
        if let Some(rare) = parked.rare {
            self.resume_rare(*rare);
        }
    }

    fn resume_rare(&mut self, rare: Rare) {
        let Rare {
            connection,
            request_body,
            body,
            body_filters,
            weaving,
            upstream,
            lineage,
            order,
            background,
            sent_trailers,
        } = rare;
        if let Some(connection) = connection {
            self.connection = connection;
        }
        if upstream.is_some() {
            self.upstream = upstream;
        }
        self.request_body = request_body;
        self.body = body;
        self.body_filters = body_filters;
        self.weaving = weaving;
        self.lineage = lineage;
        self.order = order;
        self.background = background;
        self.sent_trailers = sent_trailers;
    }
}

#[cfg(test)]
mod tests {
    use crate::http::exchange::Endpoint;
    use crate::http::probe::Probe;

    const SITE: &str = "log_format x \"$remote_addr $request|$uri|$args|$status|$sent_http_x_b|$http_x_a|$v|$n|$kept|\
        $content_length|$request_method|$limit_rate\"; \
        map $arg_a $kept { default none; ~(?<m>.) $m$m; } \
        server { access_log own x; \
          location ~ ^/(?<n>.)x { set $v \"$1-$n\"; add_header X-B $v; return 200 \"body of $n\"; } }";

    #[test]
    fn an_exchange_ends_as_it_would_have_without_having_been_parked() {
        let mut probe = Probe::new(SITE);
        let mut exchange =
            probe.run(b"GET /ax?a=2 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nContent-Length: 5\r\n\r\n");
        exchange.limit_rate = Some(7);
        exchange.log_access(&mut probe.env);
        let (expected, body) = (probe.access_lines(), format!("{:?}", exchange.body));
        assert!(expected.contains("|a-a|1|a-a|a|22|5|GET|7"), "{expected}");
        let facts = exchange.connection.clone();
        let mut others_facts = facts.clone();
        others_facts.peer = Endpoint::Unix(Box::default());
        for facts in [&facts, &others_facts] {
            let parked = exchange.park(facts);
            // Its memory serves others meanwhile, and it goes on in that of another one.
            let mut other = probe.run(b"POST /missing HTTP/1.1\r\nHost: other\r\nX-C: 1\r\n\r\n");
            other.resume(parked, facts);
            other.log_access(&mut probe.env);
            assert_eq!(probe.access_lines(), expected);
            assert_eq!(format!("{:?}", other.body), body);
            exchange = other;
        }
    }
}
