//! A body that comes in slices ([`crate::http::modules::slice`]): the upstream's own response first, then a subrequest
//! for each of those that follow, one at a time, so that what is kept in memory is bounded and nothing is asked for that
//! the client may not want any more.
//!
//! Filters and what is woven in see one body: this is where it comes from.

use crate::http::body_filters::{FilterFailure, Signal};
use crate::http::modules::slice::{Plan, PlanStep};
use crate::message::Status;
use crate::server::client::pipe::SharedPipe;
use crate::server::client::{Active, Client, ClientKey};
use crate::server::worker::resources::Resources;

use super::filtering::{Filtering, GATHER_BYTES, Taken, take_some};

/// See the module's documentation.
pub struct Slices {
    plan: Plan,
    /// Where the present slice comes from; `None` for the response's own body.
    pipe: Option<SharedPipe>,
}

impl Slices {
    /// Slices by this plan, whose first one is the response's own body.
    pub fn new(plan: Plan) -> Slices {
        Slices { plan, pipe: None }
    }

    /// What to do with the next `available` bytes.
    pub fn next_step(&self, available: usize) -> PlanStep {
        self.plan.next_step(available as u64)
    }

    /// So many of them were skipped or sent.
    pub fn advance(&mut self, count: usize) {
        self.plan.advance(count as u64);
    }

    /// Nobody wants what has not come yet.
    pub fn close(&mut self, res: &mut Resources) {
        if let Some(pipe) = self.pipe.take() {
            match self.plan.left() {
                // The rest of the last slice is read for the sake of the upstream's connection.
                0 => pipe.borrow_mut().drop_rest(res),
                _ => pipe.borrow_mut().close(res),
            }
        }
    }
}

const SHORT: FilterFailure = FilterFailure("a slice is shorter than was announced");

impl Client {
    /// Feeds the chain with the next piece of at most `work` bytes of the response's own body.
    pub(super) fn take_own(
        &mut self,
        filtering: &mut Filtering,
        active: &mut Active,
        work: usize,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Taken, FilterFailure> {
        let room = GATHER_BYTES.saturating_sub(filtering.gathered());
        let Some(slices) = &mut filtering.slices else { return take_some(filtering, active, work, key, res) };
        if room == 0 || filtering.is_done {
            return Ok(Taken::Stopped);
        }
        if slices.plan.left() == 0 {
            filtering.feed(&mut &[][..], Signal::Last, room)?;
            return Ok(Taken::Some);
        }
        let taken = match slices.pipe.clone() {
            None => take_some(filtering, active, work, key, res)?,
            Some(pipe) => take_from_pipe(filtering, &pipe, work, room, res)?,
        };
        match (taken, &mut filtering.slices) {
            (Taken::SliceOver, Some(slices)) if slices.plan.left() == 0 => Ok(Taken::Some),
            (Taken::SliceOver, Some(slices)) if slices.plan.slice_is_whole() => {
                let order = active.exchange.order_slice(slices.plan.next_slice());
                slices.pipe = self.order(active, order, Some(key), false, res);
                Ok(if slices.pipe.is_some() { Taken::Some } else { Taken::Broken })
            }
            (Taken::SliceOver, _) => Err(SHORT),
            (taken, _) => Ok(taken),
        }
    }
}

fn take_from_pipe(
    filtering: &mut Filtering,
    pipe: &SharedPipe,
    work: usize,
    room: usize,
    res: &mut Resources,
) -> Result<Taken, FilterFailure> {
    let mut pipe = pipe.borrow_mut();
    let is_slice = pipe.status == Some(Status::PARTIAL_CONTENT);
    if !is_slice && (pipe.status.is_some() || pipe.is_over()) {
        // Why is in the log: it was the subrequest's to say.
        return Ok(Taken::Broken);
    }
    let front = pipe.front();
    if !front.is_empty() {
        let mut input = &front[..front.len().min(work)];
        let before = input.len();
        filtering.feed_own(&mut input, room)?;
        let count = before - input.len();
        pipe.consume(count, res);
        return Ok(Taken::Some);
    }
    if pipe.is_over() {
        return Ok(if pipe.is_whole() { Taken::SliceOver } else { Taken::Broken });
    }
    filtering.feed(&mut &[][..], Signal::Flush, room)?;
    Ok(Taken::Waiting)
}
