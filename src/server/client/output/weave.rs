//! The parts of a woven body in their order: the response's own, and those that subrequests send through pipes.
//!
//! The response's own body is taken ahead while a subrequest is waited for, within bounds, so that those that follow
//! begin at once; as in nginx all of them run side by side, and the client gets them in order.

use std::collections::VecDeque;

use crate::http::body_filters::{BodyFilter, Chain, FilterFailure, FilterSpec, Progress, Signal};
use crate::http::weaving::Weaving;
use crate::server::client::pipe::SharedPipe;
use crate::server::client::{Active, Client, ClientKey};
use crate::server::worker::resources::Resources;

/// Bytes of the response's own body that are taken ahead.
const AHEAD_BYTES: usize = 64 * 1024;

/// See the module's documentation.
pub struct Weave {
    weaving: Box<Weaving>,
    parts: VecDeque<Part>,
    /// Bytes in `parts`.
    ahead: usize,
    /// The filters of the whole.
    behind: Chain,
    /// What the filters of the response's own body have yielded.
    pub own: Vec<u8>,
    /// They have no more to say.
    pub own_is_over: bool,
    began: bool,
    ended: bool,
}

enum Part {
    /// So many of them are out.
    Bytes(Vec<u8>, usize),
    Pipe(SharedPipe),
}

/// What pulling came to.
pub enum Pulled {
    /// Something came out, or something was learned.
    Some,
    /// Everything is out.
    Done,
    /// More of the response's own body is needed.
    WantsOwn,
    /// A subrequest has nothing to say now.
    Waiting,
}

impl Weave {
    /// A weave whose whole goes through these filters.
    pub fn new(weaving: Box<Weaving>, behind: &[FilterSpec]) -> Weave {
        Weave {
            weaving,
            parts: VecDeque::new(),
            ahead: 0,
            behind: Chain::new(behind, None),
            own: Vec::new(),
            own_is_over: false,
            began: false,
            ended: false,
        }
    }

    fn push_bytes(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.ahead += bytes.len();
            self.parts.push_back(Part::Bytes(bytes, 0));
        }
    }

    /// Whether more of the response's own body may be taken.
    pub fn takes_own(&self) -> bool {
        !self.own_is_over && self.ahead + self.own.len() < AHEAD_BYTES
    }

    /// Appends at most `room` bytes of the whole.
    pub fn pull(
        &mut self,
        out: &mut Vec<u8>,
        room: usize,
        res: &mut Resources,
    ) -> Result<Pulled, FilterFailure> {
        match self.parts.front_mut() {
            Some(Part::Bytes(bytes, taken)) => {
                let mut input = &bytes[*taken..];
                let before = input.len();
                self.behind.filter(&mut input, Signal::More, out, room)?;
                let count = before - input.len();
                *taken += count;
                self.ahead -= count;
                if input.is_empty() {
                    self.parts.pop_front();
                }
                Ok(Pulled::Some)
            }
            Some(Part::Pipe(pipe)) => {
                let mut shared = pipe.borrow_mut();
                if !shared.front().is_empty() {
                    let mut input = shared.front();
                    let before = input.len();
                    self.behind.filter(&mut input, Signal::More, out, room)?;
                    let count = before - input.len();
                    shared.consume(count, res);
                    return Ok(Pulled::Some);
                }
                if shared.is_over() {
                    drop(shared);
                    self.parts.pop_front();
                    return Ok(Pulled::Some);
                }
                self.behind.filter(&mut &[][..], Signal::Flush, out, room)?;
                Ok(Pulled::Waiting)
            }
            None if !self.ended => Ok(Pulled::WantsOwn),
            None => match self.behind.filter(&mut &[][..], Signal::Last, out, room)? {
                Progress::Done => Ok(Pulled::Done),
                _ => Ok(Pulled::Some),
            },
        }
    }

    /// What the upstream's pause brings out.
    pub fn flush(&mut self, out: &mut Vec<u8>, room: usize) -> Result<(), FilterFailure> {
        self.behind.filter(&mut &[][..], Signal::Flush, out, room).map(drop)
    }

    /// Nobody wants the response any more.
    pub fn close(&mut self, res: &mut Resources) {
        for part in self.parts.drain(..) {
            if let Part::Pipe(pipe) = part {
                pipe.borrow_mut().close(res);
            }
        }
    }
}

impl Client {
    /// Takes what came of the response's own body in, and makes the subrequests that are due.
    pub(super) fn weave_on(
        &mut self,
        weave: &mut Weave,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) {
        if !std::mem::replace(&mut weave.began, true)
            && let Some(order) = weave.weaving.before.take()
            && let Some(pipe) = self.order(active, order, Some(key), false, res)
        {
            weave.parts.push_back(Part::Pipe(pipe));
        }
        let own = std::mem::take(&mut weave.own);
        weave.push_bytes(own);
        if weave.own_is_over
            && !std::mem::replace(&mut weave.ended, true)
            && let Some(order) = weave.weaving.after.take()
            && let Some(pipe) = self.order(active, order, Some(key), false, res)
        {
            weave.parts.push_back(Part::Pipe(pipe));
        }
    }
}
