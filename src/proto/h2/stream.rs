//! Streams: their states (RFC 9113 section 5.1) and the table of those that are open.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::flow::{ReceiveWindow, SendWindow};
use super::priority::Priority;

/// A stream's state. Nothing is pushed here, so that the two reserved states do not occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never used.
    Idle,
    /// Both sides may send.
    Open,
    /// This side has ended.
    HalfClosedLocal,
    /// The peer has ended.
    HalfClosedRemote,
    /// Both have ended, or one has reset it.
    Closed,
}

/// A frame that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Nothing but HEADERS may come on an idle stream: an error of the connection.
    Idle,
    /// The peer has ended the stream.
    Ended,
    /// This side has: our own mistake.
    EndedHere,
}

impl State {
    /// HEADERS came, for a first head or for trailers.
    ///
    /// # Errors
    /// The peer has ended the stream.
    pub fn receive_headers(self, ends: bool) -> Result<State, StateError> {
        let state = match self {
            State::Idle => State::Open,
            state => state.receive_data()?,
        };
        if ends { state.receive_end() } else { Ok(state) }
    }

    /// DATA came.
    ///
    /// # Errors
    /// The stream is idle, or the peer has ended it.
    pub fn receive_data(self) -> Result<State, StateError> {
        match self {
            State::Idle => Err(StateError::Idle),
            State::Open | State::HalfClosedLocal => Ok(self),
            State::HalfClosedRemote | State::Closed => Err(StateError::Ended),
        }
    }

    /// END_STREAM came.
    ///
    /// # Errors
    /// The stream is idle, or the peer has ended it before.
    pub fn receive_end(self) -> Result<State, StateError> {
        Ok(match self.receive_data()? {
            State::HalfClosedLocal => State::Closed,
            _ => State::HalfClosedRemote,
        })
    }

    /// HEADERS go out.
    ///
    /// # Errors
    /// This side has ended the stream.
    pub fn send_headers(self, ends: bool) -> Result<State, StateError> {
        let state = match self {
            State::Idle => State::Open,
            state => state.send_data()?,
        };
        if ends { state.send_end() } else { Ok(state) }
    }

    /// DATA goes out.
    ///
    /// # Errors
    /// The stream is idle, or this side has ended it.
    pub fn send_data(self) -> Result<State, StateError> {
        match self {
            State::Idle => Err(StateError::Idle),
            State::Open | State::HalfClosedRemote => Ok(self),
            State::HalfClosedLocal | State::Closed => Err(StateError::EndedHere),
        }
    }

    /// END_STREAM goes out.
    ///
    /// # Errors
    /// The stream is idle, or this side has ended it before.
    pub fn send_end(self) -> Result<State, StateError> {
        Ok(match self.send_data()? {
            State::HalfClosedRemote => State::Closed,
            _ => State::HalfClosedLocal,
        })
    }

    /// RST_STREAM came or goes out.
    #[cfg(test)]
    pub fn reset(self) -> State {
        State::Closed
    }
}

/// Names a stream of one connection for as long as it is open; of no use after that, and no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub(super) slot: u32,
    pub(super) id: u32,
}

impl StreamKey {
    /// The stream identifier on the wire.
    pub fn id(self) -> u32 {
        self.id
    }

    /// A small number that no other open stream of this connection has: an index for what the caller keeps of it.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What is sent on a stream, beside data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadSent {
    /// Nothing, or interim responses.
    None,
    /// The final head; data and trailers may follow.
    Final,
}

/// What of a message's head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadReceived {
    /// Nothing, or interim responses.
    None,
    /// The final head; data and trailers may follow.
    Final,
}

/// One open stream; well below 2 KiB, whatever it waits for.
#[derive(Debug)]
pub(super) struct Stream {
    pub id: u32,
    pub state: State,
    pub send_window: SendWindow,
    pub receive_window: ReceiveWindow,
    /// Bytes handed to the caller and not given back.
    pub held: u32,
    /// Bytes that a Content-Length still announces.
    pub expected: Option<u64>,
    pub priority: Priority,
    pub head_sent: HeadSent,
    pub head_received: HeadReceived,
    /// The request's method is HEAD.
    pub is_head: bool,
    /// An extended CONNECT (RFC 8441), or CONNECT: bytes go both ways until both sides end.
    pub is_tunnel: bool,
    /// The caller has data for it.
    pub has_data: bool,
    pub interims: u8,
    /// When it was first seen to wait for window, in milliseconds; since then nothing could be sent.
    pub stalled_ms: Option<u64>,
    /// How long it may wait, in milliseconds.
    pub window_timeout_ms: u32,
    /// It has done so for so long that the caller is told.
    pub is_standing: bool,
}

const _: () = assert!(size_of::<Stream>() <= 128, "an open stream is to stay small");

/// The open streams. A slot is used again once its stream is closed, an identifier never.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    /// Slots by identifier. An attacker who makes identifiers collide gains little: there are few of them at a time.
    by_id: HashMap<u32, u32, FixedState>,
}

impl Streams {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The key of an open stream.
    pub fn key(&self, id: u32) -> Option<StreamKey> {
        self.by_id.get(&id).map(|&slot| StreamKey { slot, id })
    }

    /// The stream of a key; `None` once it is gone.
    pub fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot as usize)?.as_ref().filter(|stream| stream.id == key.id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize)?.as_mut().filter(|stream| stream.id == key.id)
    }

    /// The stream that has this slot now.
    pub fn by_slot(&mut self, slot: u32) -> Option<&mut Stream> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Adds a stream; its identifier is not open yet.
    pub fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(stream);
                slot
            }
            None => {
                self.slots.push(Some(stream));
                self.slots.len() as u32 - 1
            }
        };
        self.by_id.insert(id, slot);
        StreamKey { slot, id }
    }

    /// Takes a stream out; its key is of no use from then on.
    pub fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        self.get(key)?;
        self.by_id.remove(&key.id);
        self.free.push(key.slot);
        self.slots[key.slot as usize].take()
    }

    /// All of them, with their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(slot, stream)| stream.as_mut().map(|stream| (slot as u32, stream)))
    }
}

/// How many streams that were reset here are remembered one by one.
const REMEMBERED: usize = 32;

/// Streams that this side reset: what the peer sent on them before it knew is ignored (RFC 9113 section 5.1, closed).
#[derive(Debug, Default)]
pub(super) struct ResetHere {
    ids: [u32; REMEMBERED],
    next: usize,
    /// Below this identifier, streams were reset and forgotten: one can't tell any more.
    forgotten: u32,
}

impl ResetHere {
    /// This side has reset a stream.
    pub fn add(&mut self, id: u32) {
        let oldest = std::mem::replace(&mut self.ids[self.next], id);
        self.next = (self.next + 1) % REMEMBERED;
        self.forgotten = self.forgotten.max(oldest);
    }

    /// Whether it did, or may have: what was forgotten counts as reset.
    pub fn may_contain(&self, id: u32) -> bool {
        id <= self.forgotten || self.ids.contains(&id)
    }
}

/// Which of the latest identifiers of the peer's streams were used: those in between that it left out are closed as well,
/// and may not be used any more (RFC 9113 section 5.1.1).
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// The highest one so far.
    pub highest: u32,
    /// A bit for it and each of the 63 before it.
    used: u64,
}

impl Opened {
    /// The peer has opened a stream; its identifier is higher than all before.
    pub fn open(&mut self, id: u32) {
        let steps = (id - self.highest).div_ceil(2);
        self.used = self.used.checked_shl(steps).unwrap_or(0) | 1;
        self.highest = id;
    }

    /// Whether a stream that is not open was left out by the peer, as far as that is remembered.
    pub fn was_left_out(&self, id: u32) -> bool {
        let steps = (self.highest - id.min(self.highest)) / 2;
        steps < 64 && self.used >> steps & 1 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9113 section 5.1, figure 2.
    #[test]
    fn states_change_as_in_the_figure() {
        use State::*;
        let cases: &[(State, [Option<State>; 6])] = &[
            // receive headers, receive headers with the end, receive data, then the same for sending
            (Idle, [Some(Open), Some(HalfClosedRemote), None, Some(Open), Some(HalfClosedLocal), None]),
            (
                Open,
                [
                    Some(Open),
                    Some(HalfClosedRemote),
                    Some(Open),
                    Some(Open),
                    Some(HalfClosedLocal),
                    Some(Open),
                ],
            ),
            (HalfClosedLocal, [Some(HalfClosedLocal), Some(Closed), Some(HalfClosedLocal), None, None, None]),
            (
                HalfClosedRemote,
                [None, None, None, Some(HalfClosedRemote), Some(Closed), Some(HalfClosedRemote)],
            ),
            (Closed, [None; 6]),
        ];
        for (state, expected) in cases {
            let found = [
                state.receive_headers(false),
                state.receive_headers(true),
                state.receive_data(),
                state.send_headers(false),
                state.send_headers(true),
                state.send_data(),
            ];
            assert_eq!(found.map(Result::ok), *expected, "{state:?}");
            assert_eq!(state.reset(), Closed);
        }
        assert_eq!(HalfClosedRemote.receive_data(), Err(StateError::Ended));
        assert_eq!(Idle.receive_data(), Err(StateError::Idle));
    }

    #[test]
    fn streams_that_were_left_out_are_told_from_closed_ones() {
        let mut opened = Opened::default();
        for id in [1, 3, 9, 11] {
            opened.open(id);
        }
        for id in [1, 3, 9, 11] {
            assert!(!opened.was_left_out(id), "{id}");
        }
        assert!(opened.was_left_out(5) && opened.was_left_out(7));
        opened.open(1001);
        assert!(opened.was_left_out(999) && !opened.was_left_out(11), "too long ago to tell");
    }

    #[test]
    fn streams_reset_here_are_remembered_and_after_that_given_the_benefit_of_the_doubt() {
        let mut reset = ResetHere::default();
        reset.add(7);
        assert!(reset.may_contain(7) && !reset.may_contain(5));
        for id in 0..REMEMBERED as u32 {
            reset.add(101 + 2 * id);
        }
        assert!(reset.may_contain(5) && !reset.may_contain(9));
    }
}
