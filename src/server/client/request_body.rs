//! Request bodies that an exchange asked for: in memory up to `client_body_buffer_size`, beyond it in a temporary file.

use std::sync::Arc;

use crate::base::level::Level;
use crate::http::exchange::RequestBody;
use crate::http::modules::request_body::{BodyReading, InFileOnly};
use crate::message::{RequestFraming, Status};
use crate::proto::h1::Event;
use crate::server::files::{Completion, TemporaryFile, TemporaryFolder, WRITE_NOW_BYTES};
use crate::server::worker::resources::Resources;

use super::{Client, ClientKey, State, Waiting};

/// A body that is being read.
pub struct BodyReader {
    settings: BodyReading,
    /// Bytes so far.
    length: u64,
    memory: Vec<u8>,
    file: FileState,
    /// Bytes in the file.
    written: u64,
    ended: bool,
}

enum FileState {
    /// Everything is in memory so far.
    None,
    /// The pool creates the file; until then nothing more is read.
    Creating,
    /// The body is written to it.
    Open(TemporaryFile),
}

/// How a piece of input was used.
pub enum BodyProgress {
    /// All of it; more is needed.
    NeedMore,
    /// Some of it, or the body is complete: look at the connection's state again.
    Went,
    /// The connection is over.
    Close,
}

impl BodyReader {
    /// A reader by the settings of the exchange's scope.
    pub fn new(settings: BodyReading, framing: RequestFraming) -> BodyReader {
        let expected = match framing {
            RequestFraming::Length(length) => length.min(settings.buffer_size),
            _ => 0,
        };
        BodyReader {
            memory: Vec::with_capacity(expected as usize),
            settings,
            length: 0,
            file: FileState::None,
            written: 0,
            ended: false,
        }
    }

    /// Whether it takes more input now.
    pub fn has_room(&self) -> bool {
        !self.ended && !matches!(self.file, FileState::Creating)
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn is_too_large(&self) -> bool {
        self.settings.limit != 0 && self.length > self.settings.limit
    }

    /// Whether what is in memory has to go to a file.
    fn overflows(&self) -> bool {
        matches!(self.file, FileState::None)
            && (self.memory.len() as u64 > self.settings.buffer_size
                || self.ended && self.settings.in_file_only != InFileOnly::Off)
    }

    /// Writes what was gathered in memory, once it is worth a system call or the body is complete: a body in chunks of
    /// one byte would else cost a call for each.
    fn spill(&mut self) -> std::io::Result<()> {
        let FileState::Open(file) = &mut self.file else { return Ok(()) };
        let worth = self.settings.buffer_size.min(WRITE_NOW_BYTES as u64);
        if !self.ended && (self.memory.len() as u64) < worth {
            return Ok(());
        }
        let mut rest = &self.memory[..];
        while !rest.is_empty() {
            // A disk that is nearly full takes less than it was given.
            let count = file.write_now(self.written, rest)?;
            if count == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.written += count as u64;
            rest = &rest[count..];
        }
        self.memory.clear();
        Ok(())
    }

    /// What the exchange gets.
    fn take_body(&mut self) -> (RequestBody, Option<TemporaryFile>) {
        match std::mem::replace(&mut self.file, FileState::None) {
            FileState::Open(mut file) => {
                if self.settings.in_file_only == InFileOnly::On {
                    file.keep();
                }
                (RequestBody::File(file.path().as_os_str().as_encoded_bytes().into()), Some(file))
            }
            _ => (RequestBody::Memory(std::mem::take(&mut self.memory)), None),
        }
    }
}

impl Client {
    /// Feeds input to the body reader.
    pub fn read_body(&mut self, input: &mut &[u8], key: ClientKey, res: &mut Resources) -> BodyProgress {
        let State::Active(active) = &mut self.state else { return BodyProgress::Went };
        let Some(reader) = &mut active.body else { return BodyProgress::Went };
        let before = input.len();
        let limits = crate::proto::h1::HeadLimits::default();
        let event = self.wire.read(input, &limits, &mut active.exchange.head);
        self.request_bytes += (before - input.len()) as u64;
        active.exchange.outcome.request_length = self.request_bytes;
        match event {
            Ok(Event::Body(bytes)) => {
                reader.length += bytes.len() as u64;
                if reader.is_too_large() {
                    let message = format_args!("client intended to send too large chunked body");
                    active.exchange.log_in_scope(&mut res.env, Level::Error, message);
                    return self.body_read(Err(Status::CONTENT_TOO_LARGE), key, res);
                }
                reader.memory.extend_from_slice(bytes);
                let timeout = active.exchange.scope_settings().core.client_body_timeout;
                self.await_client(timeout, res.env.now.monotonic_ms);
                self.settle_body(key, res)
            }
            Ok(Event::BodyEnd | Event::Paused) => {
                reader.ended = true;
                self.settle_body(key, res)
            }
            Ok(Event::NeedMore | Event::Head) => BodyProgress::NeedMore,
            Err(error) => {
                active.exchange.log_refusal(&mut res.env, &error.message, error.phase);
                self.body_read(Err(error.status), key, res)
            }
        }
    }

    /// Brings what was read to where it belongs, and ends the reading when the body is complete.
    fn settle_body(&mut self, key: ClientKey, res: &mut Resources) -> BodyProgress {
        let State::Active(active) = &mut self.state else { return BodyProgress::Went };
        let Some(reader) = &mut active.body else { return BodyProgress::Went };
        if reader.overflows() {
            let folder = reader.settings.temp_path.as_ref().map(|temp| res.temporary_folder(temp));
            let job = folder.map(|folder: Arc<TemporaryFolder>| res.files.create_temporary(&folder));
            return match job {
                Some(Ok(job)) => {
                    res.jobs.insert(job, key);
                    reader.file = FileState::Creating;
                    self.pace.rest(res.env.now.monotonic_ms);
                    BodyProgress::Went
                }
                _ => self.body_read(Err(Status::INTERNAL_SERVER_ERROR), key, res),
            };
        }
        if let Err(error) = reader.spill() {
            let message = format_args!("writing a request body to a temporary file failed ({error})");
            active.exchange.log_in_scope(&mut res.env, Level::Crit, message);
            return self.body_read(Err(Status::INTERNAL_SERVER_ERROR), key, res);
        }
        if reader.ended && !matches!(reader.file, FileState::Creating) {
            active.exchange.request_body_length = reader.length;
            let (body, file) = reader.take_body();
            active.exchange.request_body = body;
            active.body_file = file;
            return self.body_read(Ok(()), key, res);
        }
        BodyProgress::Went
    }

    fn body_read(&mut self, result: Result<(), Status>, key: ClientKey, res: &mut Resources) -> BodyProgress {
        match self.resume_with_body(result, key, res) {
            super::Fate::Keep => BodyProgress::Went,
            super::Fate::Close => BodyProgress::Close,
        }
    }

    /// The temporary file was created, or not.
    pub fn on_body_completion(
        &mut self,
        key: ClientKey,
        completion: Completion,
        res: &mut Resources,
    ) -> super::Fate {
        let State::Active(active) = &mut self.state else { return super::Fate::Keep };
        let (Waiting::Body, Some(reader)) = (active.waiting, &mut active.body) else {
            return super::Fate::Keep;
        };
        match completion {
            Completion::TemporaryCreated(Ok(file)) => {
                reader.file = FileState::Open(file);
                let site = active.exchange.site.clone();
                let core = &site.settings(active.exchange.location).core;
                self.await_body(core, res.env.now.monotonic_ms);
                if matches!(self.settle_body(key, res), BodyProgress::Close) {
                    return super::Fate::Close;
                }
                // All of the body may have come while the file was being created: its end needs no further byte.
                if self.wire.has_held() { super::Fate::Keep } else { self.consume_nothing(key, res) }
            }
            Completion::TemporaryCreated(Err(error)) => {
                let message = format_args!("creating a temporary file for a request body failed ({error})");
                active.exchange.log_in_scope(&mut res.env, Level::Crit, message);
                self.resume_with_body(Err(Status::INTERNAL_SERVER_ERROR), key, res)
            }
            _ => super::Fate::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_gathered_before_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let folder = TemporaryFolder::new(folder.path().to_owned(), [0; 3], 0);
        let settings =
            BodyReading { limit: 0, buffer_size: 1000, in_file_only: InFileOnly::Off, temp_path: None };
        let mut reader = BodyReader::new(settings, RequestFraming::Streamed);
        reader.file = FileState::Open(folder.create().unwrap());
        let mut writes = 0;
        let content: Vec<u8> = (0..2_500u32).map(|at| at as u8).collect();
        for byte in &content {
            let before = reader.written;
            reader.memory.push(*byte);
            reader.spill().unwrap();
            writes += u32::from(reader.written > before);
        }
        assert_eq!((writes, reader.written, reader.memory.len()), (2, 2_000, 500));
        reader.ended = true;
        reader.spill().unwrap();
        let FileState::Open(file) = &reader.file else { unreachable!() };
        assert_eq!(std::fs::read(file.path()).unwrap(), content);
    }
}
