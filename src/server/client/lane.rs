//! Ways for responses that are no sockets: streams of HTTP/2, and pipes of subrequests.

use rustix::io::Errno;

use crate::message::{Fields, ResponseFraming, Status};
use crate::server::worker::resources::Resources;

use super::transport::Transport;
use super::{Client, ClientKey, Fate, State, Waiting};

/// See the module's documentation.
pub trait Lane {
    /// How many bytes may be sent now.
    fn room(&self) -> usize;
    /// Sends as much of a body's piece as there is room for.
    fn send(&mut self, piece: &[u8]) -> Result<usize, Errno>;
    /// A body of this framing begins; how the rest of the server is to write it: without marks in between.
    fn begin(&mut self, framing: ResponseFraming, trailers: bool) -> ResponseFraming;
    /// The body was sent whole.
    fn finish(&mut self, trailers: &Fields);
    /// Asks for a turn when there is room, or asks no longer.
    fn want_turn(&self, wants: bool);
    /// A turn of the client is over.
    fn after_turn(&self, res: &mut Resources);
    /// The client is gone.
    fn release(&self, res: &mut Resources);
}

impl Client {
    /// The lane, if there is no socket.
    pub fn lane(&self) -> Option<&dyn Lane> {
        match &self.transport {
            Transport::Stream(end) => Some(end),
            Transport::Pipe(end) => Some(end),
            _ => None,
        }
    }

    /// The same, to send.
    pub fn lane_mut(&mut self) -> Option<&mut dyn Lane> {
        match &mut self.transport {
            Transport::Stream(end) => Some(end),
            Transport::Pipe(end) => Some(end),
            _ => None,
        }
    }

    /// The lane has room.
    pub fn on_lane_room(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        match &self.state {
            State::Active(active)
                if active.waiting == Waiting::Output && active.output.pending_job().is_none() =>
            {
                self.pump(key, res)
            }
            State::Active(active) if active.waiting == Waiting::Tunnel => self.pump_tunnel(key, res),
            _ => {
                if let Some(lane) = self.lane() {
                    lane.want_turn(false);
                }
                Fate::Keep
            }
        }
    }

    /// Nobody wants the response any more.
    pub fn lose_lane(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let State::Active(active) = &mut self.state else { return Fate::Close };
        // What has not come of the body, or was dropped with the stream, will not come any more.
        let is_whole = !self.wire.body_pending();
        if is_whole
            && active.relay.as_ref().is_some_and(|relay| !relay.ends_with_client() && !relay.is_over())
        {
            self.flags.gone = true;
            // What the upstream still sends is taken from it: it may have waited for room.
            return self.on_lane_room(key, res);
        }
        self.flags.read_closed = true;
        if matches!(
            active.waiting,
            Waiting::Upstream | Waiting::Delay | Waiting::Answer(_) | Waiting::Body | Waiting::Subrequest
        ) {
            active.exchange.response.status = Status(499);
        }
        let _ = self.on_client_gone(res);
        Fate::Close
    }
}
