//! What a handler may answer, and what an exchange may ask of the shell.

use crate::message::Status;

use super::change::{ChangeFailure, Changed};
use super::exchange::Exchange;
use super::file::{DirectoryListing, FileAnswer, FileFailure, Want};
use super::modules::auth_basic::PasswordAnswer;
use super::site::LocationId;
use super::upstream_call::UpstreamFailure;

/// What a phase's handler decided.
#[derive(Debug)]
pub enum Flow {
    /// Nothing to say: go on with the next handler.
    Next,
    /// Something from outside is needed; the same handler is called again with the answer.
    Need(Need),
    /// The response head and body are set: send them.
    Respond,
    /// Finish with this status: `error_page`, else a built-in page.
    Status(Status),
    /// The URI was changed: choose the server's location anew (an internal redirect).
    InternalRedirect,
    /// Go on in this named location with the URI as it is.
    NamedLocation(LocationId),
    /// Close the connection without an answer (444).
    Close,
}

/// Something that only the shell can give. Every need is answered once, by [`Answer`], or the exchange is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Open or look at the path in [`super::exchange::Exchange::path`].
    File(Want),
    /// List the folder in [`super::exchange::Exchange::path`].
    Directory,
    /// Read the request body as [`super::exchange::Exchange::body_reading`] says.
    RequestBody,
    /// Read some of the file in [`super::exchange::Exchange::reading`].
    Read,
    /// Check the password that [`super::modules::Notes::password`] asks about.
    Password,
    /// Make the change that [`super::modules::Notes::dav`] has.
    Change,
    /// Come back after so many milliseconds.
    Delay(u64),
    /// Make the subrequest in [`super::exchange::Exchange::order`], and bring it back when it is over.
    Subrequest,
    /// Pass the request on as [`super::upstream_call::Passed::call`] says.
    Upstream,
}

/// What the shell brings back for a [`Need`].
#[derive(Debug)]
pub enum Answer {
    /// For [`Need::File`].
    File(FileAnswer),
    /// For [`Need::Directory`].
    Directory(Result<DirectoryListing, FileFailure>),
    /// For [`Need::RequestBody`]: it is in [`super::exchange::Exchange::request_body`], or the status to refuse with.
    RequestBody(Result<(), Status>),
    /// For [`Need::Read`]: the bytes from the range's beginning on, fewer than asked for where one call brings no more
    /// or the file ends; none at its end. `None` if it cannot be read.
    Read(Option<Vec<u8>>),
    /// For [`Need::Password`].
    Password(PasswordAnswer),
    /// For [`Need::Change`].
    Change(Result<Changed, ChangeFailure>),
    /// For [`Need::Delay`]: the time is over.
    Delay,
    /// For [`Need::Subrequest`]: what became of it; its response's head is final. `None` if it could not be made, or
    /// was closed without a response.
    Subrequest(Option<Box<Exchange>>),
    /// For [`Need::Upstream`]: the head is in [`super::upstream_call::Passed::response`], or what went wrong.
    Upstream(Result<(), UpstreamFailure>),
}

/// What the shell is to do next with an exchange.
#[derive(Debug)]
pub enum Step {
    /// Satisfy this and call `step` again with the answer.
    Need(Need),
    /// The response head is final: encode it and pull the body.
    Respond,
    /// Close the connection without a response.
    Close,
}
