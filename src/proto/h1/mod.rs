//! HTTP/1, both sides (RFC 9112, with nginx's rules on top).
//!
//! Towards upstreams, a [`RequestWriter`] writes requests and a [`ResponseReader`] reads what comes back; its file says
//! how. The server's side, a [`Connection`], has these verbs, to be called in this order:
//!
//! 1. `read(&mut input, ..)` until it yields [`Event::Head`]. It consumes what it used from the front of `input`;
//!    a head that is incomplete is kept inside (the only memory that a connection owns) and given back with the head.
//! 2. `read` again for the body: [`Event::Body`] slices of `input`, then [`Event::BodyEnd`]. Where the head's framing is
//!    [`RequestFraming::None`](crate::message::RequestFraming::None) there is no `BodyEnd`; `read` answers
//!    [`Event::Paused`] at once. `interim` may answer an `Expect: 100-continue` first.
//! 3. `respond` with the response's head, at any time after `Head` or an error; it says how the body is framed:
//!    raw bytes, or (`ResponseFraming::Streamed`) each piece between `chunk_prefix` and [`CHUNK_SUFFIX`], at last `finish`.
//! 4. `after_response` once all of it is sent: keep-alive, discard the rest of the body, linger or close.
//! 5. `next_request`, then from the top. Bytes that wait for it stay with the caller, or are put away by `hold` and
//!    taken back by `take_held`.
//!
//! Time never comes in: the machine has no deadline of its own.

mod chunked;
mod connection;
mod encode;
mod error;
pub mod fuzz;
mod head;
mod limits;
mod persistence;
mod request_line;
mod request_writer;
mod response_error;
pub mod response_fuzz;
mod response_head;
mod response_reader;
mod response_rules;
#[cfg(test)]
mod response_tests;
mod rules;
#[cfg(test)]
mod tests;

pub use chunked::{CHUNK_SUFFIX, ChunkError, ChunkLimits, ChunkedDecoder, ChunkedItem, chunk_prefix, finish};
pub use connection::{Connection, Event, HOLD_LIMIT, HoldFull};
pub use encode::RespondOptions;
pub use error::RequestError;
pub(in crate::proto) use head::is_usual_name;
pub use limits::HeadLimits;
pub use persistence::After;
pub(in crate::proto) use request_line::is_method;
pub(in crate::proto) use rules::{apply_rules, parse_length};

pub use request_writer::{RequestWriteError, RequestWriter};
pub use response_error::{ResponseError, ResponseFault};
pub use response_reader::{Asked, HeadFacts, ResponseEvent, ResponseLimits, ResponseReader};
