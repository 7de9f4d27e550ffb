//! WebSockets over HTTP/2 (RFC 8441): the bytes of a tunnel on a stream that shares its connection.

use std::rc::Rc;

use rustix::io::Errno;
use sha1::{Digest, Sha1};

use crate::base::base64;
use crate::message::{FieldName, RequestHead, ResponseHead, Status};
use crate::server::worker::resources::Resources;

use super::super::{Carrier, Relay, State};
use super::{Mux, OUT_BYTES, SharedMux, Stage, queue};

/// What a client's key is hashed with (RFC 6455 section 1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The upstream's end of a tunnel.
pub struct StreamTunnel {
    mux: SharedMux,
    slot: usize,
}

impl Relay {
    /// The upstream's end of a tunnel that is a stream.
    pub fn raw_stream(&self) -> Option<StreamTunnel> {
        let run = self.run.as_ref().filter(|_| self.state == State::Raw)?;
        match &run.carrier {
            Carrier::Stream(link) => Some(StreamTunnel { mux: Rc::clone(&link.mux), slot: link.slot }),
            Carrier::Own(_) => None,
        }
    }
}

impl StreamTunnel {
    /// Reads some of what has come, and says whether there is more; 0 at the end.
    ///
    /// # Errors
    /// `AGAIN` if nothing is there now, others if nothing comes any more.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        let mut mux = self.mux.borrow_mut();
        let Some(slot) = mux.slots.get_mut(self.slot) else { return Err(Errno::CONNRESET) };
        slot.stirred = false;
        let count = slot.inbox.len().min(buffer.len());
        if count == 0 {
            return match (slot.ended, slot.lost.is_some()) {
                (true, _) => Ok((0, false)),
                (false, true) => Err(Errno::CONNRESET),
                (false, false) => Err(Errno::AGAIN),
            };
        }
        buffer[..count].copy_from_slice(&slot.inbox[..count]);
        match count == slot.inbox.len() {
            true => slot.inbox = Vec::new(),
            false => drop(slot.inbox.drain(..count)),
        }
        let more = !slot.inbox.is_empty() || slot.ended || slot.lost.is_some();
        if let Some(stream) = slot.stream {
            let Mux { machine, out, .. } = &mut *mux;
            machine.consumed(stream, count, out);
        }
        Ok((count, more))
    }

    /// Sends as much as there is room for; the relay gets its turn when there is more.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut mux = self.mux.borrow_mut();
        let slot = mux.slots.get(self.slot).filter(|slot| slot.lost.is_none());
        let Some(stream) = slot.and_then(|slot| slot.stream) else { return Err(Errno::CONNRESET) };
        if mux.stage != Stage::Open {
            return Err(Errno::CONNRESET);
        }
        let room = mux.machine.room(stream).min(OUT_BYTES.saturating_sub(mux.backlog()));
        let Mux { machine, out, .. } = &mut *mux;
        let sent = match room {
            0 => 0,
            room => machine.send_data(stream, &bytes[..bytes.len().min(room)], false, out),
        };
        machine.set_has_data(stream, sent < bytes.len());
        Ok(sent)
    }

    /// Says that nothing more comes.
    pub fn shut_down(&self) {
        let mut mux = self.mux.borrow_mut();
        if let Some(stream) = mux.slots.get(self.slot).and_then(|slot| slot.stream) {
            let Mux { machine, out, .. } = &mut *mux;
            machine.send_data(stream, b"", true, out);
        }
    }

    /// Has the connection send what was written.
    pub fn flush(&self, res: &mut Resources) {
        queue(&self.mux, res);
    }
}

/// Makes the response that HTTP/1 has for it of the one that begins a tunnel.
pub(super) fn switch(response: &mut ResponseHead, request: &RequestHead) {
    response.status = Status::SWITCHING_PROTOCOLS;
    response.fields.push_known(FieldName::Upgrade, b"websocket");
    response.fields.push_known(FieldName::Connection, b"upgrade");
    if let Some(key) = request.fields.named(b"sec-websocket-key").next() {
        let mut accept = Vec::new();
        base64::encode(&mut accept, &Sha1::new_with_prefix(key).chain_update(WEBSOCKET_GUID).finalize());
        response.fields.push(b"Sec-WebSocket-Accept", &accept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn the_answer_is_that_of_http_1() {
        let mut request = RequestHead::default();
        request.fields.push(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==");
        let mut response = ResponseHead { status: Status(200), ..ResponseHead::default() };
        switch(&mut response, &request);
        assert_eq!(response.status, Status(101));
        let accept = response.fields.named(b"sec-websocket-accept").next();
        assert_eq!(accept, Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
        // A client of HTTP/2 has no key, and gets none of it.
        let mut other = ResponseHead::default();
        switch(&mut other, &RequestHead::default());
        assert!(other.fields.named(b"sec-websocket-accept").next().is_none());
    }
}
