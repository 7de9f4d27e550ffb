//! One request on its way to an upstream and its response on the way back, whatever protocol the upstream speaks.
//!
//! ```text
//!            pick            connected          head is there        body ended
//! Choosing ────────> Connecting ────────> Heading ───────────> Body ───────────> Over
//!    ^  │ name, queue     │  (Securing)      │ 101             (tunnel: Raw)
//!    │  └──> Waiting      │ failed           │ failed, and may be tried again
//!    └────────────────────┴──────────────────┘
//! ```
//!
//! - `Choosing`: the group's method names a peer; a pooled connection to it is taken or a new one begun.
//! - `Waiting`: for a name's addresses, or for a place in the group's queue.
//! - `Connecting`: the handshake is under way. Deadline: `connect_timeout` after it began.
//! - `Securing`: so is that of TLS, where the call wants it. Deadline: the same anew.
//! - `Heading`: the request goes out while the response's head may come already. Deadline: `send_timeout` after the
//!   last write, once all is sent `read_timeout` after the last read.
//! - `Body`: the head was answered; the client's output pulls ([`Relay::fill`]), or [`Relay::absorb`] reads ahead while
//!   the client is slow. Deadline: `read_timeout` after the last read.
//! - `Raw`: a tunnel; the client's side moves the bytes.
//! - `Over`: the connection went back to the pool or was closed; what the client has not got yet is kept.
//!
//! Every try is reported to its group once, in [`Relay::end_try`], by whatever way it ends.
//!
//! The relay never touches the client's socket: it belongs to whoever owns the exchange, and tells by [`Progress`] and
//! [`Fill`] what has come.

pub mod connection;
pub mod failure;
pub mod fuzz;
pub mod idle;
pub mod inbound;
mod limit;
pub mod links;
pub mod multiplexed;
pub mod outbound;
mod owner;
mod peers;
pub mod probes;
mod receiving;
mod run;
mod securing;
mod sending;
mod store;
pub mod tls;
pub mod waiting;
pub mod wire;

use rustix::io::Errno;

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::{Attempt, Protocol, UpstreamFailure};
use crate::message::Status;
use crate::proto::h1::ResponseFault;
use crate::server::client::ClientKey;
use crate::server::files::TemporaryFile;
use crate::server::pool::JobId;
use crate::server::worker::resources::Resources;
use crate::upstream::Stage;

use connection::Call;
use failure::{Failure, told};
use inbound::Inbound;
use limit::Limit;
use outbound::Outbound;
use peers::{Choosing, Chosen};
use receiving::Heading;
use run::{Carrier, Run};
use securing::Loading;
use sending::Sending;
use store::Store;

/// Where a relay stands; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Choosing,
    Waiting,
    Connecting,
    Securing,
    Heading,
    Body,
    Raw,
    Over,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// As it should.
    Complete,
    /// Too early, or in disorder.
    Broken(Failure),
}

impl Ending {
    fn failure(self) -> Option<Failure> {
        match self {
            Ending::Complete => None,
            Ending::Broken(failure) => Some(failure),
        }
    }
}

/// What [`Relay::advance`] has come to.
pub enum Progress {
    /// Nothing more until an event or the deadline.
    Waiting,
    /// The response's head is in `Passed::response`.
    Head,
    /// A 103 is there, for the client.
    EarlyHints,
    /// No peer gave a usable response.
    Failed(UpstreamFailure),
}

/// What [`Relay::fill`] has come to.
pub enum Fill {
    /// There is something for the client, or there may be at the next call.
    Ready,
    /// Nothing until an event.
    Waiting,
    /// The client has everything.
    Complete,
    /// The response ends here and is not complete.
    Broken,
}

/// See the module's documentation.
pub struct Relay {
    owner: ClientKey,
    state: State,
    choosing: Choosing,
    run: Option<Run>,
    /// The body on its way to the client.
    pub inbound: Inbound,
    outbound: Outbound,
    /// What came behind a 103 or a 101.
    early: Vec<u8>,
    ending: Option<Ending>,
    creating: Option<JobId>,
    /// Our certificate for the upstream, where it has to be read first.
    loading: Loading,
    /// The copy that `proxy_store` asks for.
    store: Option<Store>,
    /// No copy is made, or not any more.
    store_settled: bool,
    /// The copy gets its name.
    publishing: Option<JobId>,
    limit: Option<Limit>,
    began_ms: u64,
    /// When the present try or wait fails.
    deadline_ms: u64,
    /// A deadline has passed.
    timed_out: Option<Failure>,
    ignores_client: bool,
    /// An internal redirect lies between the try before and the next one.
    after_redirect: bool,
}

impl Relay {
    /// A relay for the call in `exchange.upstream`; `file` is where the client's body was put.
    pub fn new(
        owner: ClientKey,
        exchange: &mut Exchange,
        file: Option<&TemporaryFile>,
        res: &mut Resources,
    ) -> Box<Relay> {
        let now_ms = res.env.now.monotonic_ms;
        let read = &exchange.request_body;
        let file = file.and_then(|file| {
            let length = rustix::fs::fstat(file.descriptor()).ok()?.st_size;
            Some((file.descriptor().clone(), u64::try_from(length).ok()?))
        });
        let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
        debug_assert!(call.is_some(), "whoever asks for an upstream says what for");
        Box::new(Relay {
            owner,
            state: State::Choosing,
            choosing: Choosing::default(),
            run: None,
            inbound: Inbound::default(),
            outbound: call.map_or_else(Outbound::none, |call| Outbound::new(call, read, file)),
            early: Vec::new(),
            ending: None,
            creating: None,
            loading: Loading::default(),
            store: None,
            store_settled: false,
            publishing: None,
            limit: None,
            began_ms: now_ms,
            deadline_ms: u64::MAX,
            timed_out: None,
            after_redirect: exchange.upstream.as_ref().is_some_and(|passed| !passed.attempts.is_empty()),
            ignores_client: call.is_some_and(|call| call.conduct.ignore_client_abort || call.store.is_some()),
        })
    }

    /// Moves on until something has to be waited for or the owner has to know.
    pub fn advance(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Progress {
        loop {
            let failure = match self.state {
                _ if self.timed_out.is_some() => self.timed_out.take().unwrap_or(Failure::Internal),
                State::Choosing => match self.choose(exchange, res) {
                    Ok(Chosen::Begun) => continue,
                    Ok(Chosen::Waits) => return Progress::Waiting,
                    Err(failure) => failure,
                },
                State::Waiting => match self.look_after_wait(exchange, res) {
                    Ok(true) => continue,
                    Ok(false) => return Progress::Waiting,
                    Err(failure) => failure,
                },
                State::Connecting => match self.look_for_connection(exchange, res) {
                    Ok(true) => continue,
                    Ok(false) => return Progress::Waiting,
                    Err(failure) => failure,
                },
                State::Securing => match self.look_for_handshake(exchange, res) {
                    Ok(true) => continue,
                    Ok(false) => return Progress::Waiting,
                    Err(failure) => failure,
                },
                State::Heading if is_raw(exchange) => {
                    self.begin_raw(exchange, res.env.now.monotonic_ms);
                    return Progress::Head;
                }
                State::Heading => {
                    self.send_request(exchange, res);
                    match self.receive_head(exchange, res) {
                        Heading::Head => match self.judge_head(exchange, res) {
                            None => return Progress::Head,
                            Some(failure) => failure,
                        },
                        Heading::EarlyHints => return Progress::EarlyHints,
                        Heading::Failed(failure) => failure,
                        Heading::Waiting => match self.sending_failure(exchange, res) {
                            None => {
                                self.renew_deadline(exchange);
                                return Progress::Waiting;
                            }
                            Some(failure) => failure,
                        },
                    }
                }
                State::Body | State::Raw | State::Over => return Progress::Waiting,
            };
            if let Some(given_up) = self.after_failure(failure, exchange, res) {
                return Progress::Failed(given_up);
            }
        }
    }

    /// A tunnel without a protocol begins as soon as the connection stands.
    fn begin_raw(&mut self, exchange: &mut Exchange, now_ms: u64) {
        self.state = State::Raw;
        if let Some(run) = &mut self.run {
            run.sending = Sending::Done;
            run.overdue_ms = None;
            if std::mem::take(&mut run.overdue) {
                run.choice.no_longer_overdue();
            }
            run.choice.answered(now_ms);
        }
        if let Some(passed) = &mut exchange.upstream {
            passed.switched = true;
        }
        self.renew_deadline(exchange);
    }

    /// The handshake: is it done?
    fn look_for_connection(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Result<bool, Failure> {
        let Some(run) = &mut self.run else { return Err(Failure::Internal) };
        let Some(connection) = run.own() else { return self.look_for_stream(exchange, res) };
        let Some(link) = res.links.get(connection.link) else { return Err(Failure::Internal) };
        if !link.writable && !link.readable {
            return Ok(false);
        }
        if let Some(error) = connection.take_error() {
            let failure = Failure::of_connect(&error);
            let message = format_args!("connect() failed ({}) while connecting to upstream", told(error));
            exchange.log_upstream(&mut res.env, Level::Error, message);
            return Err(failure);
        }
        self.begin_handshake(exchange, res)
    }

    /// The connection stands.
    fn note_connected(&mut self, exchange: &mut Exchange, now_ms: u64) {
        let Some(run) = &mut self.run else { return };
        run.connected = true;
        run.moved_ms = now_ms;
        let took = (now_ms - run.began_ms) as u32;
        run.choice.connected(now_ms);
        run.spoke(Stage::Answering, now_ms);
        if let Some(attempt) = last_attempt(exchange) {
            attempt.connect_ms = Some(took);
        }
        self.state = State::Heading;
        self.renew_deadline(exchange);
    }

    /// A peer that takes no more of the request and says nothing has failed.
    fn sending_failure(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Option<Failure> {
        let run = self.run.as_mut()?;
        let Sending::Broken(error) = run.sending else { return None };
        let Some(connection) = run.own() else { return Some(Failure::Internal) };
        let (link, text) = (connection.link, connection.told(Call::Send, error));
        // Its answer may be on the way nevertheless: the end, or a reset, is what tells.
        if error != Errno::PIPE && error != Errno::CONNRESET {
            exchange.log_upstream(
                &mut res.env,
                Level::Error,
                format_args!("{text} while sending request to upstream"),
            );
            return Some(Failure::ResetBeforeHeader);
        }
        let link = res.links.get(link)?;
        (!link.readable).then(|| {
            exchange.log_upstream(
                &mut res.env,
                Level::Error,
                format_args!("{text} while sending request to upstream"),
            );
            Failure::ResetBeforeHeader
        })
    }

    /// The head is there: is it the answer, or is another peer asked (`proxy_next_upstream http_503`)?
    fn judge_head(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Option<Failure> {
        let now_ms = res.env.now.monotonic_ms;
        let status = exchange.upstream.as_ref().map_or(0, |passed| passed.response.status.0);
        if let Some(run) = &mut self.run {
            let took = (now_ms - run.began_ms) as u32;
            run.overdue_ms = None;
            if std::mem::take(&mut run.overdue) {
                run.choice.no_longer_overdue();
            }
            if let Some(attempt) = last_attempt(exchange) {
                attempt.header_ms = Some(took);
                attempt.status = status;
            }
        }
        // Chunks that came broken with their head: the client has got nothing yet, and gets no part of them.
        if let Some(Ending::Broken(failure @ Failure::Response(ResponseFault::BodyInvalid))) = self.ending {
            return Some(failure);
        }
        let failure = Failure::Status(status);
        if self.may_try_again(failure, exchange, now_ms).is_some() {
            return Some(failure);
        }
        if let Some(run) = &self.run {
            run.choice.answered(now_ms);
            if let Some(idle_ms) = run.idle_ms {
                run.choice.peer.saw_idle_reuse(idle_ms);
            }
        }
        let Some(passed) = &mut exchange.upstream else { return Some(Failure::Internal) };
        self.state = if passed.switched { State::Raw } else { State::Body };
        self.begin_limit(exchange, now_ms);
        self.renew_deadline(exchange);
        // The body may have come with its head, whole or broken.
        if let Some(ending) = self.ending.filter(|_| self.state == State::Body) {
            self.state = State::Over;
            self.end_try(ending.failure(), false, exchange, res);
        }
        None
    }

    /// A try has failed: another one, or the end.
    fn after_failure(
        &mut self,
        failure: Failure,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Option<UpstreamFailure> {
        let again = self.may_try_again(failure, exchange, res.env.now.monotonic_ms);
        let connect_first = again.is_some_and(|again| again.same);
        let peer = self.run.as_ref().map(|run| run.choice.peer.clone());
        self.end_try(Some(failure), connect_first, exchange, res);
        self.inbound.clear();
        self.ending = None;
        self.early.clear();
        if let Some(again) = again {
            self.choosing.again(again, peer);
            self.state = State::Choosing;
            return None;
        }
        self.state = State::Over;
        let queue_ms = self.stop_waiting(res);
        if let Some(attempt) = last_attempt(exchange).filter(|_| queue_ms.is_some()) {
            attempt.queue_ms = queue_ms;
        }
        if let Some(passed) = &mut exchange.upstream {
            passed.error = Some(failure.token());
        }
        Some(UpstreamFailure { token: failure.token(), status: Status(failure.status()) })
    }

    /// The body has ended, one way or the other.
    fn end_body(&mut self, ending: Ending, exchange: &mut Exchange, res: &mut Resources) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(ending);
        let failure = ending.failure();
        if let (Some(passed), Some(failure)) = (&mut exchange.upstream, failure) {
            passed.error = Some(failure.token());
        }
        self.finish_store(failure.is_none(), exchange, res);
        if self.state == State::Body {
            self.state = State::Over;
        }
        // A head that is about to be judged still needs the try.
        if self.state == State::Over {
            self.end_try(failure, false, exchange, res);
        }
    }

    /// Ends the present try: its connection goes to the pool or is closed, its group and its `Attempt` are told.
    fn end_try(
        &mut self,
        failure: Option<Failure>,
        is_race: bool,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) {
        let Some(run) = self.run.take() else { return };
        let now_ms = res.env.now.monotonic_ms;
        if run.overdue {
            run.choice.no_longer_overdue();
        }
        let took = (now_ms - run.began_ms) as u32;
        let keeps = exchange
            .upstream
            .as_ref()
            .and_then(|passed| passed.call.as_ref())
            .is_some_and(|call| call.keep_alive);
        if is_race {
            // The peer closed an idle connection while the request was on its way: nobody's fault, and no try.
            if let Some(passed) = &mut exchange.upstream {
                passed.attempts.pop();
            }
        } else if let Some(attempt) = last_attempt(exchange) {
            attempt.response_ms = Some(took);
            attempt.response_length = run.body;
            attempt.bytes_received = run.received;
            attempt.bytes_sent = run.sent;
            if let Some(failure) = failure {
                attempt.token = Some(failure.token());
                if attempt.status == 0 {
                    attempt.status = failure.status();
                }
            }
        }
        run.choice.ended(failure, is_race, now_ms, run.received);
        res.wake_queued(run.choice.group());
        let whole = failure.is_none() && run.is_sent();
        let Run { choice, carrier, location, began_ms, .. } = run;
        match carrier {
            Carrier::Own(connection) if whole && keeps && connection.wire.is_reusable() => {
                peers::give_back(choice, connection, location, res);
            }
            Carrier::Own(connection) => connection.close(&mut res.links),
            Carrier::Stream(link) => {
                let was_silent = failure.is_some_and(Failure::is_timeout);
                link.release(was_silent.then_some(began_ms), res);
            }
        }
    }

    /// The owner gives up: the client has gone, or the response is made of something else.
    pub fn abandon(mut self: Box<Self>, exchange: &mut Exchange, res: &mut Resources) {
        self.stop_waiting(res);
        for job in [self.creating.take(), self.publishing.take(), self.loading.cancel()].into_iter().flatten()
        {
            res.jobs.remove(&job);
            res.files.cancel(job);
        }
        // A response that ended already keeps its verdict.
        let failure = match self.state {
            State::Over => None,
            _ if self.is_answered(exchange) => None,
            _ => Some(Failure::ClientClosed),
        };
        if let Some(run) = &mut self.run {
            // What is left unread of the response is in the way of another one.
            run.sending = match run.sending {
                Sending::Done if self.ending == Some(Ending::Complete) => Sending::Done,
                _ => Sending::Broken(Errno::CANCELED),
            };
        }
        self.end_try(failure, false, exchange, res);
        if let Some(memory) = self.inbound.spare_memory() {
            res.env.give_back(memory);
        }
    }

    fn is_answered(&self, exchange: &Exchange) -> bool {
        matches!(self.state, State::Body | State::Raw)
            && exchange.upstream.as_ref().is_some_and(|passed| passed.response.status.0 != 0)
    }

    /// A deadline has passed, or the time after which a peer counts as silent.
    pub fn on_deadline(&mut self, exchange: &mut Exchange, res: &mut Resources) {
        let now_ms = res.env.now.monotonic_ms;
        if let Some(run) = &mut self.run
            && run.overdue_ms.is_some_and(|overdue_ms| overdue_ms <= now_ms)
        {
            run.overdue_ms = None;
            run.overdue = true;
            run.choice.overdue(now_ms);
        }
        if let Some(limit) = &mut self.limit
            && limit.until_ms <= now_ms
        {
            limit.until_ms = 0;
        }
        if self.deadline_ms > now_ms {
            return;
        }
        let failure = match self.state {
            State::Connecting => Failure::ConnectTimeout,
            State::Securing => Failure::TlsTimeout,
            State::Heading if !self.is_sent() => Failure::SendTimeout,
            State::Heading => Failure::HeaderTimeout,
            State::Body => Failure::BodyTimeout,
            State::Raw => return self.end_body(Ending::Complete, exchange, res),
            State::Waiting => return self.wait_is_over(),
            State::Choosing | State::Over => return,
        };
        let doing = match failure {
            Failure::ConnectTimeout => "connecting to upstream",
            Failure::TlsTimeout => "SSL handshaking to upstream",
            Failure::SendTimeout => "sending request to upstream",
            Failure::HeaderTimeout => "reading response header from upstream",
            _ => "reading upstream",
        };
        let message = format_args!("upstream timed out (110: Connection timed out) while {doing}");
        exchange.log_upstream(&mut res.env, Level::Error, message);
        if self.state == State::Body {
            return self.end_body(Ending::Broken(failure), exchange, res);
        }
        self.timed_out = Some(failure);
    }

    fn is_sent(&self) -> bool {
        self.run.as_ref().is_some_and(Run::is_sent)
    }

    /// The deadline for the next byte.
    fn renew_deadline(&mut self, exchange: &Exchange) {
        let (Some(run), Some(Some(call))) =
            (&self.run, exchange.upstream.as_ref().map(|passed| &passed.call))
        else {
            return;
        };
        let conduct = &call.conduct;
        let patience = match self.state {
            State::Connecting | State::Securing => conduct.connect_timeout,
            State::Heading if !run.is_sent() && !self.outbound.is_starved() => conduct.send_timeout,
            // A client that sends its body slowly has its own deadline; the upstream waits for it.
            State::Heading if !run.is_sent() => {
                self.deadline_ms = u64::MAX;
                return;
            }
            _ => conduct.read_timeout,
        };
        self.deadline_ms = run.moved_ms.saturating_add(patience);
    }

    /// When something must have happened, in monotonic milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        let overdue_ms = self.run.as_ref().and_then(|run| run.overdue_ms).unwrap_or(u64::MAX);
        let limit_ms =
            self.limit.map(|limit| limit.until_ms).filter(|until_ms| *until_ms > 0).unwrap_or(u64::MAX);
        self.deadline_ms.min(overdue_ms).min(limit_ms)
    }
}

/// Whether the call is for a tunnel without a protocol.
fn is_raw(exchange: &Exchange) -> bool {
    let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
    call.is_some_and(|call| call.protocol == Protocol::Raw)
}

/// The try that is under way.
fn last_attempt(exchange: &mut Exchange) -> Option<&mut Attempt> {
    exchange.upstream.as_mut()?.attempts.last_mut()
}
