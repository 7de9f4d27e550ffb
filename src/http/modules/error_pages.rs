//! `error_page` and what goes with it. What they do is in [`crate::http::error_page`].

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree::Word;
use crate::http::build::Scope;
use crate::http::build::arguments::flag;
use crate::http::settings::contexts::{HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;
use crate::message::Status;

/// One `error_page`.
#[derive(Clone, Debug)]
pub struct ErrorPage {
    /// The statuses that it is for.
    pub statuses: Vec<u16>,
    /// `=code`: the status that the client sees; `Status(0)` for a bare `=`: that of whatever answers.
    pub overwrite: Option<Status>,
    /// A URI, a named location, or a URL.
    pub target: Template,
}

settings! {
    module error_pages;
    fields {
        /// Pages for statuses.
        pages: Vec<ErrorPage> = Vec::new(), inherit;
            "error_page" HTTP_SERVER_LOCATION_IF, Arity::at_least(2), default "", with add_page;
        /// Whether an error page may have an error page of its own.
        recursive: bool = false, inherit;
            "recursive_error_pages" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
    }
}

fn add_page(scope: &mut Scope, call: &Call, slot: &mut Option<Vec<ErrorPage>>) -> Result<(), Complaint> {
    let (target, mut codes) = match call.args() {
        [codes @ .., target] => (target, codes),
        [] => return Ok(()),
    };
    let mut overwrite = None;
    if let Some((last, before)) = codes.split_last()
        && let Some(code) = last.as_bytes().strip_prefix(b"=")
    {
        if before.is_empty() {
            return Err(Complaint::invalid_value(last));
        }
        overwrite = Some(overwrite_status(code, last)?);
        codes = before;
    }
    let statuses = codes.iter().map(page_status).collect::<Result<Vec<u16>, Complaint>>()?;
    let target = scope.builder.template(target)?;
    slot.get_or_insert_default().push(ErrorPage { statuses, overwrite, target });
    Ok(())
}

fn overwrite_status(code: &[u8], word: &Word) -> Result<Status, Complaint> {
    if code.is_empty() {
        return Ok(Status(0));
    }
    let text = std::str::from_utf8(code).ok();
    match text.and_then(|text| text.parse::<u16>().ok()) {
        Some(code) if code < 1000 => Ok(Status(code)),
        _ => Err(Complaint::invalid_value(word)),
    }
}

fn page_status(word: &Word) -> Result<u16, Complaint> {
    let code = word
        .as_str()
        .and_then(|text| text.parse::<u16>().ok())
        .ok_or_else(|| Complaint::invalid_value(word))?;
    match code {
        499 => Err(Complaint::invalid_value(word)),
        300..=599 => Ok(code),
        _ => Err(Complaint::new(format!("value \"{code}\" must be between 300 and 599")).at(word)),
    }
}
