//! `proxy_store`: a copy of the response in a file, which gets its name once the response is complete.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::base::clock::parse_http_date;
use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::message::{FieldName, Status};
use crate::server::files::{Completion, Publication, TemporaryFile, WRITE_NOW_BYTES};
use crate::server::worker::resources::Resources;

use super::{Relay, State};

/// A copy that is being written.
#[derive(Debug)]
pub struct Store {
    file: TemporaryFile,
    written: u64,
    failed: Option<std::io::Error>,
}

impl Store {
    /// A copy in this file.
    pub fn new(file: TemporaryFile) -> Store {
        Store { file, written: 0, failed: None }
    }

    /// Appends. What fails is told at the end: the response itself can do without its copy.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            match self.file.write_now(self.written, &bytes[..bytes.len().min(WRITE_NOW_BYTES)]) {
                Ok(0) => self.failed = Some(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// The file, if everything was written.
    ///
    /// # Errors
    /// The first that writing met.
    pub fn finish(self) -> std::io::Result<TemporaryFile> {
        match self.failed {
            None => Ok(self.file),
            Some(error) => Err(error),
        }
    }
}

impl Relay {
    /// Begins a copy, if the call asks for one; whether its file has to be waited for.
    pub(super) fn needs_store(&mut self, exchange: &mut Exchange, res: &mut Resources) -> bool {
        if self.store_settled {
            return false;
        }
        self.store_settled = true;
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else { return false };
        let (Some(_), Some(temp)) = (&call.store, &call.conduct.temp_path) else { return false };
        let folder = res.temporary_folder(temp);
        match res.files.create_temporary(&folder) {
            Ok(job) => {
                res.jobs.insert(job, self.owner);
                self.creating = Some(job);
                self.state = State::Waiting;
                true
            }
            Err(_) => {
                exchange.log_upstream(
                    &mut res.env,
                    Level::Crit,
                    format_args!("storing a response failed (no thread has time for it)"),
                );
                false
            }
        }
    }

    /// The file for the copy was created, or not: the response can do without.
    pub(super) fn take_store(
        &mut self,
        completion: Completion,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) {
        match completion {
            Completion::TemporaryCreated(Ok(file)) => self.store = Some(Store::new(file)),
            Completion::TemporaryCreated(Err(error)) => {
                let message =
                    format_args!("creating a temporary file for a stored response failed ({error})");
                exchange.log_upstream(&mut res.env, Level::Crit, message);
            }
            _ => {}
        }
        self.state = State::Choosing;
    }

    /// Only a complete 200 is kept.
    pub(super) fn finish_store(&mut self, complete: bool, exchange: &mut Exchange, res: &mut Resources) {
        let Some(store) = self.store.take() else { return };
        let Some(passed) = &exchange.upstream else { return };
        let Some(call) = &passed.call else { return };
        let (Some(path), true) = (&call.store, complete && passed.response.status == Status::OK) else {
            return;
        };
        let modified = passed.response.fields.first(FieldName::LastModified).and_then(parse_http_date);
        let path = PathBuf::from(OsStr::from_bytes(path));
        let mode = call.conduct.store_access;
        let failed = match store.finish() {
            Ok(file) => match res.files.publish(Publication { file, path, mode, modified }) {
                Ok(job) => {
                    res.jobs.insert(job, self.owner);
                    self.publishing = Some(job);
                    return;
                }
                Err(_) => std::io::ErrorKind::ResourceBusy.into(),
            },
            Err(error) => error,
        };
        exchange.log_upstream(
            &mut res.env,
            Level::Crit,
            format_args!("storing a response failed ({failed})"),
        );
    }
}
