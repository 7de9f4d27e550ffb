//! Laws of a proxied exchange, for the corpora and the fuzz targets: a client's bytes, the request that the upstream gets
//! of them, the upstream's bytes, and what the client gets of those. The machines are the ones of the server; what it does
//! with sockets in between is played here. Each function panics where a law is broken.

use std::cell::RefCell;
use std::net::SocketAddr;

use crate::base::clock::{Now, RenderedDates};
use crate::base::log::LogQueue;
use crate::http::body::Body;
use crate::http::context::Env;
use crate::http::exchange::{ConnectionFacts, Endpoint, Exchange, RequestBody};
use crate::http::file::{FailureReason, FileAnswer, FileCall, FileFailure};
use crate::http::flow::{Answer, Need, Step};
use crate::http::modules::headers;
use crate::http::site::{AddressId, SiteHandle};
use crate::http::upstream_call::{Call, UpstreamFailure};
use crate::message::{Fields, RequestHead, ResponseFraming, Status};
use crate::proto::h1::{self, RespondOptions, ResponseError};

use super::failure::Failure;
use super::inbound::{Front, Inbound};
use super::outbound::{Next, Outbound};
use super::wire::{Event, Wire};

mod views;

use views::{Answered, Passed, Spoken};

/// Locations that pass requests on in different ways; the request's path chooses one.
const SITE: &str = "events { } http { access_log off; upstream u { server 192.0.2.1; }
    server { listen 80;
        location / { proxy_pass http://u; }
        location /s/ { proxy_pass http://u/x/; proxy_request_buffering off; proxy_buffering off; }
        location /0/ { proxy_pass http://u; proxy_http_version 1.0; proxy_request_buffering off; }
        location /t/ { proxy_pass http://u; proxy_request_buffering off; proxy_pass_trailers on; early_hints 1;
                       proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                       proxy_set_header X-Said $uri$is_args$args$http_cookie; }
        location /r/ { proxy_pass http://u; proxy_force_ranges on; proxy_cookie_path / /r/; }
        location /b/ { proxy_pass http://u; proxy_method PUT; proxy_set_body \"$request_body$arg_a\"; }
        location /v/ { proxy_pass http://u$request_uri; proxy_intercept_errors on; error_page 404 =200 /other; }
    } }";

/// More needs than this for one request are a loop without an end.
const MOST_STEPS: usize = 100;

/// What comes by wire.
#[derive(Clone, Copy)]
struct Input<'a> {
    client: &'a [u8],
    upstream: &'a [u8],
    /// The upstream's connection breaks behind its bytes; else it is closed.
    breaks: bool,
}

/// One exchange, with everything in pieces of these sizes (1 to 61 bytes for each byte, over and over): the upstream gets
/// one well-formed request for each time that it is asked; nothing that is between two neighbours passes either way; the
/// client gets at most one final response, which says that it is complete if and only if the upstream's was; and how all
/// of it was cut into pieces changes nothing.
pub fn fuzz_proxied_exchange(sizes: &[u8], client: &[u8], upstream: &[u8], breaks: bool) {
    let input = Input { client, upstream, breaks };
    GROUND.with_borrow_mut(|ground| {
        let whole = ground.run(input, &[]);
        for sizes in [sizes, &[0]] {
            assert_eq!(ground.run(input, sizes), whole, "in pieces of {sizes:?}");
        }
    });
}

thread_local! {
    static GROUND: RefCell<Ground> = RefCell::new(Ground::new());
}

/// A site, and a worker's side of it.
struct Ground {
    site: SiteHandle,
    env: Env,
}

impl Ground {
    fn new() -> Ground {
        let now = Now { monotonic_ms: 50_000, wall_secs: 1_700_000_000, wall_ms_part: 0 };
        let dates = RenderedDates::new(jiff::tz::TimeZone::UTC, now);
        Ground {
            site: crate::http::laws::site(SITE),
            env: Env::new(now, dates, LogQueue::default(), 1, 4711, b"machine"),
        }
    }

    /// One exchange from its first byte to its last; `None` if no head came.
    fn run(&mut self, input: Input<'_>, sizes: &[u8]) -> Option<Spoken> {
        self.env.logs.clear();
        let mut wire = h1::Connection::new();
        let mut head = RequestHead::default();
        let mut client = Pieces::new(input.client, sizes);
        let refusal = match read(&mut wire, &mut client, &mut head) {
            Ok(None) => return None,
            Ok(Some(_)) => None,
            Err(error) => Some(error.status),
        };
        let asked = views::Asked::by(&head);
        let address = |text: &str| Endpoint::Inet(text.parse::<SocketAddr>().expect("an address"));
        let facts = ConnectionFacts {
            number: 1,
            requests: 1,
            accepted_ms: 0,
            peer: address("192.0.2.9:5000"),
            local: address("192.0.2.8:80"),
            proxy_protocol: None,
            secure: false,
            lacks_tls: false,
            tls: None,
        };
        let mut exchange = Exchange::begin(self.site.clone(), AddressId(0), facts, 0, head);
        let step = match refusal {
            None => exchange.step(&mut self.env, None),
            Some(status) => exchange.refuse(&mut self.env, status),
        };
        let played = Played {
            env: &mut self.env,
            exchange,
            wire,
            client,
            upstream: Pieces::new(input.upstream, sizes),
            input,
            peer: None,
            inbound: Inbound::default(),
            body: Vec::new(),
            passed: Vec::new(),
            to_client: Vec::new(),
        };
        Some(played.finish(step, &asked))
    }
}

/// Bytes that come in pieces.
struct Pieces<'a> {
    rest: &'a [u8],
    /// Bytes of `rest` that are there.
    there: usize,
    sizes: &'a [u8],
    next: usize,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], sizes: &'a [u8]) -> Pieces<'a> {
        Pieces { rest: bytes, there: 0, sizes, next: 0 }
    }

    /// What is there; the next piece if that is nothing.
    fn piece(&mut self) -> &'a [u8] {
        if self.there == 0 {
            let size = match self.sizes {
                [] => usize::MAX,
                sizes => 1 + usize::from(sizes[self.next % sizes.len()]) % 61,
            };
            self.next += 1;
            self.there = size.min(self.rest.len());
        }
        &self.rest[..self.there]
    }

    /// Says what was left of the piece.
    fn leave(&mut self, left: &[u8]) {
        let taken = self.there - left.len();
        self.there = left.len();
        self.rest = &self.rest[taken..];
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The next event of a client's connection; `None` at its end.
fn read<'a>(
    wire: &mut h1::Connection,
    pieces: &mut Pieces<'a>,
    head: &mut RequestHead,
) -> Result<Option<h1::Event<'a>>, h1::RequestError> {
    loop {
        let mut piece = pieces.piece();
        let event = wire.read(&mut piece, &h1::HeadLimits::default(), head);
        pieces.leave(piece);
        match event? {
            h1::Event::NeedMore if pieces.is_empty() => return Ok(None),
            h1::Event::NeedMore => assert!(piece.is_empty(), "input is left"),
            event => return Ok(Some(event)),
        }
    }
}

/// What came of asking for more of the client's body.
enum Came {
    Some,
    Ended,
    /// The client has gone.
    Gone,
    Refused(Status),
}

/// The parts of an exchange while it is played.
struct Played<'g, 'a> {
    env: &'g mut Env,
    exchange: Exchange,
    wire: h1::Connection,
    client: Pieces<'a>,
    upstream: Pieces<'a>,
    input: Input<'a>,
    /// The upstream whose response is being read.
    peer: Option<Wire>,
    inbound: Inbound,
    /// Of the client's body, what was read.
    body: Vec<u8>,
    passed: Vec<Passed>,
    to_client: Vec<u8>,
}

impl Played<'_, '_> {
    fn finish(mut self, mut step: Step, asked: &views::Asked) -> Spoken {
        for _ in 0..MOST_STEPS {
            let answer = match step {
                Step::Close => return self.closed(asked),
                Step::Respond => return self.respond(asked),
                Step::Need(Need::RequestBody) => match self.read_body() {
                    Came::Some | Came::Ended => Ok(Answer::RequestBody(Ok(()))),
                    Came::Gone => return self.closed(asked),
                    Came::Refused(status) => Err(status),
                },
                Step::Need(Need::Upstream) => match self.pass_on(asked) {
                    Came::Some | Came::Ended => Ok(Answer::Upstream(self.read_head())),
                    Came::Gone => return self.closed(asked),
                    Came::Refused(status) => Err(status),
                },
                Step::Need(Need::File(_)) => Ok(Answer::File(FileAnswer::Failed(FileFailure {
                    call: FileCall::Open,
                    errno: 2,
                    reason: FailureReason::NotFound,
                }))),
                Step::Need(other) => panic!("nobody asks for {other:?} here"),
            };
            step = match answer {
                Ok(answer) => self.exchange.step(self.env, Some(answer)),
                Err(status) => self.exchange.refuse(self.env, status),
            };
        }
        panic!("{:?} has no end", self.exchange);
    }

    /// Reads some of the client's body into `self.body`.
    fn read_some(&mut self) -> Came {
        match read(&mut self.wire, &mut self.client, &mut self.exchange.head) {
            Ok(Some(h1::Event::Body(bytes))) => {
                self.body.extend_from_slice(bytes);
                Came::Some
            }
            Ok(Some(_)) => Came::Ended,
            Ok(None) => Came::Gone,
            Err(error) => Came::Refused(error.status),
        }
    }

    fn invite_body(&mut self) {
        if self.wire.withholds_body() {
            self.wire.interim(Status::CONTINUE, &mut self.to_client);
        }
    }

    fn read_body(&mut self) -> Came {
        self.invite_body();
        loop {
            match self.read_some() {
                Came::Some => {}
                Came::Ended => {
                    self.exchange.request_body_length = self.body.len() as u64;
                    self.exchange.request_body = RequestBody::Memory(self.body.clone());
                    return Came::Ended;
                }
                other => return other,
            }
        }
    }

    /// Sends the request to the upstream as the relay does, which reads it at once.
    fn pass_on(&mut self, asked: &views::Asked) -> Came {
        let call = call_of(&self.exchange);
        let mut sent = call.head.clone();
        let mut outbound = Outbound::new(call, &self.exchange.request_body, None);
        if outbound.awaits_client() {
            match self.wire.body_pending() {
                true => self.invite_body(),
                false => outbound.end(),
            }
        }
        let end = loop {
            match outbound.next(&call_of(&self.exchange).body, &self.exchange.request_body) {
                Next::Complete => break Came::Ended,
                Next::File(..) => panic!("nothing is put into files here"),
                Next::Bytes(bytes) => {
                    // A socket may take less than it is given.
                    let count = bytes.len().min(1000);
                    sent.extend_from_slice(&bytes[..count]);
                    outbound.consume(count as u64);
                }
                Next::Starved => {
                    let before = self.body.len();
                    match self.read_some() {
                        Came::Some => outbound.push(&self.body[before..]),
                        Came::Ended => outbound.end(),
                        other => break other,
                    }
                }
            }
        };
        let is_whole = matches!(end, Came::Ended);
        self.passed.push(Passed::read(&sent, is_whole, call_of(&self.exchange), asked, &self.body));
        end
    }

    /// Reads the upstream's response up to its final head, or says what is wrong with it.
    fn read_head(&mut self) -> Result<(), UpstreamFailure> {
        let call = call_of(&self.exchange);
        let early_hints = call.early_hints;
        let mut peer = Wire::new(call.protocol);
        peer.begin(call);
        // Every try is another connection, with the same answer.
        self.upstream = Pieces::new(self.input.upstream, self.upstream.sizes);
        self.inbound.clear();
        let end = loop {
            let Some(passed) = &mut self.exchange.upstream else { panic!("nothing was passed on") };
            let mut piece = self.upstream.piece();
            let event = peer.read(&mut piece, &mut passed.response);
            self.upstream.leave(piece);
            match event {
                Ok(Event::NeedMore) if self.upstream.is_empty() => {
                    break end_of(&mut peer, self.input.breaks);
                }
                Ok(Event::NeedMore) => assert!(piece.is_empty(), "input is left"),
                Ok(Event::Interim) => {
                    if early_hints && passed.response.status == Status::EARLY_HINTS {
                        let nominated = views::nominated(&passed.response.fields);
                        self.exchange.hide_from_early_hints();
                        let Some(passed) = &self.exchange.upstream else { panic!("nothing was passed on") };
                        let fields = &passed.response.fields;
                        assert!(views::lacks(fields, &nominated), "{fields:?}");
                        self.wire.interim_with(Status::EARLY_HINTS, fields, &mut self.to_client);
                    }
                }
                Ok(Event::Head(facts)) => {
                    passed.length = facts.length;
                    passed.switched = facts.switched;
                    passed.minor = facts.minor;
                    self.peer = Some(peer);
                    return Ok(());
                }
                Ok(other) => panic!("{other:?} before a head"),
                Err(error) => break Err(error),
            }
        };
        let failure = end.err().map_or(Failure::ResetBeforeHeader, |error| Failure::of_response(error.fault));
        Err(UpstreamFailure { token: failure.token(), status: Status(failure.status()) })
    }

    fn closed(self, asked: &views::Asked) -> Spoken {
        let answered = Answered::read(&self.to_client, asked, None, false);
        Spoken { passed: self.passed, answered }
    }

    /// Writes the response as the client's connection does.
    fn respond(mut self, asked: &views::Asked) -> Spoken {
        let site = self.exchange.site.clone();
        let settings = site.settings(self.exchange.location);
        let trailers = headers::has_trailers(&self.exchange) || self.exchange.passes_trailers();
        let of_upstream = matches!(self.exchange.body, Body::Upstream(_));
        let switches = of_upstream && self.exchange.is_switched();
        let options = RespondOptions {
            date: self.env.dates.http_date(),
            keep_alive_allowed: self.exchange.keep_alive,
            keep_alive_header: None,
            chunked_allowed: settings.core.chunked_transfer_encoding,
            trailers_expected: trailers,
            upgrade: switches,
        };
        let framing = self.wire.respond(&self.exchange.response, &options, &mut self.to_client);
        assert!(self.exchange.body_filters.is_empty());
        let body = match framing {
            ResponseFraming::None => Body::Empty,
            _ => std::mem::take(&mut self.exchange.body),
        };
        let is_whole = match &body {
            Body::Upstream(_) if switches => {
                self.to_client.extend_from_slice(self.upstream.rest);
                true
            }
            Body::Upstream(_) => self.pull(framing),
            other => {
                let mut bytes = Vec::new();
                append(other, &mut bytes);
                self.put(&bytes, framing);
                true
            }
        };
        if is_whole && framing == ResponseFraming::Streamed {
            let mut fields = Fields::default();
            if trailers {
                self.exchange.pass_trailers(&mut fields);
                self.exchange.render_trailers(self.env, &mut fields);
            }
            h1::finish(Some(&fields), &mut self.to_client);
        }
        let source = self.exchange.upstream.as_ref().filter(|_| of_upstream).map(|passed| &passed.response);
        let answered = Answered::read(&self.to_client, asked, source, is_whole);
        Spoken { passed: self.passed, answered }
    }

    /// Pulls the upstream's body for the client; whether it came to its end.
    fn pull(&mut self, framing: ResponseFraming) -> bool {
        loop {
            let window = self.exchange.upstream.as_ref().and_then(|passed| passed.window);
            if window.is_some_and(|window| window.skip == 0 && window.left == 0) {
                return true;
            }
            let Some(passed) = &mut self.exchange.upstream else { return false };
            let Some(peer) = &mut self.peer else { return false };
            let mut piece = self.upstream.piece();
            let event = peer.read(&mut piece, &mut passed.response);
            self.upstream.leave(piece);
            match event {
                Ok(Event::Body(bytes)) => {
                    self.inbound.memory().extend_from_slice(bytes);
                    self.push(framing);
                }
                Ok(Event::NeedMore) if self.upstream.is_empty() => {
                    return end_of(peer, self.input.breaks).is_ok();
                }
                Ok(Event::NeedMore) => assert!(piece.is_empty(), "input is left"),
                Ok(Event::Trailers) => peer.trailers(&mut passed.trailers),
                Ok(Event::End) => return true,
                Ok(other) => panic!("{other:?} within a body"),
                Err(_) => return false,
            }
        }
    }

    /// Gives the client what is there of the body, as far as it lies in the part that was asked for.
    fn push(&mut self, framing: ResponseFraming) {
        loop {
            let mut most = self.inbound.front_len();
            if let Some(window) = self.exchange.upstream.as_mut().and_then(|passed| passed.window.as_mut()) {
                let skipped = window.skip.min(most);
                if skipped > 0 {
                    window.skip -= skipped;
                    self.inbound.consume(skipped);
                    continue;
                }
                most = most.min(window.left);
                window.left -= most;
            }
            if most == 0 {
                return;
            }
            let Front::Memory(bytes) = self.inbound.front() else { panic!("not in memory") };
            let bytes = bytes[..most as usize].to_vec();
            self.put(&bytes, framing);
            self.inbound.consume(most);
        }
    }

    fn put(&mut self, bytes: &[u8], framing: ResponseFraming) {
        let chunked = framing == ResponseFraming::Streamed && !bytes.is_empty();
        if chunked {
            h1::chunk_prefix(bytes.len() as u64, &mut self.to_client);
        }
        self.to_client.extend_from_slice(bytes);
        if chunked {
            self.to_client.extend_from_slice(h1::CHUNK_SUFFIX);
        }
    }
}

fn call_of(exchange: &Exchange) -> &Call {
    exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref()).expect("a call")
}

fn end_of(peer: &mut Wire, breaks: bool) -> Result<(), ResponseError> {
    if breaks { peer.reset() } else { peer.end_of_input() }
}

fn append(body: &Body, out: &mut Vec<u8>) {
    match body {
        Body::Empty => {}
        Body::Static(bytes) => out.extend_from_slice(bytes),
        Body::Shared { bytes, offset } => out.extend_from_slice(&bytes[*offset..]),
        Body::Bytes(bytes) => out.extend_from_slice(bytes),
        Body::Pieces(pieces) => pieces.iter().rev().for_each(|piece| append(piece, out)),
        Body::File(_) | Body::Upstream(_) => panic!("there are no files here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(client: &str, upstream: &str, breaks: bool) -> Spoken {
        let input = Input { client: client.as_bytes(), upstream: upstream.as_bytes(), breaks };
        Ground::new().run(input, &[]).expect("a head")
    }

    #[test]
    fn what_is_played_is_what_a_client_and_an_upstream_see() {
        let request =
            "POST /s/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        let spoken =
            run(request, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n", false);
        let [passed] = &spoken.passed[..] else { panic!("{spoken:?}") };
        assert_eq!(passed.start(), ("POST", "/x/a", &b"ab"[..]));
        assert_eq!(spoken.answered.summary(), (Some(200), &b"cd"[..], true));

        // Cut short, refused, asked again by the upstream itself.
        let spoken =
            run(request, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n", false);
        assert_eq!(spoken.answered.summary(), (Some(200), &b"cd"[..], false));
        let spoken = run("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", false);
        assert_eq!((spoken.passed.len(), spoken.answered.summary().0), (1, Some(502)));
        let redirect = "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /again\r\nContent-Length: 0\r\n\r\n";
        let spoken = run("GET / HTTP/1.1\r\nHost: a\r\n\r\n", redirect, false);
        assert!(spoken.passed.len() > 1 && spoken.answered.summary().0 == Some(500), "{spoken:?}");
    }

    #[test]
    fn a_body_without_an_announced_end_is_complete_unless_its_connection_broke() {
        for breaks in [false, true] {
            let spoken = run("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nab", breaks);
            assert_eq!(spoken.answered.summary(), (Some(200), &b"ab"[..], !breaks));
        }
    }
}
