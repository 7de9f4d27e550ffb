//! The parts of a woven body in their order: the response's own, and those that subrequests send through pipes.
//!
//! The response's own body is taken ahead while a subrequest is waited for, within bounds, so that those that follow
//! begin at once; as in nginx all of them run side by side, and the client gets them in order.

use std::collections::VecDeque;

use crate::http::body_filters::{BodyFilter, Chain, FilterFailure, FilterSpec, Progress, Signal};
use crate::http::context::Context;
use crate::http::modules::ssi::{self, Ssi};
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
    /// Follows the commands in the response's own body.
    page: Option<Box<Ssi>>,
    /// The subrequest that the page waits for, and whether a variable gets its body.
    awaited: Option<(SharedPipe, bool)>,
}

enum Part {
    /// So many of them are out.
    Bytes(Vec<u8>, usize),
    /// A subrequest's response.
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
    pub fn new(mut weaving: Box<Weaving>, behind: &[FilterSpec]) -> Weave {
        Weave {
            page: weaving.page.take(),
            awaited: None,
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
                if shared.is_cut() {
                    return Err(FilterFailure("the response to a subrequest was cut short"));
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
        if let Some((pipe, _)) = self.awaited.take() {
            pipe.borrow_mut().close(res);
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
        if let Some(mut page) = weave.page.take() {
            if !self.follow_page(&mut page, weave, active, key, res) {
                weave.page = Some(page);
                return;
            }
        } else {
            let own = std::mem::take(&mut weave.own);
            weave.push_bytes(own);
        }
        if weave.own_is_over
            && !std::mem::replace(&mut weave.ended, true)
            && let Some(order) = weave.weaving.after.take()
            && let Some(pipe) = self.order(active, order, Some(key), false, res)
        {
            weave.parts.push_back(Part::Pipe(pipe));
        }
    }

    /// Follows the commands of a page as far as it has come; whether it is over.
    fn follow_page(
        &mut self,
        page: &mut Ssi,
        weave: &mut Weave,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> bool {
        loop {
            if let Some((pipe, is_set)) = &weave.awaited {
                if !pipe.borrow().is_over() {
                    return false;
                }
                let captured = if *is_set { pipe.borrow_mut().take_captured() } else { None };
                page.resume(captured);
                weave.awaited = None;
            }
            let has_input = !weave.own.is_empty() || weave.own_is_over;
            if !has_input || weave.ahead >= AHEAD_BYTES {
                return false;
            }
            let site = active.exchange.site.clone();
            let mut context = Context { site: &site, env: &mut res.env };
            let (mut parts, mut input) = (Vec::new(), &weave.own[..]);
            let progress =
                page.take(&mut active.exchange, &mut context, &mut input, weave.own_is_over, &mut parts);
            let taken = weave.own.len() - input.len();
            weave.own.drain(..taken);
            for part in parts {
                match part {
                    ssi::Part::Bytes(bytes) => weave.push_bytes(bytes),
                    ssi::Part::Include(include) => self.include(include, weave, active, key, res),
                }
            }
            match progress {
                ssi::Progress::Done => return true,
                // It could not be made: there is nothing to wait for.
                ssi::Progress::Waiting if weave.awaited.is_none() => page.resume(None),
                ssi::Progress::Waiting | ssi::Progress::Full => {}
                ssi::Progress::Starved if weave.own.is_empty() && !weave.own_is_over => return false,
                ssi::Progress::Starved => {}
            }
        }
    }

    fn include(
        &mut self,
        include: ssi::Include,
        weave: &mut Weave,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) {
        let ssi::Include { order, wait, set } = include;
        let Some(pipe) = self.order(active, order, Some(key), false, res) else { return };
        if set.is_some() {
            weave.awaited = Some((pipe, true));
            return;
        }
        if wait {
            weave.awaited = Some((pipe.clone(), false));
        }
        weave.parts.push_back(Part::Pipe(pipe));
    }
}
