//! A body on its way through filters: source, chain, encoder.
//!
//! What is in memory and small is filtered whole before the head goes out, so that its length is known; compressed files
//! are kept in that form ([`crate::server::compressed`]). Everything else is pulled through the chain piece by piece, as
//! the socket takes it; when an upstream pauses, what it has said so far goes out. A turn takes no more input than its
//! most costly filter works through in a millisecond or two; then other connections have theirs.

use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::base::level::Level;
use crate::http::body::Body;
use crate::http::body_filters::{BodyFilter, Chain, FilterFailure, FilterSpec, Progress, Signal};
use crate::http::exchange::Exchange;
use crate::http::file::FileFailure;
use crate::http::modules::slice::PlanStep;
use crate::server::client::{Active, Client, ClientKey};
use crate::server::compressed::{FormKey, LARGEST_FORM};
use crate::server::files::{
    Copied, FileIdentity, TURN_BYTES, Warmth, calls, is_given_up, is_unchanged, read_range,
};
use crate::server::relay::inbound::Front;
use crate::server::relay::{Fill, Relay};
use crate::server::worker::resources::Resources;

use super::reopening::Reopened;
use super::slices::Slices;
use super::weave::{Pulled, Weave};
use super::{COPY_MAX, Output, Pumped, memory_of};

/// Output is gathered up to so many bytes before it is sent.
pub(super) const GATHER_BYTES: usize = 32 * 1024;

/// See the module's documentation.
pub struct Filtering {
    chain: Chain,
    /// What subrequests have a part in, behind the chain.
    weave: Option<Box<Weave>>,
    /// How what is filtered comes in slices.
    pub(super) slices: Option<Slices>,
    /// Bytes of input that one turn takes.
    turn_bytes: usize,
    /// What came out and was not sent yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// The chain has no more to say.
    pub(super) is_done: bool,
    compresses: bool,
    taken_bytes: u64,
    made_bytes: u64,
    /// The form that is kept when it is whole.
    form: Option<(FormKey, Vec<u8>)>,
}

impl std::fmt::Debug for Filtering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filtering").field("taken", &self.taken_bytes).finish_non_exhaustive()
    }
}

/// Gets the response's body ready to be filtered. What can be filtered at once becomes another body, with its length.
pub fn prepare(exchange: &mut Exchange, res: &mut Resources) -> Option<Box<Filtering>> {
    let is_as_it_is = exchange.body_filters.is_empty() && !exchange.is_sliced();
    if is_as_it_is || exchange.is_head() || exchange.response.status.forbids_content() {
        return None;
    }
    let specs = std::mem::take(&mut exchange.body_filters);
    let weaving = exchange.weaving.take();
    let slices = exchange.take_slices();
    let key = form_key(&specs, &exchange.body).filter(|_| slices.is_none());
    if let Some(form) = key.and_then(|key| res.compressed.find(&key)) {
        exchange.notes.compress.ratio = (exchange.body.len(), form.len() as u64);
        respond_with(exchange, form);
        return None;
    }
    let length = match (&slices, &exchange.body) {
        (Some(plan), _) => Some(plan.left()),
        (None, Body::Upstream(length)) => *length,
        (None, body) => Some(body.len()),
    };
    let turn_bytes = specs.iter().map(FilterSpec::turn_bytes).min().unwrap_or(TURN_BYTES);
    let place = specs.iter().position(|spec| matches!(spec, FilterSpec::Weave)).unwrap_or(specs.len());
    let weave = weaving.map(|weaving| Box::new(Weave::new(weaving, &specs[place..])));
    let mut filtering = Box::new(Filtering {
        chain: Chain::new(if weave.is_some() { &specs[..place] } else { &specs }, length),
        weave,
        slices: slices.map(Slices::new),
        turn_bytes,
        out: Vec::new(),
        sent: 0,
        is_done: false,
        compresses: specs.iter().any(|spec| matches!(spec, FilterSpec::Compress(_))),
        taken_bytes: 0,
        made_bytes: 0,
        form: None,
    });
    if !matches!(exchange.body, Body::Upstream(_))
        && filtering.weave.is_none()
        && filtering.slices.is_none()
        && exchange.body.len() <= turn_bytes as u64
        && let Some(bytes) = memory_of(&exchange.body)
        && !matches!(exchange.body, Body::Pieces(_))
    {
        match filtering.take_all(bytes) {
            Ok(()) => {
                filtering.note_ratio(exchange);
                let form: Rc<[u8]> = filtering.out.into();
                if let Some(key) = key {
                    res.compressed.keep(key, form.clone());
                }
                respond_with(exchange, form);
                return None;
            }
            // Nothing was sent: the client learns of it as of any other body that breaks off.
            Err(_) => filtering.restart(&specs, length),
        }
    }
    filtering.form = key
        .filter(|_| match &exchange.body {
            Body::File(range) => is_unchanged(&range.handle, res.env.now.into()),
            _ => false,
        })
        .map(|key| (key, Vec::new()));
    Some(filtering)
}

/// Makes a form the body, with its length.
fn respond_with(exchange: &mut Exchange, form: Rc<[u8]>) {
    exchange.response.set_content_length(form.len() as u64);
    exchange.body = Body::Shared { bytes: form, offset: 0 };
}

/// The key of a file's compressed form, where the body is a whole file that is compressed and nothing else.
fn form_key(specs: &[FilterSpec], body: &Body) -> Option<FormKey> {
    let ([FilterSpec::Compress(compression)], Body::File(range)) = (specs, body) else { return None };
    let file = FileIdentity::of(&range.handle)?;
    (range.offset == 0 && range.length == file.size()).then_some(FormKey { file, compression: *compression })
}

/// Where the next input comes from, and what became of the try to get it.
pub(super) enum Taken {
    /// Some was taken.
    Some,
    /// The chain is done, or its output has no room.
    Stopped,
    /// The upstream has nothing to say now.
    Paused,
    /// A subrequest has nothing to say now.
    Waiting,
    /// The present slice of the body has come.
    SliceOver,
    /// The pool reads.
    Reading,
    /// The body breaks off.
    Broken,
}

impl Filtering {
    fn restart(&mut self, specs: &[FilterSpec], length: Option<u64>) {
        self.chain = Chain::new(specs, length);
        self.out.clear();
        self.is_done = false;
        (self.taken_bytes, self.made_bytes) = (0, 0);
    }

    fn rest(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// Feeds all of a body.
    fn take_all(&mut self, mut input: &[u8]) -> Result<(), FilterFailure> {
        while !self.is_done {
            self.feed(&mut input, Signal::Last, GATHER_BYTES)?;
        }
        Ok(())
    }

    /// Bytes that came out and were not sent yet.
    pub(super) fn gathered(&self) -> usize {
        self.out.len()
    }

    /// Feeds the chain with a piece of the response's own body, or of a slice of it.
    pub(super) fn feed_own(&mut self, input: &mut &[u8], room: usize) -> Result<(), FilterFailure> {
        let Some(slices) = &mut self.slices else { return self.feed(input, Signal::More, room).map(drop) };
        let (skipped, most) = match slices.next_step(input.len()) {
            PlanStep::Surplus => return Err(FilterFailure("a slice is longer than was announced")),
            PlanStep::Skip(count) => (count as usize, 0),
            PlanStep::Send(count) => (0, count as usize),
        };
        slices.advance(skipped);
        *input = &input[skipped..];
        let mut piece = &input[..most];
        if most > 0 {
            self.feed(&mut piece, Signal::More, room)?;
        }
        let count = most - piece.len();
        if let Some(slices) = &mut self.slices {
            slices.advance(count);
        }
        *input = &input[count..];
        Ok(())
    }

    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let (before, length) = (input.len(), self.out.len());
        if let Some(weave) = &mut self.weave {
            let progress = self.chain.filter(input, signal, &mut weave.own, room)?;
            weave.own_is_over = progress == Progress::Done;
            self.taken_bytes += (before - input.len()) as u64;
            return Ok(progress);
        }
        let progress = self.chain.filter(input, signal, &mut self.out, room)?;
        self.is_done = progress == Progress::Done;
        self.taken_bytes += (before - input.len()) as u64;
        self.made_bytes += (self.out.len() - length) as u64;
        if let Some((_, form)) = &mut self.form {
            form.extend_from_slice(&self.out[length..]);
            if form.len() > LARGEST_FORM {
                self.form = None;
            }
        }
        Ok(progress)
    }

    fn note_ratio(&self, exchange: &mut Exchange) {
        if self.compresses {
            exchange.notes.compress.ratio = (self.taken_bytes, self.made_bytes);
        }
    }
}

impl Client {
    /// Pulls the body through its filters and sends what comes out.
    pub(super) fn pump_filtered(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Pumped, Errno> {
        let Some(mut filtering) = active.output.filtering.take() else { return Ok(Pumped::Broken) };
        let pumped = self.pump_through(&mut filtering, active, key, res);
        match pumped {
            Ok(Pumped::Done) => {
                filtering.close(res);
                filtering.note_ratio(&mut active.exchange);
                if let Some((key, form)) = filtering.form.take()
                    && let Body::File(range) = &active.output.body
                    && is_unchanged(&range.handle, res.env.now.into())
                {
                    res.compressed.keep(key, form.into());
                }
                active.output.body = Body::Empty;
            }
            Err(_) if active.relay.as_ref().is_some_and(|relay| !relay.ends_with_client()) => {
                // For the upstream's sake alone.
                filtering.close(res);
                self.flags.gone = true;
                res.out.clear();
                self.unsent = Vec::new();
                return self.pump_upstream(active, key, res);
            }
            _ => active.output.filtering = Some(filtering),
        }
        pumped
    }

    fn pump_through(
        &mut self,
        filtering: &mut Filtering,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Pumped, Errno> {
        let mut work = filtering.turn_bytes.min(self.turn_bytes() as usize);
        loop {
            if let Some(stopped) = self.send_filtered(filtering, active, key, res)? {
                return Ok(stopped);
            }
            if filtering.is_done {
                return Ok(Pumped::Done);
            }
            if work == 0 {
                return Ok(Pumped::Spent);
            }
            let mut stopped = Taken::Some;
            while work > 0 && matches!(stopped, Taken::Some) {
                let before = filtering.taken_bytes;
                stopped = match self.take_woven(filtering, active, work, key, res) {
                    Ok(taken) => taken,
                    Err(FilterFailure(why)) => {
                        let message = format_args!("{why} while filtering the response");
                        active.exchange.log_in_scope(&mut res.env, Level::Error, message);
                        Taken::Broken
                    }
                };
                work = work.saturating_sub((filtering.taken_bytes - before) as usize);
            }
            match stopped {
                Taken::Reading => {
                    self.flush(res)?;
                    return Ok(Pumped::Reading);
                }
                Taken::Broken => {
                    // What came out is the client's; that it is not all, it sees by the end.
                    self.send_filtered(filtering, active, key, res)?;
                    let _ = self.flush(res);
                    self.flags.reset |= active.output.is_until_close();
                    return Ok(Pumped::Broken);
                }
                Taken::Paused if filtering.rest().is_empty() => return self.wait_for_upstream(active, res),
                Taken::Waiting if filtering.rest().is_empty() => {
                    return Ok(if self.flush(res)? { Pumped::Waiting } else { Pumped::Blocked });
                }
                Taken::Some | Taken::Stopped | Taken::SliceOver | Taken::Paused | Taken::Waiting => {}
            }
        }
    }

    /// Feeds the chain, or takes from what is woven.
    fn take_woven(
        &mut self,
        filtering: &mut Filtering,
        active: &mut Active,
        work: usize,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Taken, FilterFailure> {
        let Some(mut weave) = filtering.weave.take() else {
            return self.take_own(filtering, active, work, key, res);
        };
        self.weave_on(&mut weave, active, key, res);
        let room = GATHER_BYTES.saturating_sub(filtering.out.len());
        let length = filtering.out.len();
        let pulled = match room {
            0 => None,
            room => Some(weave.pull(&mut filtering.out, room, res)),
        };
        filtering.made_bytes += (filtering.out.len() - length) as u64;
        let takes_own = weave.takes_own();
        filtering.weave = Some(weave);
        let pulled = pulled.transpose()?;
        match pulled {
            None => Ok(Taken::Stopped),
            Some(Pulled::Some) => Ok(Taken::Some),
            Some(Pulled::Done) => {
                filtering.is_done = true;
                Ok(Taken::Stopped)
            }
            Some(Pulled::WantsOwn | Pulled::Waiting) if !takes_own => Ok(Taken::Waiting),
            Some(Pulled::WantsOwn | Pulled::Waiting) => {
                let taken = self.take_own(filtering, active, work, key, res)?;
                let waits = matches!(pulled, Some(Pulled::Waiting));
                match (taken, &mut filtering.weave) {
                    (taken @ (Taken::Paused | Taken::Waiting), Some(weave)) => {
                        weave.flush(&mut filtering.out, GATHER_BYTES)?;
                        let came = !weave.own.is_empty() || weave.own_is_over;
                        Ok(if came { Taken::Some } else { taken })
                    }
                    // What is read will wake it; so will the subrequest.
                    (Taken::Stopped, Some(weave)) if waits && weave.own.is_empty() => Ok(Taken::Waiting),
                    (taken, _) => Ok(taken),
                }
            }
        }
    }

    /// The upstream has nothing to say, and all that it said is out.
    fn wait_for_upstream(&mut self, active: &mut Active, res: &mut Resources) -> Result<Pumped, Errno> {
        let Active { exchange, relay: Some(relay), .. } = active else { return Ok(Pumped::Broken) };
        relay.await_body(exchange, res.env.now.monotonic_ms);
        if relay.may_postpone(exchange) && self.postpone(res) {
            return Ok(Pumped::Starved);
        }
        Ok(if self.flush(res)? { Pumped::Starved } else { Pumped::Blocked })
    }

    /// Sends or gathers what came out of the filters; says what stopped it before the end.
    fn send_filtered(
        &mut self,
        filtering: &mut Filtering,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Option<Pumped>, Errno> {
        let Active { exchange, output, relay, .. } = active;
        while !filtering.rest().is_empty() {
            let mut most = filtering.rest().len() as u64;
            if let Some(wait_ms) = output.limit_rate(&mut most, res.env.now.monotonic_ms) {
                absorb(relay, exchange, key, res);
                return Ok(Some(if self.flush(res)? { Pumped::Delayed(wait_ms) } else { Pumped::Blocked }));
            }
            most = output.begin_chunk_of(most, &mut res.out);
            let bytes = &filtering.out[filtering.sent..][..most as usize];
            let sent = if most <= COPY_MAX && self.may_gather(res) {
                res.out.extend_from_slice(bytes);
                bytes.len()
            } else {
                self.send_with(bytes, SendFlags::NOSIGNAL, res)?
            };
            if sent == 0 {
                absorb(relay, exchange, key, res);
                return Ok(Some(Pumped::Blocked));
            }
            filtering.sent += sent;
            output.note_sent(sent as u64, exchange, &mut res.out);
        }
        filtering.out.clear();
        filtering.sent = 0;
        Ok(None)
    }
}

/// Lets the upstream go on while the client takes nothing.
fn absorb(relay: &mut Option<Box<Relay>>, exchange: &mut Exchange, key: ClientKey, res: &mut Resources) {
    if let Some(relay) = relay {
        relay.absorb(exchange, key, res);
    }
}

/// Feeds the chain with the next piece of at most `work` bytes.
pub(super) fn take_some(
    filtering: &mut Filtering,
    active: &mut Active,
    work: usize,
    key: ClientKey,
    res: &mut Resources,
) -> Result<Taken, FilterFailure> {
    let room = GATHER_BYTES.saturating_sub(filtering.out.len());
    if room == 0 || filtering.is_done {
        return Ok(Taken::Stopped);
    }
    if active.output.is_upstream() {
        return take_from_upstream(filtering, active, work, room, key, res);
    }
    let Active { exchange, output, .. } = active;
    if output.body_is_out() {
        if filtering.slices.is_some() {
            return Ok(Taken::SliceOver);
        }
        filtering.feed(&mut &[][..], Signal::Last, room)?;
        return Ok(Taken::Some);
    }
    let skip = output.sent_of_piece;
    let piece = output.first_piece();
    if let Some(bytes) = memory_of(piece) {
        let end = bytes.len().min(skip + work);
        let mut input = &bytes[skip..end];
        let before = input.len();
        filtering.feed_own(&mut input, room)?;
        let taken = before - input.len();
        output.consume(taken as u64);
        return Ok(Taken::Some);
    }
    let Body::File(range) = piece else { return Ok(Taken::Broken) };
    let range = range.clone();
    if is_given_up(&range.handle) {
        return Ok(match output.open_again(&range.handle, key, res) {
            Reopened::Ready => Taken::Some,
            Reopened::Reading => Taken::Reading,
            Reopened::Busy => {
                exchange.log_not_again(&mut res.env, Some(FileFailure::busy()));
                Taken::Broken
            }
            Reopened::Lost(failure) => {
                exchange.log_not_again(&mut res.env, failure);
                Taken::Broken
            }
        });
    }
    let want = usize::try_from(range.length).unwrap_or(usize::MAX).min(work);
    if let Some((offset, buffer)) = &output.read
        && *offset <= range.offset
        && range.offset < *offset + buffer.len() as u64
    {
        let bytes = &buffer[(range.offset - *offset) as usize..];
        let mut input = &bytes[..bytes.len().min(want)];
        let before = input.len();
        filtering.feed_own(&mut input, room)?;
        let taken = before - input.len();
        output.consume(taken as u64);
        return Ok(Taken::Some);
    }
    output.read = None;
    let mut buffer = std::mem::take(&mut res.copy);
    let want = want.min(buffer.len());
    let taken = match read_range(&range.handle, range.offset, &mut buffer[..want], Warmth::Unknown) {
        Ok(Copied::Bytes(count)) => {
            let mut input = &buffer[..count];
            filtering.feed_own(&mut input, room).map(|()| {
                output.consume((count - input.len()) as u64);
                Taken::Some
            })
        }
        Ok(Copied::Truncated) => {
            exchange.log_truncated(&mut res.env);
            Ok(Taken::Broken)
        }
        Ok(Copied::Cold) | Err(_) => {
            Ok(match res.files.read(&range.handle, range.offset, TURN_BYTES.min(range.length as usize)) {
                Ok(job) => {
                    res.jobs.insert(job, key);
                    output.job = Some(job);
                    Taken::Reading
                }
                Err(_) => Taken::Broken,
            })
        }
    };
    res.copy = buffer;
    taken
}

fn take_from_upstream(
    filtering: &mut Filtering,
    active: &mut Active,
    work: usize,
    room: usize,
    key: ClientKey,
    res: &mut Resources,
) -> Result<Taken, FilterFailure> {
    let Active { exchange, relay: Some(relay), .. } = active else { return Ok(Taken::Broken) };
    let length = relay.inbound.front_len();
    if length == 0 {
        return match relay.fill(exchange, key, res) {
            Fill::Ready => Ok(Taken::Some),
            Fill::Complete if filtering.slices.is_some() => Ok(Taken::SliceOver),
            Fill::Complete => filtering.feed(&mut &[][..], Signal::Last, room).map(|_| Taken::Some),
            Fill::Broken => Ok(Taken::Broken),
            Fill::Waiting => filtering.feed(&mut &[][..], Signal::Flush, room).map(|_| Taken::Paused),
        };
    }
    let want = usize::try_from(length).unwrap_or(usize::MAX).min(work);
    let taken = match relay.inbound.front() {
        Front::Empty => return Ok(Taken::Paused),
        Front::Memory(bytes) => {
            let mut input = &bytes[..want];
            filtering.feed_own(&mut input, room)?;
            want - input.len()
        }
        Front::File(file, offset, _) => {
            let mut buffer = std::mem::take(&mut res.copy);
            let want = want.min(buffer.len());
            // Written a moment ago: as a rule it is in the page cache.
            let read = calls::read(file, &mut buffer[..want], offset);
            let fed = match read {
                Ok(count) if count > 0 => {
                    let mut input = &buffer[..count];
                    filtering.feed_own(&mut input, room).map(|()| Some(count - input.len()))
                }
                _ => Ok(None),
            };
            res.copy = buffer;
            match fed? {
                Some(taken) => taken,
                None => return Ok(Taken::Broken),
            }
        }
    };
    relay.inbound.consume(taken as u64);
    Ok(Taken::Some)
}

impl Filtering {
    /// Whether subrequests have a part in the body.
    pub fn has_subrequests(&self) -> bool {
        self.weave.is_some() || self.slices.is_some()
    }

    /// Whether it comes in slices.
    pub fn is_sliced(&self) -> bool {
        self.slices.is_some()
    }

    /// Nobody wants the response any more.
    pub fn close(&mut self, res: &mut Resources) {
        if let Some(weave) = &mut self.weave {
            weave.close(res);
        }
        if let Some(slices) = &mut self.slices {
            slices.close(res);
        }
    }
}

impl Output {
    fn body_is_out(&self) -> bool {
        self.body.is_empty()
    }
}
