//! HTTP/2, both sides (RFC 9113; RFC 7541, 8441, 9218).
//!
//! # The server's side
//!
//! A [`Server`] has these verbs, to be called in this order:
//!
//! 1. [`is_preface`] on the first bytes of a connection tells HTTP/2 with prior knowledge from HTTP/1; after ALPN `h2` there
//!    is nothing to ask. `start` appends the first frames to an output buffer that is the caller's, as everything below
//!    does: what several calls append goes out in one write, in that order.
//! 2. `read` with what came, again and again until it says `NeedMore`. It consumes what it used from the front of the
//!    input, and keeps no more than the part of a frame that it can't do without. Its events name streams by
//!    [`StreamKey`]; heads come out as HTTP/1 gives them. While the output is long and can't be written, don't read.
//! 3. `consumed` gives bytes of bodies back to the windows once the caller has no need to hold them any more; without it, the
//!    client stops sending. What was discarded is consumed, too.
//! 4. `interim`, then `respond` with a response's head, at any time after `Head` or `Refused`.
//! 5. For a body, either `send_data` at once within `room`, or, for what is large or comes bit by bit, `set_has_data` and
//!    then, while there is room in the output, `next_turn` and `send_data` (or `send_data_header` and the bytes behind it):
//!    turns go by the client's priorities. Who has nothing to send at its turn says so by `set_has_data`. `send_trailers`
//!    or `ends` ends a stream; `reset` gives it up.
//! 6. After all events of a turn of the loop, and whenever a body has something new: step 5's loop, since windows may have
//!    grown; then write the output.
//! 7. `deadline` and `on_deadline` for the time without input. `shut_down` (or `leave`), then close once `is_drained` and
//!    the output is written. After an error, write the output and close.
//!
//! A stream's key is of no use after its `Lost` event, or once both sides have ended it; calls with it then do nothing.
//!
//! # The client's side
//!
//! A [`Client`] has the same verbs, with `request` in the place of `respond`, within `free_streams`. `Lost` says whether a
//! request may have been processed; only one that was not may be sent again whatever its method.
//!
//! # Limits
//!
//! What a peer may cost is in [`Limit`]: each has a name and a counter, and ends the connection with ENHANCE_YOUR_CALM.

mod abuse;
mod client;
pub mod client_fuzz;
mod control;
mod core;
mod error;
mod field_rules;
mod flow;
mod frame;
pub mod fuzz;
pub mod hpack;
pub mod huffman;
mod priority;
mod reading;
mod request_head;
mod response;
mod response_head;
mod sending;
mod server;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

pub use abuse::{LIMIT_COUNT, Limit};
pub use client::{Client, ClientEvent, NewRequest, OpenError};
pub use core::Config;
pub use error::{ConnectionError, ErrorCode, StreamLoss};
pub use flow::{Exceeded, INITIAL_WINDOW, Overflow, ReceiveWindow, SendWindow};
pub use frame::{Frame, FrameHeader, FrameKind, PREFACE, PayloadError, flags};
pub use priority::{Priority, Schedule};
pub use sending::{DataFrame, TURN_BYTES};
pub use server::{Server, ServerEvent, is_preface};
pub use settings::Settings;
pub use stream::{State, StateError, StreamKey};
