//! Frames that speak of the connection or of streams rather than carry messages.

use super::abuse::Limit;
use super::core::{Block, Core, DRAIN_PING, EARLY_PRIORITIES, Inbound, Leaving, OpenBlock, Side};
use super::error::{ConnectionError, ErrorCode, StreamError, StreamLoss};
use super::frame::{Frame, FrameHeader};
use super::priority::Priority;
use super::reading::Step;
use super::settings;

impl Core {
    /// A PRIORITY frame of the wrong size resets its stream (RFC 9113 section 6.3); one that was never opened can't be.
    pub fn break_priority<'a>(
        &mut self,
        header: &FrameHeader,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        self.abuse.note(Limit::Priorities, self.now_ms)?;
        let error =
            StreamError::new(ErrorCode::FRAME_SIZE_ERROR, "peer sent a PRIORITY frame of the wrong size");
        match self.streams.key(header.stream) {
            Some(key) => self.break_stream(key, error, out),
            None if self.is_idle(header.stream) => Err(ConnectionError::size(error.reason)),
            None => Ok(Step::Again),
        }
    }

    /// Everything that is taken whole, but HEADERS that lie in the input.
    pub fn handle<'a>(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Step<'a>, ConnectionError> {
        match frame {
            Frame::Headers { stream, ends, whole, fragment } => {
                self.block.clear();
                self.block.extend_from_slice(fragment);
                if whole {
                    let block = Block::Gathered;
                    return Ok(Step::Found(Inbound::Headers { stream, ends, block }));
                }
                if fragment.is_empty() {
                    self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
                }
                self.abuse.reset(Limit::Continuations);
                self.open_block = Some(OpenBlock { stream, ends });
            }
            Frame::Continuation { stream, whole, fragment } => {
                self.block.extend_from_slice(fragment);
                if whole && let Some(open) = self.open_block.take() {
                    let block = Block::Gathered;
                    return Ok(Step::Found(Inbound::Headers { stream, ends: open.ends, block }));
                }
            }
            Frame::Priority { .. } => self.abuse.note(Limit::Priorities, self.now_ms)?,
            Frame::Reset { stream, code } => return self.handle_reset(stream, code, out),
            Frame::Settings(payload) => return self.handle_settings(payload, out),
            Frame::SettingsAck => self.handle_settings_ack(out)?,
            Frame::PushPromise { .. } => {
                return Err(ConnectionError::protocol(
                    "peer sent a PUSH_PROMISE frame, which is not allowed",
                ));
            }
            Frame::Ping { ack: false, opaque } => {
                self.abuse.note(Limit::Pings, self.now_ms)?;
                Frame::Ping { ack: true, opaque }.write(out);
            }
            Frame::Ping { ack: true, opaque } => {
                self.abuse.note(Limit::Pings, self.now_ms)?;
                if opaque == DRAIN_PING && matches!(self.leaving, Leaving::Announced { .. }) {
                    self.leave(out);
                }
            }
            Frame::GoAway { last, code, debug: _ } => {
                return Ok(Step::Found(Inbound::GoAway { last, code }));
            }
            Frame::WindowUpdate { stream, increment } => {
                return self.handle_window_update(stream, increment, out);
            }
            Frame::PriorityUpdate { stream, value } => self.handle_priority_update(stream, value)?,
            Frame::Data { .. } | Frame::Unknown => debug_assert!(false, "not taken whole"),
        }
        Ok(Step::Again)
    }

    fn handle_reset<'a>(
        &mut self,
        id: u32,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let Some(key) = self.streams.key(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::protocol("peer reset an idle stream"));
            }
            self.abuse.note(Limit::IgnoredFrames, self.now_ms)?;
            return Ok(Step::Again);
        };
        if self.side == Side::Server {
            self.abuse.note(Limit::RapidReset, self.now_ms)?;
        }
        self.remove(key, out);
        Ok(Step::Found(Inbound::Lost {
            key,
            loss: StreamLoss {
                code,
                reason: "peer reset the stream",
                by_peer: true,
                may_be_processed: code != ErrorCode::REFUSED_STREAM,
            },
        }))
    }

    fn handle_settings<'a>(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        for _ in 0..1 + payload.len() / (6 * 16) {
            self.abuse.note(Limit::Settings, self.now_ms)?;
        }
        let before = self.peer;
        for (id, value) in settings::parameters(payload) {
            self.peer.apply(id, value, self.side == Side::Client)?;
            if id == settings::HEADER_TABLE_SIZE {
                // One after the other: the least one has to be announced.
                self.encoder.set_max_table_size(value);
            }
        }
        self.has_peer_settings = true;
        let difference = i64::from(self.peer.initial_window) - i64::from(before.initial_window);
        if difference != 0 {
            self.adjust_send_windows(difference)?;
        }
        Frame::SettingsAck.write(out);
        Ok(Step::Again)
    }

    fn adjust_send_windows(&mut self, difference: i64) -> Result<(), ConnectionError> {
        let mut waits = false;
        for (slot, stream) in self.streams.iter_mut() {
            stream.send_window.adjust(difference).map_err(|_| {
                ConnectionError::flow("peer's SETTINGS_INITIAL_WINDOW_SIZE overflows a stream's window")
            })?;
            let has_window = stream.send_window.available() > 0;
            if !has_window && self.schedule.contains(slot) {
                self.schedule.remove(slot);
                waits = true;
            } else if has_window && stream.has_data && !self.schedule.contains(slot) {
                self.schedule.insert(slot, stream.id, stream.priority);
            }
        }
        if waits {
            self.watch_stalls();
        }
        Ok(())
    }

    fn handle_settings_ack(&mut self, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        self.abuse.note(Limit::Settings, self.now_ms)?;
        let assumed = self.receive_window();
        if self.settings_deadline_ms.take().is_some() && assumed != self.config.stream_window {
            for (_, stream) in self.streams.iter_mut() {
                stream.receive_window.resize(self.config.stream_window);
                // What was given back may be worth telling now that the window is smaller.
                if stream.state.receive_data().is_ok()
                    && let Some(increment) = stream.receive_window.give_back(0)
                {
                    Frame::WindowUpdate { stream: stream.id, increment }.write(out);
                }
            }
        }
        Ok(())
    }

    fn handle_window_update<'a>(
        &mut self,
        id: u32,
        increment: u32,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        self.abuse.note(Limit::WindowUpdates, self.now_ms)?;
        if id == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("peer sent a WINDOW_UPDATE frame of 0"));
            }
            self.send_window.grow(increment).map_err(|_| {
                ConnectionError::flow("peer's WINDOW_UPDATE overflows the connection's window")
            })?;
            return Ok(Step::Again);
        }
        let Some(key) = self.streams.key(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::protocol("peer sent a WINDOW_UPDATE frame for an idle stream"));
            }
            // Usual: it crossed the end of the stream.
            return Ok(Step::Again);
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        let error = if increment == 0 {
            StreamError::new(ErrorCode::PROTOCOL_ERROR, "peer sent a WINDOW_UPDATE frame of 0")
        } else if stream.send_window.grow(increment).is_err() {
            let reason = "peer's WINDOW_UPDATE overflows a stream's window";
            StreamError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
        } else {
            if stream.has_data && stream.send_window.available() > 0 && !self.schedule.contains(key.slot) {
                self.schedule.insert(key.slot, id, stream.priority);
            }
            return Ok(Step::Again);
        };
        self.break_stream(key, error, out)
    }

    fn handle_priority_update(&mut self, id: u32, value: &[u8]) -> Result<(), ConnectionError> {
        self.abuse.note(Limit::Priorities, self.now_ms)?;
        // RFC 9218 section 7.1.
        if self.side == Side::Client {
            return Err(ConnectionError::protocol("server sent a PRIORITY_UPDATE frame"));
        }
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol("client sent a PRIORITY_UPDATE frame for no request"));
        }
        let priority = Priority::parse(value);
        if let Some(key) = self.streams.key(id)
            && let Some(stream) = self.streams.get_mut(key)
        {
            stream.priority = priority;
            if self.schedule.contains(key.slot) {
                self.schedule.insert(key.slot, id, priority);
            }
        } else if self.is_idle(id) {
            self.early_priorities.retain(|(early, _)| *early != id);
            if self.early_priorities.len() == EARLY_PRIORITIES {
                self.early_priorities.remove(0);
            }
            self.early_priorities.push((id, priority));
        }
        Ok(())
    }
}
