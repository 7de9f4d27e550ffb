//! Files of streams that wait for window, or for a socket that takes nothing: given up, and opened again when the stream
//! can go on.
//!
//! A stream goes on with the very version of the file that it began with, or not at all: two versions in one body would
//! be neither, and nobody would see it.

use crate::http::body::Body;
use crate::http::file::{FailureReason, FileAnswer, FileFailure, FileHandle, FileRange};
use crate::server::client::{Client, ClientKey, State, Waiting};
use crate::server::files::{FileIdentity, Opened, give_up, is_given_up};
use crate::server::worker::resources::Resources;

use super::{Output, Piece};

/// How long to wait where the pool is full, in milliseconds.
const BUSY_MS: u64 = 50;

/// What became of opening a file again.
pub(super) enum Reopened {
    /// It is the same, and open.
    Ready,
    /// The pool opens it.
    Reading,
    /// The pool is full.
    Busy,
    /// It is gone (with the reason), or it is another.
    Lost(Option<FileFailure>),
}

impl Client {
    /// The stream has waited for window, or for its connection's socket, for long: closes what it has open.
    pub fn give_up_files(&mut self, res: &mut Resources) {
        let is_stalled = self.stream().is_some_and(|end| end.link.mux.borrow().is_stalled());
        if self.room() > 0 && !is_stalled {
            return;
        }
        let State::Active(active) = &mut self.state else { return };
        if active.waiting != Waiting::Output || active.output.job.is_some() {
            return;
        }
        active.exchange.opened.forget();
        let given_up = active.output.give_up_files();
        if let Some(handle) = given_up {
            res.files.close_given_up(&handle);
        }
    }

    /// Opens a file that was given up, once there is window for some of it.
    pub(super) fn reopen(
        &mut self,
        output: &mut Output,
        handle: &FileHandle,
        key: ClientKey,
        res: &mut Resources,
    ) -> Piece {
        if self.room() == 0 {
            return Piece::Blocked;
        }
        match output.open_again(handle, key, res) {
            Reopened::Ready => Piece::Sent(0),
            Reopened::Reading => Piece::Reading,
            Reopened::Busy => Piece::Later(BUSY_MS),
            Reopened::Lost(failure) => Piece::Lost(failure),
        }
    }
}

impl Output {
    /// Gives up what is open for the body; the last of it, where there is any. As a rule all ranges are of one file.
    fn give_up_files(&mut self) -> Option<FileHandle> {
        let mut given_up: Option<FileHandle> = None;
        each_range(&mut self.body, &mut |range| {
            let identity = FileIdentity::of(&range.handle);
            match given_up.as_ref().filter(|handle| FileIdentity::of(handle) == identity) {
                // The descriptor of the first one is what they share.
                Some(handle) if range.handle.content().is_none() => range.handle = handle.clone(),
                _ => {
                    if let Some(handle) = give_up(&range.handle) {
                        range.handle = handle.clone();
                        given_up = Some(handle);
                    }
                }
            }
        });
        if given_up.is_some() {
            self.read = None;
            self.warmth = None;
        }
        given_up
    }

    /// Opens the file of the first piece again.
    pub(super) fn open_again(
        &mut self,
        handle: &FileHandle,
        key: ClientKey,
        res: &mut Resources,
    ) -> Reopened {
        match res.files.open_again(handle, res.env.now.into()) {
            Opened::Ready(answer) => self.take_reopened(answer),
            Opened::Pending(job) => {
                res.jobs.insert(job, key);
                self.job = Some(job);
                Reopened::Reading
            }
        }
    }

    /// Takes the file of the first piece, opened again, for all pieces that are of it.
    pub(super) fn take_reopened(&mut self, answer: FileAnswer) -> Reopened {
        let found = match answer {
            FileAnswer::Found(info) => info.handle,
            FileAnswer::Failed(failure) if failure.reason == FailureReason::Busy => return Reopened::Busy,
            FileAnswer::Failed(failure) => return Reopened::Lost(Some(failure)),
        };
        let Body::File(range) = self.first_piece() else { return Reopened::Lost(None) };
        let identity = FileIdentity::of(&range.handle);
        let is_same = |handle: &FileHandle| identity.is_some() && FileIdentity::of(handle) == identity;
        let Some(opened) = found.filter(is_same) else { return Reopened::Lost(None) };
        each_range(&mut self.body, &mut |range| {
            if is_given_up(&range.handle) && is_same(&range.handle) {
                range.handle = opened.clone();
            }
        });
        Reopened::Ready
    }
}

/// Calls `change` with each range of a file that is left of a body.
fn each_range(body: &mut Body, change: &mut impl FnMut(&mut FileRange)) {
    match body {
        Body::File(range) => change(range),
        Body::Pieces(pieces) => pieces.iter_mut().for_each(|piece| each_range(piece, change)),
        Body::Empty | Body::Static(_) | Body::Bytes(_) | Body::Shared { .. } | Body::Upstream(_) => {}
    }
}
