//! The relay's side of a stream: what `sending.rs` and `receiving.rs` do where a relay has a connection of its own.

use rustix::io::Errno;

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::Call;
use crate::message::{Fields, RequestFraming, ResponseHead};
use crate::proto::h1::ResponseFault;
use crate::proto::h2::{ErrorCode, NewRequest, OpenError, StreamLoss};
use crate::server::files::calls;
use crate::server::worker::resources::Resources;

use super::super::failure::{Failure, told};
use super::super::outbound::Next;
use super::super::receiving::{Heading, Received, Sink};
use super::super::securing::refused;
use super::super::sending::Sending;
use super::super::tls::TlsLayer;
use super::super::{Carrier, Ending, Relay, Run, State};
use super::tunnel;
use super::{Gone, Loss, Mux, OUT_BYTES, Slot, Stage, StreamLink, queue};

/// The request was not looked at, and may go elsewhere whatever it is.
const NOT_TAKEN: StreamLoss = StreamLoss {
    code: ErrorCode::REFUSED_STREAM,
    reason: "upstream takes no more requests on this connection",
    by_peer: true,
    may_be_processed: false,
};

impl StreamLink {
    /// Whether the connection stands already.
    pub fn is_open(&self) -> bool {
        self.mux.borrow().stage == Stage::Open
    }

    /// How far the connection is.
    pub fn stage(&self) -> Stage {
        self.mux.borrow().stage.clone()
    }

    /// Begins with TLS, unless another relay did already.
    pub fn secure(&self, layer: TlsLayer, res: &mut Resources) {
        {
            let mut mux = self.mux.borrow_mut();
            let is_plain = mux.stage == Stage::Plain;
            if let Some(connection) = mux.connection.as_mut().filter(|_| is_plain) {
                connection.tls = Some(Box::new(layer));
                mux.stage = Stage::Securing;
            }
        }
        queue(&self.mux, res);
    }

    /// Lets go of it; a stream that is open still is reset. `is_silent_since` says when the request began if its peer
    /// took too long: a connection on which nothing has come since then is not trusted with others.
    pub fn release(self, is_silent_since: Option<u64>, res: &mut Resources) {
        {
            let mut mux = self.mux.borrow_mut();
            mux.release(self.slot, res.env.now.monotonic_ms);
            mux.retired |= is_silent_since.is_some_and(|began_ms| mux.received_ms <= began_ms);
            mux.idle_since_ms = res.env.now.monotonic_ms;
        }
        queue(&self.mux, res);
    }

    /// Does something with the slot; `None` if it is gone.
    fn with_slot<R>(&self, act: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        self.mux.borrow_mut().slots.get_mut(self.slot).map(act)
    }

    /// The response's trailers.
    fn take_trailers(&self, trailers: &mut Fields) {
        self.with_slot(|slot| std::mem::swap(&mut slot.trailers, trailers));
    }
}

impl Run {
    /// The stream that the try has, if it has no connection of its own.
    pub(in crate::server::relay) fn stream(&self) -> Option<&StreamLink> {
        match &self.carrier {
            Carrier::Stream(link) => Some(link),
            Carrier::Own(_) => None,
        }
    }
}

impl Relay {
    /// The handshake of the connection: is it done?
    pub(in crate::server::relay) fn look_for_stream(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<bool, Failure> {
        let Some(link) = self.run.as_ref().and_then(Run::stream) else { return Err(Failure::Internal) };
        link.with_slot(|slot| slot.stirred = false);
        match link.stage() {
            Stage::Plain if self.state == State::Connecting => self.begin_handshake(exchange, res),
            Stage::Securing if self.state == State::Connecting => {
                self.state = State::Securing;
                self.renew_deadline(exchange);
                Ok(false)
            }
            Stage::Connecting | Stage::Plain | Stage::Securing => Ok(false),
            Stage::Open => {
                self.note_connected(exchange, res.env.now.monotonic_ms);
                Ok(true)
            }
            Stage::Closed(gone) => Err(not_connected(&gone, exchange, res)),
        }
    }

    /// Writes as much of the request as there is room for.
    pub(in crate::server::relay) fn send_on_stream(&mut self, exchange: &Exchange, res: &mut Resources) {
        let Relay { run: Some(run), outbound, .. } = self else { return };
        let Carrier::Stream(link) = &run.carrier else { return };
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else { return };
        let before = run.sent;
        // The end of a body may be all there is to say.
        let has_frames = {
            let mut mux = link.mux.borrow_mut();
            if mux.stage != Stage::Open {
                return;
            }
            if call.asks_upgrade && !mux.machine.has_settings() {
                // They say whether it takes tunnels (RFC 8441 section 3).
                return;
            }
            if matches!(run.sending, Sending::Head(_)) {
                (run.sending, run.sent) = mux.begin(link.slot, call);
            }
            let stream = mux.slots.get(link.slot).and_then(|slot| slot.stream);
            while run.sending == Sending::Body
                && let Some(stream) = stream
            {
                let next = outbound.next(&call.body, &exchange.request_body);
                let room = mux.machine.room(stream).min(OUT_BYTES.saturating_sub(mux.backlog()));
                let Mux { machine, out, .. } = &mut *mux;
                let sent = match next {
                    Next::Complete => {
                        machine.send_data(stream, b"", true, out);
                        run.sending = Sending::Done;
                        break;
                    }
                    Next::Starved => break,
                    Next::Bytes(_) | Next::File(..) if room == 0 => {
                        machine.set_has_data(stream, true);
                        break;
                    }
                    Next::Bytes(bytes) => {
                        let piece = &bytes[..bytes.len().min(room)];
                        machine.send_data(stream, piece, outbound.is_last(piece.len()), out)
                    }
                    Next::File(file, offset, length) => {
                        let room = room.min(res.copy.len());
                        let most = usize::try_from(length).unwrap_or(usize::MAX).min(room);
                        match calls::read(file, &mut res.copy[..most], offset) {
                            Ok(count) if count > 0 => {
                                let is_last = outbound.is_last(count);
                                machine.send_data(stream, &res.copy[..count], is_last, out)
                            }
                            Ok(_) => {
                                run.sending = Sending::Broken(Errno::IO);
                                break;
                            }
                            Err(error) => {
                                run.sending = Sending::Broken(error);
                                break;
                            }
                        }
                    }
                };
                if outbound.is_last(sent) {
                    run.sending = Sending::Done;
                }
                run.sent += sent as u64;
                outbound.consume(sent as u64);
            }
            mux.backlog() > 0
        };
        if run.sent > before {
            run.moved_ms = res.env.now.monotonic_ms;
        }
        if has_frames {
            queue(&link.mux, res);
        }
    }

    /// Looks for the response's head.
    pub(in crate::server::relay) fn receive_stream_head(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Heading {
        let Some(run) = &mut self.run else { return Heading::Waiting };
        let Some(passed) = &mut exchange.upstream else { return Heading::Waiting };
        let found = {
            let Carrier::Stream(link) = &run.carrier else { return Heading::Waiting };
            link.with_slot(|slot| {
                slot.stirred = false;
                (slot.hints.take(), slot.head.take(), slot.lost.clone())
            })
        };
        match found {
            Some((Some(hints), head, _)) => {
                run.moved_ms = res.env.now.monotonic_ms;
                passed.response = hints;
                if let Carrier::Stream(link) = &run.carrier {
                    link.with_slot(|slot| slot.head = head);
                }
                Heading::EarlyHints
            }
            Some((None, Some(head), _)) => {
                run.moved_ms = res.env.now.monotonic_ms;
                run.received += head.head.fields.text().len() as u64;
                let memory = std::mem::replace(&mut passed.response, head.head);
                if let Carrier::Stream(link) = &run.carrier {
                    link.mux.borrow_mut().recycle(memory);
                }
                passed.length = head.length;
                passed.switched = head.switched;
                passed.minor = 1;
                self.outbound.forget();
                if head.switched {
                    tunnel::switch(&mut passed.response, &exchange.head);
                    return Heading::Head;
                }
                self.receive_stream_body(usize::MAX, Sink::Memory, exchange, res);
                Heading::Head
            }
            Some((None, None, Some(loss))) => Heading::Failed(self.lost_before_head(loss, exchange, res)),
            Some((None, None, None)) => Heading::Waiting,
            None => Heading::Failed(Failure::Internal),
        }
    }

    fn lost_before_head(&mut self, loss: Loss, exchange: &mut Exchange, res: &mut Resources) -> Failure {
        let failure = match &loss {
            Loss::Stream(loss) if !loss.may_be_processed => Failure::NotProcessed,
            Loss::Connection { unsent: true, .. } => Failure::NotProcessed,
            Loss::NoTunnel => Failure::NoTunnel,
            Loss::Stream(loss) => Failure::of_loss(loss),
            Loss::Connection { .. } => Failure::ResetBeforeHeader,
        };
        // That it is sent again at once is nothing to speak of.
        let level = match failure {
            Failure::NotProcessed if self.may_try_again(failure, exchange, 0).is_some() => Level::Info,
            _ => Level::Error,
        };
        log_loss(&loss, "reading response header from upstream", level, exchange, res);
        failure
    }

    /// Takes what came of the body, at most `room` bytes of it.
    pub(in crate::server::relay) fn receive_stream_body(
        &mut self,
        room: usize,
        sink: Sink,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Received {
        let Some(run) = &mut self.run else { return Received::Over };
        let Carrier::Stream(link) = &run.carrier else { return Received::Over };
        let taken = link.mux.borrow_mut().take(link.slot, room);
        let Some(taken) = taken else { return Received::Nothing };
        let count = taken.bytes.len();
        if count > 0 {
            queue(&link.mux, res);
            run.received += count as u64;
            run.body += count as u64;
            run.moved_ms = res.env.now.monotonic_ms;
            self.note_rate(count as u64);
            self.put(&taken.bytes, sink, exchange, res);
            self.spare_inbox(taken.bytes);
        }
        match (taken.is_last, taken.lost) {
            (true, _) => {
                let link = self.run.as_ref().and_then(Run::stream);
                if let (Some(passed), Some(link)) = (&mut exchange.upstream, link) {
                    link.take_trailers(&mut passed.trailers);
                }
                self.end_body(Ending::Complete, exchange, res);
                Received::Over
            }
            (false, Some(loss)) => {
                log_loss(&loss, "reading upstream", Level::Error, exchange, res);
                let failure = match &loss {
                    Loss::Stream(loss) => Failure::of_loss(loss),
                    Loss::NoTunnel | Loss::Connection { .. } => {
                        Failure::Response(ResponseFault::BodyTruncated)
                    }
                };
                self.end_body(Ending::Broken(failure), exchange, res);
                Received::Over
            }
            (false, None) if count > 0 => Received::Some,
            (false, None) => Received::Nothing,
        }
    }

    /// Gives the slot its memory back for what comes next.
    fn spare_inbox(&mut self, mut memory: Vec<u8>) {
        memory.clear();
        if let Some(link) = self.run.as_ref().and_then(Run::stream) {
            link.with_slot(|slot| {
                if slot.inbox.capacity() == 0 {
                    slot.inbox = memory;
                }
            });
        }
    }
}

/// A piece of a body.
struct Taken {
    bytes: Vec<u8>,
    /// Nothing follows it but trailers.
    is_last: bool,
    /// Nothing follows it, and it is not all.
    lost: Option<Loss>,
}

impl Mux {
    /// Writes a request's head; how far the request is sent with that, and how many bytes it took.
    fn begin(&mut self, slot: usize, call: &Call) -> (Sending, u64) {
        let broken = (Sending::Broken(Errno::INVAL), 0);
        let Some(head) = &call.framed else { return broken };
        let before = self.backlog();
        let request = NewRequest {
            method: if head.websocket { b"CONNECT" } else { &head.method },
            scheme: if head.secure { b"https" } else { b"http" },
            authority: &head.authority,
            path: &head.path,
            protocol: head.websocket.then_some(b"websocket"),
            fields: &head.fields,
            framing: head.framing,
        };
        let begins_at = self.total_sent + before as u64;
        let opened = self.machine.request(&request, &mut self.out);
        let length = (self.backlog() - before) as u64;
        let Some(place) = self.slots.get_mut(slot) else { return broken };
        match opened {
            Ok(stream) => {
                place.stream = Some(stream);
                place.begins_at = begins_at;
                if self.streams.len() <= stream.slot() {
                    self.streams.resize(stream.slot() + 1, (0, 0));
                }
                self.streams[stream.slot()] = (stream.id(), slot);
                self.requests += 1;
                self.unopened -= 1;
                let has_no_body = matches!(head.framing, RequestFraming::None | RequestFraming::Length(0));
                // What a tunnel has to say comes when it is there.
                let is_whole = has_no_body || head.websocket;
                (if is_whole { Sending::Done } else { Sending::Body }, length)
            }
            Err(OpenError::TooMany | OpenError::Unavailable) => {
                place.lost = Some(Loss::Stream(NOT_TAKEN));
                (Sending::Head(0), 0)
            }
            Err(OpenError::NoTunnels) => {
                place.lost = Some(Loss::NoTunnel);
                (Sending::Head(0), 0)
            }
            Err(OpenError::Invalid(_)) => broken,
        }
    }

    /// Takes memory for the next head.
    fn recycle(&mut self, mut memory: ResponseHead) {
        if self.scratch.fields.capacity() < memory.fields.capacity() {
            memory.clear();
            self.scratch = memory;
        }
    }

    /// Takes at most `room` bytes of what came for a slot, and gives the stream as much of its window back.
    fn take(&mut self, slot: usize, room: usize) -> Option<Taken> {
        let place = self.slots.get_mut(slot)?;
        place.stirred = false;
        let bytes = if place.inbox.len() <= room {
            std::mem::take(&mut place.inbox)
        } else {
            let rest = place.inbox.split_off(room);
            std::mem::replace(&mut place.inbox, rest)
        };
        let is_empty = place.inbox.is_empty();
        let (is_last, lost) = (place.ended && is_empty, place.lost.clone().filter(|_| is_empty));
        if let Some(stream) = place.stream {
            self.machine.consumed(stream, bytes.len(), &mut self.out);
        }
        Some(Taken { bytes, is_last, lost })
    }
}

/// Logs why there is no connection.
fn not_connected(gone: &Gone, exchange: &mut Exchange, res: &mut Resources) -> Failure {
    match gone {
        Gone::NotConnected(errno) => {
            let message = format_args!("connect() failed ({}) while connecting to upstream", told(*errno));
            exchange.log_upstream(&mut res.env, Level::Error, message);
            Failure::of_connect(&(*errno).into())
        }
        Gone::NotSecured(failure) => refused(failure, exchange, res),
        _ => Failure::NotProcessed,
    }
}

fn log_loss(loss: &Loss, doing: &str, level: Level, exchange: &mut Exchange, res: &mut Resources) {
    let mut log = |what: std::fmt::Arguments| {
        exchange.log_upstream(&mut res.env, level, format_args!("{what} while {doing}"));
    };
    match loss {
        // nginx's words.
        Loss::Stream(loss) if loss.by_peer => {
            log(format_args!("upstream rejected request with error {} ({})", loss.code.0, loss.code.name()));
        }
        Loss::Stream(loss) => log(format_args!("{}", loss.reason)),
        Loss::NoTunnel => log(format_args!(
            "upstream takes no WebSockets over HTTP/2 (extended CONNECT, RFC 8441); \"proxy_http_version 1.1\" is \
             for those that take them over HTTP/1 only: failed"
        )),
        Loss::Connection { gone, .. } => match gone {
            Gone::Broken(errno) | Gone::NotConnected(errno) => {
                log(format_args!("recv() failed ({})", told(*errno)));
            }
            Gone::NotSecured(_) => log(format_args!("there is no TLS with the upstream")),
            Gone::Ended | Gone::Unused => log(format_args!("upstream prematurely closed connection")),
            Gone::Protocol(reason) => log(format_args!("{reason}")),
        },
    }
}
