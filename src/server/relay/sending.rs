//! The request's bytes out.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::http::exchange::Exchange;
use crate::server::files::{Sent, Warmth, calls, sending};
use crate::server::worker::resources::Resources;

use super::outbound::Next;
use super::{Carrier, Relay, Run};

/// How far a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// So many bytes of its head are.
    Head(usize),
    /// The head is, the body not wholly.
    Body,
    /// All is.
    Done,
    /// The peer takes no more; it may have answered nevertheless.
    Broken(Errno),
}

/// A body up to this size follows its head in the same packet where it can.
const GATHER_MAX: usize = 16 * 1024;

impl Relay {
    /// Sends as much of the request as the peer takes.
    pub(super) fn send_request(&mut self, exchange: &mut Exchange, res: &mut Resources) {
        if self.run.as_ref().is_some_and(|run| run.stream().is_some()) {
            return self.send_on_stream(exchange, res);
        }
        let Relay { run: Some(run), outbound, .. } = self else { return };
        let Some(passed) = &exchange.upstream else { return };
        let Some(call) = &passed.call else { return };
        let before = run.sent;
        if let Some(connection) = run.own()
            && connection.owes()
        {
            match connection.flush() {
                Ok(()) if connection.owes() => return,
                Ok(()) => run.moved_ms = res.env.now.monotonic_ms,
                Err(error) => run.sending = Sending::Broken(error),
            }
        }
        if let Sending::Head(sent) = run.sending {
            match run.send_head(&call.head, sent, outbound.next(&call.body, &exchange.request_body), res) {
                Ok((head, body)) => {
                    if body > 0 {
                        outbound.consume(body as u64);
                    }
                    run.sending = if head == call.head.len() { Sending::Body } else { Sending::Head(head) };
                }
                Err(error) => run.sending = Sending::Broken(error),
            }
        }
        while run.sending == Sending::Body {
            let result = match outbound.next(&call.body, &exchange.request_body) {
                Next::Complete => {
                    run.sending = Sending::Done;
                    break;
                }
                Next::Starved => break,
                Next::Bytes(bytes) => run.send(bytes, false, res),
                Next::File(file, offset, length) if run.is_secure() => {
                    let most = usize::try_from(length).unwrap_or(usize::MAX).min(res.copy.len());
                    let mut copy = std::mem::take(&mut res.copy);
                    let sent = match calls::read(file, &mut copy[..most], offset) {
                        Ok(0) => Err(Errno::IO),
                        Ok(count) => run.send(&copy[..count], false, res),
                        Err(error) => Err(error),
                    };
                    res.copy = copy;
                    sent
                }
                Next::File(file, offset, length) => {
                    let most = usize::try_from(length).unwrap_or(usize::MAX);
                    let Carrier::Own(connection) = &run.carrier else { break };
                    let socket = connection.socket.as_fd();
                    match sending::send_descriptor(socket, file.as_fd(), offset, most, Warmth::JustRead) {
                        Ok(Sent::Wrote(count)) => Ok(count),
                        Ok(Sent::Blocked | Sent::Cold) => Ok(0),
                        Ok(Sent::Truncated) => Err(Errno::IO),
                        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                    }
                }
            };
            match result {
                Ok(0) => break,
                Ok(count) => {
                    run.sent += count as u64;
                    outbound.consume(count as u64);
                }
                Err(error) => run.sending = Sending::Broken(error),
            }
        }
        if let (Sending::Broken(_), Carrier::Own(connection)) = (run.sending, &run.carrier)
            && let Some(link) = res.links.get(connection.link)
        {
            // Its answer may have come before the end did, and the poll has told of neither yet.
            link.readable = true;
            link.read_closed = true;
        }
        if run.sent > before {
            run.moved_ms = res.env.now.monotonic_ms;
        }
    }

    /// Sends what came of the client's body while its response is on the way already.
    pub fn send_on(&mut self, exchange: &mut Exchange, res: &mut Resources) {
        self.send_request(exchange, res);
    }
}

impl Run {
    fn is_secure(&self) -> bool {
        matches!(&self.carrier, Carrier::Own(connection) if connection.tls.is_some())
    }

    fn send(&mut self, bytes: &[u8], more: bool, res: &mut Resources) -> Result<usize, Errno> {
        match &mut self.carrier {
            Carrier::Own(connection) => connection.send(bytes, more, &mut res.links),
            Carrier::Stream(_) => Err(Errno::INVAL),
        }
    }

    /// Sends what is left of the head, with a small body behind it in one call. Returns how much of the head is sent in
    /// all, and how much of the body.
    fn send_head(
        &mut self,
        head: &[u8],
        sent: usize,
        body: Next<'_>,
        res: &mut Resources,
    ) -> Result<(usize, usize), Errno> {
        let rest = &head[sent..];
        let (count, gathered) = match body {
            Next::Bytes(body) if body.len() <= GATHER_MAX => {
                let mut both = res.env.scratch();
                both.extend_from_slice(rest);
                both.extend_from_slice(body);
                let result = self.send(&both, false, res);
                res.env.give_back(both);
                (result?, true)
            }
            // The body follows at once: no packet of its own for the head.
            Next::Bytes(_) | Next::File(..) => (self.send(rest, true, res)?, false),
            Next::Complete | Next::Starved => (self.send(rest, false, res)?, false),
        };
        self.sent += count as u64;
        let of_head = count.min(rest.len());
        debug_assert!(gathered || of_head == count);
        Ok((sent + of_head, count - of_head))
    }
}
