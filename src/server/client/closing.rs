//! What follows a response: the next request, dropping the rest of this one, lingering, closing; and what happens when
//! patience ends.

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::modules::core::Lingering;
use crate::message::{FieldName, Method, Status};
use crate::proto::h1::{After, Event, HeadLimits};
use crate::server::worker::resources::Resources;

use super::transport::Transport;
use super::{Active, Client, ClientKey, Fate, State, Waiting, saturated_ms};

impl Client {
    /// Whether the server, for its part, keeps the connection after this response.
    pub fn keep_alive_allowed(&self, exchange: &Exchange, res: &Resources) -> bool {
        let core = &exchange.scope_settings().core;
        exchange.keep_alive
            && !res.quitting
            && !matches!(&self.transport, Transport::Kernel(kernel) if kernel.is_worn())
            && core.keepalive_timeout.idle_ms > 0
            && u64::from(self.facts.requests) < core.keepalive_requests
            && res.env.now.monotonic_ms.saturating_sub(self.facts.accepted_ms) < core.keepalive_time
            && !is_disabled_for_browser(exchange)
    }

    /// The response was sent or gathered whole: logs it and decides what comes next.
    pub fn finish_response(&mut self, mut active: Box<Active>, key: ClientKey, res: &mut Resources) -> Fate {
        if self.lane().is_some() {
            active.exchange.outcome.complete = true;
            self.end_exchange(active, res);
            return Fate::Close;
        }
        let after = self.wire.after_response();
        // What closes must have left the process first; what goes on may wait for its neighbours.
        let lingering_close = active.exchange.scope_settings().core.lingering_close;
        // Bytes behind the last request would make the kernel reset the connection, and the response with it.
        let may_be_sending = after == After::Linger || self.flags.more_follows || self.flags.unread;
        let closes_at_once = after == After::Close
            && (lingering_close == Lingering::Off || lingering_close == Lingering::On && !may_be_sending);
        if matches!(after, After::Close | After::Linger) {
            self.say_goodbye(res);
            let flushed = if closes_at_once { self.flush_last(res) } else { self.flush(res) };
            match flushed {
                Ok(true) => {}
                Ok(false) => {
                    self.want_write(key, res);
                    self.await_reader(&active.exchange.scope_settings().core, res.env.now.monotonic_ms);
                    active.waiting = Waiting::Output;
                    self.state = State::Active(active);
                    return Fate::Keep;
                }
                Err(_) => {
                    self.end_exchange(active, res);
                    return Fate::Close;
                }
            }
        }
        active.exchange.outcome.complete = true;
        let now_ms = res.env.now.monotonic_ms;
        let core = &active.exchange.scope_settings().core;
        let lingering = (core.lingering_close, core.lingering_time, core.lingering_timeout);
        self.idle_ms = saturated_ms(core.keepalive_timeout.idle_ms);
        self.keep_ms = saturated_ms(core.keepalive_min_timeout);
        self.end_exchange(active, res);
        match after {
            After::KeepAlive => {
                self.begin_idle(now_ms);
                Fate::Keep
            }
            After::Discard => {
                self.state = State::Discarding { until_ms: now_ms + lingering.1 };
                self.linger_timeout_ms = saturated_ms(lingering.2);
                self.set_deadline(now_ms + lingering.2.min(lingering.1));
                Fate::Keep
            }
            After::Linger if lingering.0 != Lingering::Off => self.begin_lingering(lingering, now_ms),
            After::Close if !closes_at_once => self.begin_lingering(lingering, now_ms),
            After::Linger | After::Close => Fate::Close,
        }
    }

    /// Gets ready for the next request.
    fn begin_idle(&mut self, now_ms: u64) {
        self.wire.next_request();
        self.state = State::Head;
        self.head_began_ms = 0;
        self.request_bytes = 0;
        self.last_active_ms = now_ms;
        self.set_deadline(now_ms + u64::from(self.idle_ms));
    }

    /// Shuts writing down and waits for the client to see the response: an early close would make the kernel answer what
    /// still comes with a reset, and the reset would destroy the response on its way (RFC 9112 section 9.6).
    pub(super) fn begin_lingering(&mut self, lingering: (Lingering, u64, u64), now_ms: u64) -> Fate {
        if self.transport.shut_down().is_err() {
            return Fate::Close;
        }
        self.linger_timeout_ms = saturated_ms(lingering.2);
        self.state = State::Lingering { until_ms: now_ms + lingering.1 };
        self.set_deadline(now_ms + lingering.2.min(lingering.1));
        Fate::Keep
    }

    /// Drops a piece of the body that nobody wants. `Ok(true)`: look at the state again; `Ok(false)`: more is needed.
    pub fn discard(&mut self, input: &mut &[u8], res: &mut Resources) -> Result<bool, Fate> {
        let State::Discarding { until_ms } = self.state else { return Ok(true) };
        let now_ms = res.env.now.monotonic_ms;
        let limits = HeadLimits::default();
        let mut nothing = std::mem::take(&mut res.discarded_head);
        let event = self.wire.read(input, &limits, &mut nothing);
        res.discarded_head = nothing;
        match event {
            Ok(Event::Body(_)) => {
                if now_ms >= until_ms {
                    return Err(Fate::Close);
                }
                self.set_deadline((now_ms + u64::from(self.linger_timeout_ms)).min(until_ms));
                Ok(true)
            }
            Ok(Event::NeedMore) => Ok(false),
            Ok(Event::BodyEnd | Event::Paused | Event::Head) => match self.wire.after_response() {
                After::KeepAlive => {
                    self.begin_idle(now_ms);
                    Ok(true)
                }
                _ => Err(Fate::Close),
            },
            // Where the next request begins is not known any more, but the response was made and is still to leave,
            // and those to the requests before it.
            Err(_) => Err(match self.flush(res) {
                Ok(true) => {
                    let rest_ms = until_ms.saturating_sub(now_ms);
                    self.begin_lingering((Lingering::On, rest_ms, self.linger_timeout_ms.into()), now_ms)
                }
                _ => Fate::Close,
            }),
        }
    }

    /// Logs the exchange and gives its memory back.
    pub fn end_exchange(&mut self, mut active: Box<Active>, res: &mut Resources) {
        if let Some(relay) = active.relay.take() {
            relay.abandon(&mut active.exchange, res);
        }
        let exchange = &mut active.exchange;
        exchange.outcome.request_length = self.request_bytes;
        exchange.log_access(&mut res.env);
        if let Some(job) = active.output.pending_job() {
            res.jobs.remove(&job);
            res.files.cancel(job);
        }
        if let Waiting::Answer(job) = active.waiting {
            res.jobs.remove(&job);
            res.files.cancel(job);
        }
        if let Some(pipe) = active.subrequest.take() {
            pipe.borrow_mut().close(res);
        }
        active.output.close(res);
        self.hand_over(active, res);
    }

    /// The connection is being closed: an unfinished exchange is logged as such.
    pub fn on_close(&mut self, status: Option<Status>, res: &mut Resources) {
        self.unpark(res);
        if let Some(mut active) = self.take_state() {
            active.exchange.outcome.complete = false;
            if let Some(status) = status {
                active.exchange.response.status = status;
            }
            self.end_exchange(active, res);
        }
        self.close_multiplexed(res);
        if let Some(lane) = self.lane() {
            lane.release(res);
        }
        if self.flags.reset
            && let Some(socket) = self.transport.socket()
        {
            // An abortive close: the kernel drops what is unsent and frees the memory at once.
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
        }
        self.part();
    }

    /// The deadline has passed.
    pub fn on_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let now_ms = res.env.now.monotonic_ms;
        match &self.state {
            State::Active(active) if active.waiting == Waiting::Output && active.output.is_starved() => {
                self.on_relay_deadline(key, res)
            }
            State::Active(active) => match active.waiting {
                Waiting::Upstream => self.on_relay_deadline(key, res),
                Waiting::Tunnel => Fate::Close,
                Waiting::Delay => self.end_delay(key, res),
                Waiting::Body => self.on_body_deadline(key, res),
                // The pool answers in its own time.
                Waiting::Answer(_) | Waiting::Subrequest | Waiting::Nothing => {
                    self.set_deadline(now_ms + 60_000);
                    Fate::Keep
                }
                Waiting::Output => self.on_output_deadline(key, res),
            },
            State::Head if !self.unsent.is_empty() && !self.is_handshaking() => {
                let site = res.site_of(self);
                let core = &site.settings(res.root_of(self)).core;
                self.on_reader_deadline(core.send_min_rate, core.send_timeout, res)
            }
            State::Head if self.head_began_ms != 0 => {
                self.log_unfinished_head(Status::REQUEST_TIMEOUT, res);
                self.time_out(None, "client timed out", res)
            }
            State::ProxyHeader(_) | State::Preface(_) => self.time_out(None, "client timed out", res),
            State::Multiplexed(_) => self.on_frames_deadline(key, res),
            State::Head if self.is_handshaking() => {
                self.time_out(None, "client timed out while SSL handshaking", res)
            }
            State::Parked(_) => Fate::Keep,
            State::Head | State::Discarding { .. } | State::Lingering { .. } => Fate::Close,
        }
    }

    pub(super) fn time_out(&mut self, status: Option<Status>, message: &str, res: &mut Resources) -> Fate {
        res.log_connection(self, Level::Info, format_args!("{message} (110: Connection timed out)"));
        let reset = match &self.state {
            State::Active(active) => active.exchange.scope_settings().core.reset_timedout_connection,
            _ => res.site_of(self).settings(res.root_of(self)).core.reset_timedout_connection,
        };
        self.flags.reset = reset;
        self.on_close(status, res);
        Fate::Close
    }

    /// A head that did not come in time (408) or whose client went away within it (400) is a line in the access log, as
    /// with nginx; the client is told nothing.
    pub fn log_unfinished_head(&mut self, status: Status, res: &mut Resources) {
        let (mut active, address) = res.take_active(self);
        active.exchange.head.clear();
        let site = res.site_of(self);
        active.exchange.connection.clone_from(&self.facts);
        active.exchange.begin_again(&site, address, self.head_began_ms);
        active.exchange.response.status = status;
        self.end_exchange(active, res);
    }

    /// Moves the deadline; the wheel is only told if it would wake too late.
    pub fn set_deadline(&mut self, at_ms: u64) {
        self.deadline_ms = at_ms;
    }
}

/// `keepalive_disable`: old MSIE after a POST, Safari on macOS.
fn is_disabled_for_browser(exchange: &Exchange) -> bool {
    let disable = exchange.scope_settings().core.keepalive_disable;
    if !disable.msie6 && !disable.safari {
        return false;
    }
    if !(disable.safari || disable.msie6 && exchange.head.method == Method::Post) {
        return false;
    }
    let Some(agent) = exchange.head.field(FieldName::UserAgent) else { return false };
    let has = |text: &[u8]| memchr::memmem::find(agent, text).is_some();
    let is_old_msie = ["MSIE 4.", "MSIE 5.", "MSIE 6."].iter().any(|name| has(name.as_bytes()))
        && !has(b"Opera")
        && !has(b"SV1");
    let is_mac_safari = has(b"Safari/") && has(b"Mac OS X") && !has(b"Chrome/");
    disable.msie6 && exchange.head.method == Method::Post && is_old_msie || disable.safari && is_mac_safari
}
