//! The law of body filters: the same output for any split of the input and any sequence of rooms.

use proptest::prelude::*;

use super::{BodyFilter, Progress, Signal};

/// How a body is fed: sizes of pieces and of rooms, used in turn, and after which pieces a flush is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pieces: Vec<usize>,
    rooms: Vec<usize>,
    flushes: Vec<bool>,
}

impl Plan {
    /// Any plan.
    pub fn any() -> impl Strategy<Value = Plan> {
        let sizes = || proptest::collection::vec(prop_oneof![1usize..5, 1usize..200], 1..8);
        (sizes(), sizes(), proptest::collection::vec(proptest::bool::weighted(0.2), 1..8))
            .prop_map(|(pieces, rooms, flushes)| Plan { pieces, rooms, flushes })
    }
}

/// The output for all of the input at once.
pub fn run_whole(filter: &mut impl BodyFilter, mut input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while filter.filter(&mut input, Signal::Last, &mut out, 1 << 20) != Ok(Progress::Done) {}
    out
}

/// The output for the input as the plan feeds it.
pub fn run_by(filter: &mut impl BodyFilter, mut input: &[u8], plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rooms = plan.rooms.iter().cycle();
    let mut flushes = plan.flushes.iter().cycle();
    let mut pieces = plan.pieces.iter().cycle();
    // Every call moves something: more calls than this are a loop without an end.
    let mut calls = 0;
    loop {
        let piece = input.len().min(*pieces.next().unwrap());
        let signal = match (piece == input.len(), flushes.next().unwrap()) {
            (true, _) => Signal::Last,
            (false, true) => Signal::Flush,
            (false, false) => Signal::More,
        };
        let mut fed = &input[..piece];
        loop {
            calls += 1;
            assert!(calls < 100_000, "no end");
            let (room, before) = (*rooms.next().unwrap(), out.len());
            let progress =
                filter.filter(&mut fed, signal, &mut out, room).expect("a body that can be filtered");
            assert!(out.len() - before <= room, "more than the room");
            match progress {
                Progress::Full => assert_eq!(out.len() - before, room, "full, but there is room"),
                Progress::Starved => {
                    assert!(fed.is_empty() && signal != Signal::Last);
                    break;
                }
                Progress::Done => return out,
            }
        }
        input = &input[piece..];
    }
}

/// See the module's documentation.
pub fn holds_for_every_split<F: BodyFilter>(input: &[u8], plan: &Plan, make: impl Fn() -> F) {
    assert_eq!(run_by(&mut make(), input, plan), run_whole(&mut make(), input));
}
