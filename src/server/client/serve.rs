//! Bytes in, and the requests that they are; [`super::needs`] has the steps of their exchanges.

use std::rc::Rc;

use rustix::io::Errno;

use crate::base::level::Level;
use crate::http::exchange::Endpoint;
use crate::message::Status;
use crate::proto::h1::{Event, HeadLimits, RequestError};
use crate::proto::h2;
use crate::server::worker::accept::inet_local;
use crate::server::worker::counters::Counted;
use crate::server::worker::resources::Resources;

use super::request_body::{BodyProgress, BodyReader};
use super::transport::Transport;
use super::{Active, Client, ClientKey, Fate, State, Waiting};

/// Reads of one turn; what is left after that waits in the ready list.
const READS_PER_TURN: usize = 8;
/// Requests served in one turn of a connection that pipelines.
const REQUESTS_PER_TURN: usize = 64;

/// How the bytes of one read were taken.
pub(super) enum Consumed {
    /// All of them; more may be read.
    All,
    /// The rest was put away: something must happen before the connection reads on.
    Stalled,
    /// The connection is over.
    Close,
}

impl Client {
    /// A turn that began with an event of the socket.
    pub fn on_event(&mut self, key: ClientKey, res: &mut Resources, readable: bool, writable: bool) -> Fate {
        if writable && self.on_writable(key, res) == Fate::Close {
            return Fate::Close;
        }
        if readable {
            self.flags.unread = true;
        }
        self.read_events(key, res)
    }

    /// Reads on, and sees whether a client that waits for an upstream is still there.
    fn read_events(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        if let State::Active(active) = &self.state {
            if active.waiting == Waiting::Tunnel {
                return self.pump_tunnel(key, res);
            }
            if self.flags.read_closed
                && (self.left_while_delayed(res) || self.on_client_gone(res) == Fate::Close)
            {
                return Fate::Close;
            }
        }
        self.read_on(key, res)
    }

    /// Goes on where the last turn stopped for the sake of others.
    pub fn on_ready(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        if self.on_writable(key, res) == Fate::Close {
            return Fate::Close;
        }
        self.read_events(key, res)
    }

    /// Whether bytes from the socket can be used now.
    pub(super) fn may_read(&self) -> bool {
        self.unsent.is_empty()
            && match &self.state {
                State::Active(active) => match active.waiting {
                    Waiting::Body => active.body.as_ref().is_some_and(BodyReader::has_room),
                    Waiting::Upstream | Waiting::Output => active.takes_upload(),
                    _ => false,
                },
                State::Parked(_) => false,
                _ => true,
            }
    }

    /// Reads until the socket is empty, the connection has to wait, or the turn's budget is spent.
    pub fn read_on(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        if self.lane().is_some() {
            return self.feed_stream(key, res);
        }
        let mut buffer = std::mem::take(&mut res.input);
        let mut fate = self.read_loop(&mut buffer, key, res);
        res.input = buffer;
        match fate {
            Fate::Keep => fate = self.end_turn(key, res),
            // Answers to earlier requests of the same read are still to leave.
            Fate::Close => drop(self.flush(res)),
        }
        fate
    }

    fn read_loop(&mut self, buffer: &mut [u8], key: ClientKey, res: &mut Resources) -> Fate {
        for _ in 0..READS_PER_TURN {
            if !self.may_read() {
                return Fate::Keep;
            }
            if self.wire.has_held() {
                let held = self.wire.take_held();
                match self.consume(&held, true, key, res) {
                    Consumed::All => {}
                    Consumed::Stalled => return Fate::Keep,
                    Consumed::Close => return Fate::Close,
                }
                continue;
            }
            if !self.flags.unread {
                return Fate::Keep;
            }
            if self.transport.has_ended() {
                return self.on_end_of_input(res);
            }
            let count = match self.transport.receive(buffer) {
                Ok(0) => return self.on_end_of_input(res),
                Ok(count) => count,
                Err(Errno::AGAIN) => {
                    self.flags.unread = false;
                    return Fate::Keep;
                }
                Err(Errno::INTR) => continue,
                Err(_) => return self.on_broken(res),
            };
            // A short read emptied the socket: the next byte brings a new event. The peer's FIN may have come with
            // the event that is being served, and brings none. The kernel's TLS stops where records of a kind do.
            self.flags.unread = count == buffer.len()
                || self.flags.read_closed
                || matches!(self.transport, Transport::Kernel(_));
            let consumed = match self.transport {
                Transport::Tls(_) => self.take_encrypted(&buffer[..count], key, res),
                _ => self.consume(&buffer[..count], false, key, res),
            };
            match consumed {
                Consumed::All => {}
                Consumed::Stalled => return Fate::Keep,
                Consumed::Close => return Fate::Close,
            }
        }
        res.make_ready(self, key);
        Fate::Keep
    }

    /// Feeds bytes to whatever the connection is doing; leftovers are put away. `held` are bytes that an earlier
    /// request left.
    pub(super) fn consume(
        &mut self,
        mut input: &[u8],
        held: bool,
        key: ClientKey,
        res: &mut Resources,
    ) -> Consumed {
        let mut requests = 0;
        loop {
            match &mut self.state {
                State::ProxyHeader(_) => match self.read_proxy_header(&mut input, res) {
                    Ok(true) => {}
                    Ok(false) => return Consumed::All,
                    Err(()) => return Consumed::Close,
                },
                State::Preface(_) => match self.read_preface(&mut input, key, res) {
                    true => {}
                    false => return Consumed::All,
                },
                State::Multiplexed(_) => return self.read_frames(&mut input, key, res),
                State::Head => {
                    if self.facts.requests == 0 && self.may_be_preface(input, res) {
                        self.state = State::Preface(0);
                        continue;
                    }
                    if requests == REQUESTS_PER_TURN || res.out.len() >= res.out_limit() {
                        res.make_ready(self, key);
                        return self.put_away(input, res);
                    }
                    if self.wire.is_idle() {
                        self.flags.pipelined = held || requests > 0;
                    }
                    requests += 1;
                    match self.read_head(&mut input, key, res) {
                        Some(Fate::Keep) => {}
                        Some(Fate::Close) => return Consumed::Close,
                        None => return Consumed::All,
                    }
                }
                State::Active(active) => match active.waiting {
                    Waiting::Body if active.body.as_ref().is_some_and(BodyReader::has_room) => {
                        match self.read_body(&mut input, key, res) {
                            BodyProgress::NeedMore => return Consumed::All,
                            BodyProgress::Went => {}
                            BodyProgress::Close => return Consumed::Close,
                        }
                    }
                    Waiting::Upstream | Waiting::Output if active.takes_upload() => {
                        match self.read_upload(&mut input, key, res) {
                            BodyProgress::NeedMore => return Consumed::All,
                            BodyProgress::Went => {}
                            BodyProgress::Close => return Consumed::Close,
                        }
                    }
                    _ => return self.put_away(input, res),
                },
                State::Parked(_) => return self.put_away(input, res),
                State::Discarding { .. } => match self.discard(&mut input, res) {
                    Ok(true) => {}
                    Ok(false) => return Consumed::All,
                    Err(fate) => {
                        return if fate == Fate::Close { Consumed::Close } else { Consumed::All };
                    }
                },
                State::Lingering { until_ms } => {
                    let patience = res.env.now.monotonic_ms + u64::from(self.linger_timeout_ms);
                    let until_ms = *until_ms;
                    self.set_deadline(patience.min(until_ms));
                    return Consumed::All;
                }
            }
        }
    }

    /// Whether a connection's first bytes may be those of HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    fn may_be_preface(&self, input: &[u8], res: &Resources) -> bool {
        if input.first() != Some(&b'P') || !self.wire.is_idle() || self.facts.secure || self.facts.lacks_tls {
            return false;
        }
        let (site, address) = (res.site_of(self), res.address_of(self));
        let server = site.addresses[address.0 as usize].default_server;
        h2::is_preface(input) != Some(false) && site.speaks_http2(address, server)
    }

    /// Decides between HTTP/2 and HTTP/1. Whether that is done; if not, more is needed.
    fn read_preface(&mut self, input: &mut &[u8], key: ClientKey, res: &mut Resources) -> bool {
        let State::Preface(before) = self.state else { return true };
        let before = &h2::PREFACE[..usize::from(before)];
        let (piece, _) = input.split_at(input.len().min(h2::PREFACE.len() - before.len()));
        let (mut bytes, length) = (*h2::PREFACE, before.len() + piece.len());
        bytes[before.len()..length].copy_from_slice(piece);
        match h2::is_preface(&bytes[..length]) {
            None => {
                *input = &[];
                self.state = State::Preface(length as u8);
                false
            }
            Some(true) => {
                self.begin_multiplexing(key, res);
                let _ = self.read_frames(&mut &*before, key, res);
                true
            }
            Some(false) => {
                self.state = State::Head;
                // The bytes before are the beginning of a request's method.
                let _ = self.read_head(&mut &*before, key, res);
                true
            }
        }
    }

    /// Lets the connection find what needs no further bytes.
    pub fn consume_nothing(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        match self.consume(b"", false, key, res) {
            Consumed::All | Consumed::Stalled => Fate::Keep,
            Consumed::Close => Fate::Close,
        }
    }

    /// Reads the PROXY protocol's header. `Ok(true)`: it is complete; `Ok(false)`: more is needed.
    pub(super) fn read_proxy_header(&mut self, input: &mut &[u8], res: &mut Resources) -> Result<bool, ()> {
        let State::ProxyHeader(reader) = &mut self.state else { return Ok(true) };
        match reader.feed(input) {
            Ok(None) => Ok(false),
            Ok(Some(header)) => {
                self.facts.proxy_protocol = Some(Rc::new(header));
                self.state = State::Head;
                Ok(true)
            }
            Err(error) => {
                res.log_connection(self, Level::Error, format_args!("{error} while reading PROXY protocol"));
                Err(())
            }
        }
    }

    /// Sends what the turn has gathered.
    fn end_turn(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        if res.out.is_empty() && !self.flags.owes {
            return Fate::Keep;
        }
        let flushed = if res.out.is_empty() { Ok(false) } else { self.flush(res) };
        match flushed {
            Ok(true) => Fate::Keep,
            Ok(false) => {
                self.want_write(key, res);
                let site = res.site_of(self);
                self.await_reader(&site.settings(res.root_of(self)).core, res.env.now.monotonic_ms);
                Fate::Keep
            }
            Err(_) => Fate::Close,
        }
    }

    /// Keeps bytes until the present request is served.
    pub(super) fn put_away(&mut self, input: &[u8], res: &mut Resources) -> Consumed {
        if self.wire.hold(input).is_err() {
            res.log_connection(self, Level::Alert, format_args!("read more than may be held"));
            return Consumed::Close;
        }
        Consumed::Stalled
    }

    /// Reads a request head and serves the request; `None` if more bytes are needed.
    fn read_head(&mut self, input: &mut &[u8], key: ClientKey, res: &mut Resources) -> Option<Fate> {
        if input.is_empty() {
            return None;
        }
        let before = input.len();
        let (mut active, address) = res.take_active(self);
        let limits = head_limits(&active);
        let now_ms = res.env.now.monotonic_ms;
        match self.wire.read(input, &limits, &mut active.exchange.head) {
            Ok(Event::NeedMore | Event::Paused | Event::Body(_) | Event::BodyEnd) => {
                self.request_bytes += (before - input.len()) as u64;
                if !self.wire.is_idle() && self.head_began_ms == 0 {
                    self.head_began_ms = now_ms.max(1);
                    self.set_deadline(self.head_deadline_ms(res));
                }
                res.give_back(active);
                None
            }
            Ok(Event::Head) => {
                self.flags.more_follows = !input.is_empty();
                self.begin_request(&mut active, address, before - input.len(), res);
                if let Err(error) = self.wire.check_body(input) {
                    return Some(self.refuse(active, error, key, res));
                }
                if active.exchange.head.ignored_lines > 0 {
                    active.exchange.log_ignored_lines(&mut res.env);
                }
                Some(self.drive(active, None, key, res))
            }
            Err(error) => {
                self.begin_request(&mut active, address, before - input.len(), res);
                Some(self.refuse(active, error, key, res))
            }
        }
    }

    pub(super) fn begin_request(
        &mut self,
        active: &mut Active,
        address: crate::http::site::AddressId,
        length: usize,
        res: &mut Resources,
    ) {
        self.request_bytes += length as u64;
        self.facts.requests = self.facts.requests.saturating_add(1);
        res.counters.begin_request();
        self.count_as(Counted::Writing, &res.counters);
        if active.exchange.head.host.is_empty() {
            // A redirect names the server by its address then.
            self.learn_local_address();
        }
        let now_ms = res.env.now.monotonic_ms;
        let started = if self.head_began_ms == 0 { now_ms } else { self.head_began_ms };
        let site = res.site_of(self);
        active.exchange.connection.clone_from(&self.facts);
        active.exchange.begin_again(&site, address, started);
        active.exchange.outcome.pipelined = self.flags.pipelined;
        active.exchange.outcome.request_length = self.request_bytes;
        active.waiting = Waiting::Nothing;
    }

    /// Asks for our own address where only a wildcard is known.
    fn learn_local_address(&mut self) {
        if let Endpoint::Inet(address) = &self.facts.local
            && address.ip().is_unspecified()
            && let Some(local) = self.transport.socket().and_then(inet_local)
        {
            self.facts.local = Endpoint::Inet(local);
        }
    }

    /// Answers a head that was not acceptable.
    pub(super) fn refuse(
        &mut self,
        mut active: Box<Active>,
        error: RequestError,
        key: ClientKey,
        res: &mut Resources,
    ) -> Fate {
        active.exchange.log_refusal(&mut res.env, &error.message, error.phase);
        let step = active.exchange.refuse(&mut res.env, error.status);
        self.follow(active, step, key, res)
    }

    /// The peer has sent all that it will send.
    fn on_end_of_input(&mut self, res: &mut Resources) -> Fate {
        self.flags.unread = false;
        if matches!(self.state, State::Head) && !self.wire.is_idle() {
            res.log_connection(
                self,
                Level::Info,
                format_args!("client prematurely closed connection while reading client request line"),
            );
            self.log_unfinished_head(Status::BAD_REQUEST, res);
        }
        if let State::Active(active) = &mut self.state
            && active.waiting == Waiting::Body
        {
            active.exchange.log_in_scope(
                &mut res.env,
                Level::Info,
                format_args!("client prematurely closed connection"),
            );
            // For the access log alone: nobody is there to be told.
            active.exchange.response.status = Status::BAD_REQUEST;
        }
        Fate::Close
    }

    /// Before the connection is closed, gives the answers to what came before a chance to leave. Whatever the socket
    /// does not take is lost.
    pub fn send_last(&mut self, res: &mut Resources) {
        let _ = self.flush(res);
        res.out.clear();
    }

    fn on_broken(&mut self, res: &mut Resources) -> Fate {
        res.out.clear();
        Fate::Close
    }
}

/// The bounds on a head, as the default server of its address sets them.
pub(super) fn head_limits(active: &Active) -> HeadLimits {
    let core = &active.exchange.scope_settings().core;
    HeadLimits {
        header_buffer: u32::try_from(core.client_header_buffer_size).unwrap_or(u32::MAX),
        large_buffers: core.large_client_header_buffers.count,
        large_buffer_size: core.large_client_header_buffers.size,
        max_headers: u32::try_from(core.max_headers).unwrap_or(u32::MAX),
        ignore_invalid_headers: core.ignore_invalid_headers,
        underscores_in_headers: core.underscores_in_headers,
        // The server that the request is for decides.
        allow_connect: true,
    }
}
