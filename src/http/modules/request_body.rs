//! Request bodies: the settings by which the shell reads them, and `client_body_early_read`.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, one_of, size, templates};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::{HTTP_SERVER, HTTP_SERVER_LOCATION};
use crate::http::settings::settings;
use crate::http::variables::is_true;
use crate::message::{RequestFraming, Status};

/// `client_body_in_file_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFileOnly {
    /// Small bodies stay in memory.
    Off,
    /// Every body goes to a file, which stays.
    On,
    /// Every body goes to a file, which is removed after the request.
    Clean,
}

/// A folder for temporary files with the lengths of its levels of subfolders.
#[derive(Clone, Debug)]
pub struct TempPath {
    /// The folder, absolute.
    pub path: Arc<str>,
    /// Digits of each level of subfolders, at most three levels; 0 for none.
    pub levels: [u8; 3],
}

impl TempPath {
    /// The folder `name` below the one that relative paths begin in.
    pub fn default_below(prefix: &str, name: &str) -> TempPath {
        TempPath { path: format!("{prefix}{name}").into(), levels: [0; 3] }
    }
}

settings! {
    module request_body;
    fields {
        /// Bodies up to so many bytes are kept in memory.
        buffer_size: u64 = 16 * 1024, inherit;
            "client_body_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "16k", once size;
        /// Predicates; when one holds, the body is read before the server's rewrite program.
        early_read: Vec<Template> = Vec::new(), inherit;
            "client_body_early_read" HTTP_SERVER, Arity::at_least(1), default "", once templates;
        /// Whether every body goes to a file.
        in_file_only: InFileOnly = InFileOnly::Off, inherit;
            "client_body_in_file_only" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once in_file_only;
        /// Without meaning here beyond its check: a body in memory is in one piece always.
        in_single_buffer: bool = false, inherit;
            "client_body_in_single_buffer" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Where bodies are put that do not stay in memory.
        temp_path: Option<TempPath> = None, inherit;
            "client_body_temp_path" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "client_body_temp", once temp_path;
    }
}

fn in_file_only(_: &mut Scope, call: &Call) -> Result<InFileOnly, Complaint> {
    one_of(call, &[("off", InFileOnly::Off), ("on", InFileOnly::On), ("clean", InFileOnly::Clean)])
}

/// A path and up to three lengths of subfolder names (`client_body_temp_path` and its like).
pub fn temp_path(scope: &mut Scope, call: &Call) -> Result<Option<TempPath>, Complaint> {
    let path = call.arg(0).as_str().ok_or_else(|| Complaint::invalid_value(call.arg(0)))?;
    let mut levels = [0u8; 3];
    for (level, word) in levels.iter_mut().zip(&call.args()[1..]) {
        *level = match word.as_bytes() {
            [digit @ b'1'..=b'3'] => digit - b'0',
            _ => return Err(Complaint::new(format!("invalid value \"{}\"", word.lossy())).at(word)),
        };
    }
    Ok(Some(TempPath { path: scope.builder.absolute(path.trim_end_matches('/')).into(), levels }))
}

/// How the shell is to read a body.
#[derive(Clone, Debug)]
pub struct BodyReading {
    /// 413 beyond so many bytes; 0 for no limit.
    pub limit: u64,
    /// To a file beyond so many bytes.
    pub buffer_size: u64,
    /// Whether every body goes to a file.
    pub in_file_only: InFileOnly,
    /// Where to.
    pub temp_path: Option<TempPath>,
}

impl Exchange {
    /// What [`Need::RequestBody`] asks for, by the settings of the present scope.
    pub fn body_reading(&self) -> BodyReading {
        let settings = self.site.settings(self.location);
        if let Some(most) = self.notes.dav.reads_in_memory() {
            let limit = settings.core.client_max_body_size;
            let limit = if limit == 0 { most } else { limit.min(most) };
            return BodyReading { limit, buffer_size: most, in_file_only: InFileOnly::Off, temp_path: None };
        }
        BodyReading {
            limit: settings.core.client_max_body_size,
            buffer_size: settings.request_body.buffer_size,
            in_file_only: settings.request_body.in_file_only,
            temp_path: settings.request_body.temp_path.clone(),
        }
    }

    /// Refuses a body whose announced length is too large for the present scope.
    pub fn check_announced_length(&mut self, context: &mut Context) -> Result<(), Status> {
        let limit = context.site.settings(self.location).core.client_max_body_size;
        match self.head.framing {
            RequestFraming::Length(length) if limit != 0 && length > limit => {
                self.log(
                    context,
                    Level::Error,
                    format_args!("client intended to send too large body: {length} bytes"),
                );
                Err(Status::CONTENT_TOO_LARGE)
            }
            _ => Ok(()),
        }
    }
}

/// `client_body_early_read`: reads the body with the server's settings if a predicate holds.
pub fn read_early(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    match answer {
        Some(Answer::RequestBody(Ok(()))) => Flow::Next,
        Some(Answer::RequestBody(Err(status))) => Flow::Status(status),
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
        None => {
            let site = context.site;
            let predicates = &site.settings(exchange.location).request_body.early_read;
            if predicates.is_empty() || exchange.head.framing == RequestFraming::None {
                return Flow::Next;
            }
            let wanted = predicates
                .iter()
                .any(|predicate| exchange.with_rendered(predicate, context, |_, _, text| is_true(text)));
            if !wanted {
                return Flow::Next;
            }
            match exchange.check_announced_length(context) {
                Ok(()) => Flow::Need(Need::RequestBody),
                Err(status) => Flow::Status(status),
            }
        }
    }
}
