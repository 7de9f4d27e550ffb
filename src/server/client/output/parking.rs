//! Requests whose response waits for window: what they do not need meanwhile serves others.
//!
//! A request on its way has memory for all that it may come to, which is taken from the worker's and goes back to it. Of
//! those that wait for window, the latest [`UNPARKED`] keep theirs, for their window as a rule comes at once; the others,
//! and all that have waited for long, are parked: what is left of them is small ([`Parked`]). Whoever has a turn is an
//! active request again before it begins, so that nothing else knows of this.
//!
//! ```text
//!             too many wait, or it has waited for long
//!   Active ------------------------------------------------> Parked
//!     ^                                                         |
//!     +---------------------------------------------------------+
//!         its turn; if it waits for window behind it still, it is parked again
//! ```

use crate::http::body::Body;
use crate::http::exchange::ParkedExchange;
use crate::message::ResponseFraming;
use crate::server::client::h2::stream::StreamEnd;
use crate::server::client::transport::Transport;
use crate::server::client::{Active, Client, ClientKey, State, Waiting};
use crate::server::files::TemporaryFile;
use crate::server::worker::resources::Resources;

use super::{Filtering, Output, Rate};

/// So many requests of a worker that wait for window keep all their memory.
pub const UNPARKED: usize = 64;

/// A request that is parked.
pub struct Parked {
    exchange: ParkedExchange,
    output: ParkedOutput,
    body_file: Option<Box<TemporaryFile>>,
}

const _: () = assert!(size_of::<Parked>() <= 520, "a stream that waits for window is to stay small");

/// What is left of an output that waits for nothing but window.
struct ParkedOutput {
    body: Body,
    sent_of_piece: usize,
    framing: ResponseFraming,
    rate: Option<Box<Rate>>,
    began_ms: u64,
    body_sent: u64,
    trailers: bool,
    sendfile: bool,
    filtering: Option<Box<Filtering>>,
}

impl Client {
    /// Whether it is a stream that cannot be sent before its client gives window, or takes what was sent before.
    fn waits_for_window(&self) -> bool {
        self.stream().is_some_and(|end| {
            let mux = end.link.mux.borrow();
            mux.machine.room(end.link.stream) == 0 || mux.is_stalled()
        })
    }

    fn stream_mut(&mut self) -> Option<&mut StreamEnd> {
        match &mut self.transport {
            Transport::Stream(end) => Some(end),
            _ => None,
        }
    }

    /// The response has no room: the request joins those that wait for window, if that is why.
    pub(super) fn join_waiting(&mut self, key: ClientKey, res: &mut Resources) {
        if self.waits_for_window()
            && let Some(end) = self.stream_mut()
            && !std::mem::replace(&mut end.is_listed, true)
        {
            res.waiting.push_back(key);
        }
    }

    /// The request is not among those any more.
    pub fn leave_waiting(&mut self) {
        if let Some(end) = self.stream_mut() {
            end.is_listed = false;
        }
    }

    /// The request has waited for long: it is parked when its turn is over.
    pub fn stand(&mut self) {
        if let Some(end) = self.stream_mut() {
            end.parks = true;
        }
    }

    /// The request goes on.
    pub(super) fn move_on(&mut self) {
        if let Some(end) = self.stream_mut() {
            end.parks = false;
        }
    }

    /// Whether the request is to be parked at the turn's end.
    pub fn is_to_be_parked(&self) -> bool {
        self.stream().is_some_and(|end| end.parks)
    }

    /// Parks the request if it waits for window and nothing else.
    pub fn park(&mut self, res: &mut Resources) {
        let waits = matches!(&self.state, State::Active(active) if active.may_be_parked())
            && !self.flags.gone
            && self.waits_for_window();
        if let Some(end) = self.stream_mut() {
            end.parks = waits;
        }
        if !waits {
            return;
        }
        let Some(mut active) = self.take_state() else { return };
        let parked = Parked {
            exchange: active.exchange.park(&self.facts),
            output: std::mem::take(&mut active.output).park(),
            body_file: active.body_file.take().map(Box::new),
        };
        self.state = State::Parked(Box::new(parked));
        res.give_back(active);
    }

    /// Makes a parked request an active one again. It is parked when the turn is over, unless it has moved on.
    #[inline]
    pub fn unpark(&mut self, res: &mut Resources) {
        if matches!(self.state, State::Parked(_)) {
            self.resume(res);
        }
    }

    #[cold]
    fn resume(&mut self, res: &mut Resources) {
        let mut active = res.take_active(self).0;
        if let State::Parked(parked) = std::mem::replace(&mut self.state, State::Head) {
            active.exchange.resume(parked.exchange, &self.facts);
            active.output = parked.output.resume();
            active.body_file = parked.body_file.map(|file| *file);
            active.waiting = Waiting::Output;
            self.state = State::Active(active);
        }
    }
}

impl Active {
    fn may_be_parked(&self) -> bool {
        self.waiting == Waiting::Output
            && self.body.is_none()
            && self.relay.is_none()
            && self.subrequest.is_none()
            && self.tunnel.is_none()
            && self.output.waits_for_room()
    }
}

impl Output {
    fn waits_for_room(&self) -> bool {
        self.job.is_none() && self.delayed_until_ms.is_none() && !self.starved && !self.is_upstream()
    }

    fn park(self) -> ParkedOutput {
        let Output {
            mut body,
            sent_of_piece,
            framing,
            // Frames need no chunks.
            chunk_left: _,
            // Found out again.
            warmth: _,
            read: _,
            job: _,
            delayed_until_ms: _,
            rate,
            began_ms,
            // Of sockets.
            blocked_ms: _,
            body_sent,
            trailers,
            sendfile,
            starved: _,
            filtering,
        } = self;
        if let Body::Bytes(bytes) = &mut body {
            bytes.shrink_to_fit();
        }
        let rate = rate.map(Box::new);
        ParkedOutput {
            body,
            sent_of_piece,
            framing,
            rate,
            began_ms,
            body_sent,
            trailers,
            sendfile,
            filtering,
        }
    }
}

impl ParkedOutput {
    fn resume(self) -> Output {
        let ParkedOutput {
            body,
            sent_of_piece,
            framing,
            rate,
            began_ms,
            body_sent,
            trailers,
            sendfile,
            filtering,
        } = self;
        Output {
            body,
            sent_of_piece,
            framing,
            rate: rate.map(|rate| *rate),
            began_ms,
            body_sent,
            trailers,
            sendfile,
            filtering,
            ..Output::default()
        }
    }
}
