//! Which connection a request gets, and how long connections live.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::FixedState;
use slab::Slab;

use crate::http::site::LocationId;
use crate::http::upstream_call::Call;
use crate::message::ResponseHead;
use crate::proto::h2::{self, INITIAL_WINDOW};
use crate::server::client::ClientKey;
use crate::server::worker::resources::Resources;
use crate::upstream::{Group, Peer};

use super::super::connection::{self, Connection};
use super::super::idle::{Place, place_of};
use super::super::links::Owner;
use super::super::wire::Wire;
use super::{Gone, MOST_STREAMS, Mux, SharedMux, Slot, Stage, StreamLink, queue};

/// The largest window of a stream, in bytes.
const MOST_WINDOW: u32 = 16 << 20;
/// Relays have their own patience with streams that get no window; the machine's is longer than any of theirs.
const NEVER_MS: u64 = 1 << 40;

/// All connections of a worker that carry many requests at a time.
pub struct Multiplexed {
    muxes: Slab<SharedMux>,
    /// By group, and by location where connections are for one alone.
    places: HashMap<Place, Vec<usize>, FixedState>,
    /// Those with something to send or to read.
    pub(super) turns: Vec<SharedMux>,
    /// No connection has anything due before that, in monotonic milliseconds.
    next_ms: u64,
}

impl Default for Multiplexed {
    fn default() -> Multiplexed {
        let (muxes, places, turns) = (Slab::new(), HashMap::default(), Vec::new());
        Multiplexed { muxes, places, turns, next_ms: u64::MAX }
    }
}

/// What a connection is wanted for.
pub struct Wanted<'a> {
    /// Whose peer it is to.
    pub group: &'a Arc<Group>,
    /// To whom.
    pub peer: &'a Arc<Peer>,
    /// The location that asks.
    pub location: LocationId,
    /// What is to be sent.
    pub call: &'a Call,
    /// Who asks.
    pub client: ClientKey,
}

/// Gives a request a place on a connection to its peer: on one that there is, or on a new one, whose handshake is under
/// way then.
///
/// # Errors
/// No descriptor, no such address of ours, or the kernel refused at once.
pub fn join(wanted: &Wanted<'_>, res: &mut Resources) -> std::io::Result<StreamLink> {
    let mux = match find(wanted, res) {
        Some(mux) => mux,
        None => open(wanted, res)?,
    };
    let mut borrowed = mux.borrow_mut();
    let memory = std::mem::take(&mut borrowed.spare);
    let slot = borrowed.slots.insert(Slot::new(wanted.client, wanted.call.early_hints, memory));
    borrowed.unopened += 1;
    drop(borrowed);
    Ok(StreamLink { mux, slot })
}

fn find(wanted: &Wanted<'_>, res: &mut Resources) -> Option<SharedMux> {
    let now_ms = res.env.now.monotonic_ms;
    let keepalive = wanted.group.keepalive();
    let place = place_of(wanted.group, wanted.location);
    let numbers = res.multiplexed.places.get(&place)?;
    let found = numbers.iter().filter_map(|number| res.multiplexed.muxes.get(*number)).find(|mux| {
        let mux = mux.borrow();
        let is_worn = mux.requests >= keepalive.requests
            || now_ms.saturating_sub(mux.opened_ms) >= keepalive.time_ms
            || mux.slots.is_empty() && now_ms.saturating_sub(mux.idle_since_ms) >= keepalive.timeout_ms;
        mux.peer.is_same(wanted.peer)
            && mux.tls.as_deref() == wanted.call.tls.as_deref()
            && mux.has_room()
            && !is_worn
    });
    let mux = found?.clone();
    // One that may not be sent twice is not sent to a peer that has closed already, be it that the poll has not said so
    // yet.
    let is_silent = wanted.call.idempotent || {
        let mux = mux.borrow();
        !mux.slots.is_empty() || mux.connection.as_ref().is_some_and(Connection::is_silent)
    };
    if is_silent {
        return Some(mux);
    }
    mux.borrow_mut().expect_input(res);
    super::turns::run(&mux, res);
    let has_room = mux.borrow().has_room();
    has_room.then_some(mux)
}

fn open(wanted: &Wanted<'_>, res: &mut Resources) -> std::io::Result<SharedMux> {
    let now_ms = res.env.now.monotonic_ms;
    let conduct = &wanted.call.conduct;
    let socket = connection::open(wanted.peer.address(), wanted.call.local_address, conduct)?;
    let number = res.multiplexed.muxes.vacant_key();
    let owner = Owner::Mux(number as u32);
    let connection = Connection::new(socket, Wire::Raw, owner, &mut res.links, &res.registry, now_ms)?;
    let buffers = u32::try_from(conduct.buffers_bytes.max(conduct.buffer_size)).unwrap_or(u32::MAX);
    let window = buffers.clamp(INITIAL_WINDOW, MOST_WINDOW);
    let mut machine = h2::Client::new(h2::Config {
        max_concurrent_streams: MOST_STREAMS,
        stream_window: window,
        // A slow client of one stream holds up no other.
        connection_window: window.saturating_mul(MOST_STREAMS),
        header_list_bytes: u32::try_from(conduct.buffer_size).unwrap_or(u32::MAX),
        window_timeout_ms: NEVER_MS,
        ..h2::Config::default()
    });
    let mut out = Vec::new();
    machine.start(now_ms, &mut out);
    let mux = Rc::new(RefCell::new(Mux {
        number,
        stage: Stage::Connecting,
        connection: Some(connection),
        machine,
        tls: wanted.call.tls.clone(),
        group: wanted.group.clone(),
        peer: wanted.peer.clone(),
        location: wanted.location,
        head_bytes: conduct.buffer_size,
        out,
        sent: 0,
        total_sent: 0,
        slots: Slab::new(),
        unopened: 0,
        streams: Vec::new(),
        scratch: ResponseHead::default(),
        spare: Vec::new(),
        requests: 0,
        opened_ms: now_ms,
        idle_since_ms: now_ms,
        received_ms: now_ms,
        retired: false,
        resets: (0, now_ms),
        queued: false,
    }));
    res.multiplexed.muxes.insert(mux.clone());
    let place = place_of(wanted.group, wanted.location);
    res.multiplexed.places.entry(place).or_default().push(number);
    Ok(mux)
}

impl Multiplexed {
    /// The connection with this number.
    pub fn get(&self, number: u32) -> Option<SharedMux> {
        self.muxes.get(number as usize).cloned()
    }

    fn all(&self) -> Vec<SharedMux> {
        self.muxes.iter().map(|(_, mux)| mux.clone()).collect()
    }

    /// When [`sweep`] may have something to do, in monotonic milliseconds.
    pub fn next_deadline_ms(&self) -> u64 {
        self.next_ms
    }

    /// Notes when something is due.
    pub(super) fn note_deadline(&mut self, deadline_ms: u64) {
        self.next_ms = self.next_ms.min(deadline_ms);
    }

    /// Whether a connection waits for its turn.
    pub fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether there is none.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.muxes.is_empty()
    }

    /// Forgets a connection that is closed.
    pub(super) fn forget(&mut self, mux: &Mux) {
        self.muxes.try_remove(mux.number);
        let place = place_of(&mux.group, mux.location);
        if let Some(numbers) = self.places.get_mut(&place) {
            numbers.retain(|number| *number != mux.number);
            if numbers.is_empty() {
                self.places.remove(&place);
            }
        }
    }
}

/// Closes connections that were idle for too long, and has the others do what is due.
pub fn sweep(res: &mut Resources) {
    let now_ms = res.env.now.monotonic_ms;
    // Each turn notes when the next is due.
    res.multiplexed.next_ms = u64::MAX;
    for mux in res.multiplexed.all() {
        {
            let mut mux = mux.borrow_mut();
            mux.retired |= mux.idle_until_ms().is_some_and(|until_ms| until_ms <= now_ms);
        }
        super::turns::on_time(&mux, res);
        super::turns::run(&mux, res);
    }
}

/// Closes connections to servers that a new configuration does not name, once no request uses them; `named` has the keys
/// of its groups.
pub fn retain_groups(named: &HashSet<usize>, res: &mut Resources) {
    for mux in res.multiplexed.all() {
        if !named.contains(&mux.borrow().group.key()) {
            mux.borrow_mut().retired = true;
            queue(&mux, res);
        }
    }
}

/// Closes everything that no request uses; the rest once it is not used any more.
pub fn retire_all(res: &mut Resources) {
    for mux in res.multiplexed.all() {
        mux.borrow_mut().retired = true;
        queue(&mux, res);
    }
}

impl Mux {
    /// Until when it is kept without a request, in monotonic milliseconds; `None` while it has one.
    fn idle_until_ms(&self) -> Option<u64> {
        let timeout_ms = self.group.keepalive().timeout_ms;
        self.slots.is_empty().then(|| self.idle_since_ms.saturating_add(timeout_ms))
    }

    /// When something is due without the peer, in monotonic milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        let of_machine = self.machine.deadline().filter(|_| self.stage == Stage::Open);
        let is_closed = matches!(self.stage, Stage::Closed(_));
        let idle = self.idle_until_ms().filter(|_| !is_closed);
        of_machine.into_iter().chain(idle).min().unwrap_or(u64::MAX)
    }

    /// Whether it is to be closed: it has no request, and nothing is gained by keeping it.
    pub(super) fn is_spent(&self, res: &Resources) -> bool {
        if !self.slots.is_empty() {
            return false;
        }
        let keepalive = self.group.keepalive();
        let takes_none = self.stage == Stage::Open && self.machine.free_streams() == 0;
        let is_worn = self.requests >= keepalive.requests
            || res.env.now.monotonic_ms.saturating_sub(self.opened_ms) >= keepalive.time_ms;
        self.retired
            || takes_none
            || is_worn
            || self.stage != Stage::Open
            || keepalive.connections == 0
            || self.is_surplus(res)
    }

    /// Whether more connections without a request are kept than `keepalive` says, and this one is the one too many.
    fn is_surplus(&self, res: &Resources) -> bool {
        let place = place_of(&self.group, self.location);
        let Some(numbers) = res.multiplexed.places.get(&place) else { return false };
        let idle = numbers.iter().filter_map(|number| res.multiplexed.muxes.get(*number)).filter(|mux| {
            // The one that is asked about is borrowed.
            mux.try_borrow().is_ok_and(|mux| mux.slots.is_empty() && mux.stage == Stage::Open)
        });
        idle.count() >= self.group.keepalive().connections as usize
    }

    /// Notes why it is gone, and lets its relays know.
    pub(super) fn close(&mut self, gone: Gone, res: &mut Resources) {
        if matches!(self.stage, Stage::Closed(_)) {
            return;
        }
        if self.slots.is_empty() && gone == Gone::Ended && self.requests > 0 {
            let now_ms = res.env.now.monotonic_ms;
            self.peer.saw_idle_close(now_ms.saturating_sub(self.idle_since_ms));
        }
        self.stage = Stage::Closed(gone.clone());
        if let Some(connection) = self.connection.take() {
            connection.close(&mut res.links);
        }
        let total_sent = self.total_sent;
        for (_, slot) in &mut self.slots {
            let unsent = slot.stream.is_none() || slot.begins_at >= total_sent;
            slot.lose(super::Loss::Connection { gone: gone.clone(), unsent }, res);
        }
        res.multiplexed.forget(self);
    }
}
