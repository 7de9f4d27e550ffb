//! Subrequests: clients whose responses go to another request of the same worker, through a pipe.
//!
//! The pipe is bounded: a subrequest whose reader takes nothing waits like one whose client is slow, and so does the
//! upstream behind it. Who reads, or waits for the end, is stirred when there is something new; so is the writer when
//! there is room again, or when nobody wants its response any more.

use std::cell::RefCell;
use std::rc::Rc;

use rustix::io::Errno;

use crate::base::level::Level;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::flow::Answer;
use crate::http::subrequest::Order;
use crate::message::{Fields, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::RespondOptions;
use crate::server::worker::resources::Resources;

use super::lane::Lane;
use super::output::Output;
use super::transport::Transport;
use super::wire::Wire;
use super::{Active, Client, ClientKey, Fate, State, Waiting};

/// Bytes that wait in a pipe.
const PIPE_BYTES: usize = 64 * 1024;
/// Bytes of a body that nobody wants are read for the sake of the upstream's connection, up to so many.
const DROPPED_BYTES: usize = 1 << 20;

/// See the module's documentation.
pub struct Pipe {
    /// Whom the response is for; `None` where nobody waits for it.
    reader: Option<ClientKey>,
    writer: Option<ClientKey>,
    buffer: Vec<u8>,
    taken: usize,
    /// The body is dropped; so many bytes of it were.
    dropped: Option<usize>,
    /// All of the body is gathered, if it is no longer than this.
    captures: Option<usize>,
    /// The reader wants the exchange when it is over.
    wants_result: bool,
    result: Option<Box<Exchange>>,
    /// The response's status, once it is known.
    pub status: Option<Status>,
    /// It was sent whole.
    is_complete: bool,
    is_over: bool,
    is_closed: bool,
    writer_waits: bool,
}

/// A pipe in the hands of both sides.
pub type SharedPipe = Rc<RefCell<Pipe>>;

/// A subrequest that is to be served.
pub struct NewSubrequest {
    /// It.
    pub active: Box<Active>,
    /// Where its response goes.
    pub pipe: SharedPipe,
    /// Listening socket of the connection.
    pub listener: u32,
}

impl Pipe {
    /// A pipe to this reader; without one the response is for nobody.
    pub fn new(reader: Option<ClientKey>, head_only: bool, wants_result: bool) -> SharedPipe {
        Rc::new(RefCell::new(Pipe {
            reader,
            writer: None,
            buffer: Vec::new(),
            taken: 0,
            dropped: (head_only || reader.is_none()).then_some(0),
            captures: None,
            wants_result,
            result: None,
            status: None,
            is_complete: false,
            is_over: false,
            is_closed: false,
            writer_waits: false,
        }))
    }

    /// What has come and was not taken.
    pub fn front(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Takes bytes off the front.
    pub fn consume(&mut self, count: usize, res: &mut Resources) {
        self.taken += count;
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        if std::mem::take(&mut self.writer_waits)
            && let Some(writer) = self.writer
        {
            res.stirred.push(writer);
        }
    }

    /// Whether nothing follows what is at the front.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the response ended before all of it was there: what it is a part of must not look complete either.
    pub fn is_cut(&self) -> bool {
        self.is_over && self.status.is_some() && !self.is_complete
    }

    /// Whether the response is an error, or nothing but a redirect.
    pub fn has_failed(&self) -> bool {
        self.status.is_some_and(|status| status.0 >= 300)
    }

    /// Whether the response was sent whole, once it is over.
    pub fn is_whole(&self) -> bool {
        self.is_complete
    }

    /// The body that was gathered; `None` if it is not whole, or that of an error.
    pub fn take_captured(&mut self) -> Option<Vec<u8>> {
        (self.is_complete && !self.has_failed()).then(|| std::mem::take(&mut self.buffer))
    }

    /// The exchange, once it is over.
    pub fn take_result(&mut self) -> Option<Box<Exchange>> {
        self.result.take()
    }

    /// Nobody wants the response any more.
    pub fn close(&mut self, res: &mut Resources) {
        self.is_closed = true;
        self.reader = None;
        if let Some(writer) = self.writer {
            res.stirred.push(writer);
        }
    }

    /// Nobody wants the rest, which is read nevertheless if it is not too long.
    pub fn drop_rest(&mut self, res: &mut Resources) {
        self.reader = None;
        self.dropped = Some(0);
        let count = self.front().len();
        self.consume(count, res);
    }

    fn finish(&mut self, result: Option<Box<Exchange>>, res: &mut Resources) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.result = result;
        self.stir_reader(res);
    }

    fn stir_reader(&self, res: &mut Resources) {
        if let Some(reader) = self.reader {
            res.stirred.push(reader);
        }
    }
}

/// The writer's end.
pub struct PipeEnd(pub SharedPipe);

impl Lane for PipeEnd {
    fn room(&self) -> usize {
        let pipe = self.0.borrow();
        match pipe.dropped.or(pipe.captures) {
            Some(_) => usize::MAX,
            None => PIPE_BYTES.saturating_sub(pipe.buffer.len() - pipe.taken),
        }
    }

    fn send(&mut self, piece: &[u8]) -> Result<usize, Errno> {
        let mut pipe = self.0.borrow_mut();
        if pipe.is_closed {
            return Err(Errno::PIPE);
        }
        if let Some(dropped) = &mut pipe.dropped {
            *dropped += piece.len();
            return if *dropped > DROPPED_BYTES { Err(Errno::PIPE) } else { Ok(piece.len()) };
        }
        if let Some(most) = pipe.captures {
            if pipe.buffer.len() + piece.len() > most {
                return Err(Errno::MSGSIZE);
            }
            pipe.buffer.extend_from_slice(piece);
            return Ok(piece.len());
        }
        let taken = piece.len().min(PIPE_BYTES.saturating_sub(pipe.buffer.len() - pipe.taken));
        if pipe.taken > 0 && taken > 0 {
            let start = std::mem::take(&mut pipe.taken);
            pipe.buffer.drain(..start);
        }
        pipe.buffer.extend_from_slice(&piece[..taken]);
        Ok(taken)
    }

    fn begin(&mut self, framing: ResponseFraming, _: bool) -> ResponseFraming {
        match framing {
            ResponseFraming::None => ResponseFraming::None,
            _ => ResponseFraming::UntilClose,
        }
    }

    fn finish(&mut self, _: &Fields) {}

    fn want_turn(&self, wants: bool) {
        self.0.borrow_mut().writer_waits = wants;
    }

    fn after_turn(&self, res: &mut Resources) {
        let pipe = self.0.borrow();
        if !pipe.front().is_empty() {
            pipe.stir_reader(res);
        }
    }

    fn release(&self, res: &mut Resources) {
        self.0.borrow_mut().finish(None, res);
    }
}

/// What a subrequest's response is written with: there is no head to write.
pub fn respond(head: &ResponseHead, _: &RespondOptions<'_>) -> ResponseFraming {
    match head.content_length {
        _ if head.status.forbids_content() => ResponseFraming::None,
        Some(0) => ResponseFraming::None,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::UntilClose,
    }
}

impl Client {
    /// Makes the subrequest that the exchange waits for; its answer if it can't be made.
    pub(super) fn make_subrequest(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Option<Answer> {
        let Some(order) = active.exchange.order.take() else { return Some(Answer::Subrequest(None)) };
        let pipe = self.order(active, *order, Some(key), true, res);
        let Some(pipe) = pipe else { return Some(Answer::Subrequest(None)) };
        active.subrequest = Some(pipe);
        active.waiting = Waiting::Subrequest;
        self.set_deadline(u64::MAX);
        None
    }

    /// Makes the subrequests that nobody waits for.
    pub(super) fn make_background(&mut self, active: &mut Active, res: &mut Resources) {
        for order in std::mem::take(&mut active.exchange.background) {
            self.order(active, order, None, false, res);
        }
    }

    /// Makes a subrequest; its response comes through the pipe.
    pub(super) fn order(
        &mut self,
        active: &mut Active,
        order: Order,
        reader: Option<ClientKey>,
        wants_result: bool,
        res: &mut Resources,
    ) -> Option<SharedPipe> {
        if !active.exchange.may_order() {
            let uri = String::from_utf8_lossy(&order.uri).into_owned();
            let message = format_args!("subrequests cycle while processing \"{uri}\"");
            active.exchange.log_in_scope(&mut res.env, Level::Error, message);
            return None;
        }
        let pipe = Pipe::new(reader, order.head_only, wants_result);
        if order.captured {
            let most = active.exchange.scope_settings().core.subrequest_output_buffer_size;
            pipe.borrow_mut().captures = Some(usize::try_from(most).unwrap_or(usize::MAX));
        }
        let (mut new, _) = res.take_active(self);
        if order.with_body {
            new.body_file = active.body_file.as_ref().map(|file| file.share());
        }
        new.exchange.begin_subrequest(&active.exchange, order, res.env.now.monotonic_ms);
        new.waiting = Waiting::Nothing;
        let (pipe_end, listener) = (Rc::clone(&pipe), self.listener);
        res.subrequests.push(NewSubrequest { active: new, pipe: pipe_end, listener });
        Some(pipe)
    }

    /// Whoever waits for a pipe, or writes to one, has something to look at.
    pub fn on_stirred(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let fate = match &self.transport {
            Transport::Stream(_) => self.on_stream_event(key, res),
            Transport::Pipe(end) => {
                let is_closed = end.0.borrow().is_closed;
                match is_closed {
                    true => return self.lose_lane(key, res),
                    false => self.on_lane_room(key, res),
                }
            }
            _ => Fate::Keep,
        };
        match fate {
            Fate::Keep => self.look_at_pipes(key, res),
            Fate::Close => fate,
        }
    }

    fn look_at_pipes(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let State::Active(active) = &mut self.state else { return Fate::Keep };
        match active.waiting {
            Waiting::Subrequest => {}
            Waiting::Output if active.output.has_subrequests() && self.unsent.is_empty() => {
                return match self.pump(key, res) {
                    Fate::Keep => self.read_on(key, res),
                    Fate::Close => Fate::Close,
                };
            }
            _ => return Fate::Keep,
        }
        let Some(pipe) = &active.subrequest else { return Fate::Keep };
        if !pipe.borrow().is_over() {
            return Fate::Keep;
        }
        let result = pipe.borrow_mut().take_result();
        active.subrequest = None;
        let Some(active) = self.take_state() else { return Fate::Keep };
        match self.drive(active, Some(Answer::Subrequest(result)), key, res) {
            // Whatever came in meanwhile waits behind this request.
            Fate::Keep => self.read_on(key, res),
            Fate::Close => Fate::Close,
        }
    }

    /// A subrequest is served.
    pub fn begin_subrequest(&mut self, new: NewSubrequest, key: ClientKey, res: &mut Resources) -> Fate {
        let NewSubrequest { active, pipe, .. } = new;
        pipe.borrow_mut().writer = Some(key);
        self.wire = Wire::Subrequest;
        if pipe.borrow().is_closed {
            res.give_back(active);
            return Fate::Close;
        }
        self.drive(active, None, key, res)
    }

    /// The exchange is over: who waits for it gets it, else its memory is used again.
    pub(super) fn hand_over(&mut self, mut active: Box<Active>, res: &mut Resources) {
        if active.exchange.begin_post_action(&mut res.env) {
            active.output = Output::default();
            active.waiting = Waiting::Nothing;
            let (pipe, listener) = (Pipe::new(None, true, false), self.listener);
            return res.subrequests.push(NewSubrequest { active, pipe, listener });
        }
        if let Transport::Pipe(end) = &self.transport {
            end.0.borrow_mut().is_complete = active.exchange.outcome.complete;
        }
        match &self.transport {
            Transport::Pipe(end) if end.0.borrow().wants_result && !end.0.borrow().is_closed => {
                let Active { mut exchange, .. } = *active;
                let mut pipe = end.0.borrow_mut();
                if pipe.captures.is_some() {
                    exchange.body = Body::Bytes(std::mem::take(&mut pipe.buffer));
                }
                let result = exchange.outcome.complete.then(|| Box::new(exchange));
                pipe.finish(result, res);
            }
            _ => res.give_back(active),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_ended_before_all_of_it_was_there_is_cut() {
        let pipe = Pipe::new(None, false, false);
        let mut pipe = pipe.borrow_mut();
        pipe.is_over = true;
        assert!(!pipe.is_cut(), "there was none at all");
        pipe.status = Some(Status::OK);
        assert!(pipe.is_cut());
        pipe.is_complete = true;
        assert!(!pipe.is_cut());
    }
}
