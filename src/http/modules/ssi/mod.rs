//! `ssi`: pages with commands in them, `<!--#include virtual="/header.html" -->` and its like, as nginx has them.
//!
//! [`filter`] decides by the response's head and puts an [`Ssi`] among the exchange's notes. Whoever moves the body
//! takes it from there ([`machine_of`]) and gives it the body as it comes behind the first [`Ssi::filters_before`] of
//! the exchange's body filters:
//!
//! 1. [`Ssi::take`] takes input and appends [`Part`]s in the order in which they are to be sent. It says how it
//!    stopped: at the end of its input, for want of room, or because an [`Include`] must be over first.
//! 2. In that case [`Ssi::resume`] is called when it is, before `take` goes on.
//! 3. An include's subrequest is made like any other; [`for_subrequest`] gives it what pages share. Should it have no
//!    body or fail, its block is sent instead, as a page of the subrequest: through an [`Ssi`] of its own where `ssi`
//!    is on for it.
//!
//! Commands nest deeper here than in nginx, which refuses an `if` within an `if`.

mod date;
mod law;
mod machine;
mod page;
mod scanner;
#[cfg(test)]
mod tests;
mod values;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, size, without_meaning};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::{HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;

use super::compress::weaken_etag;

use page::Shared;

pub use law::law_any_split_gives_the_same;
pub use machine::{Include, Part, Progress, Ssi};

settings! {
    module ssi;
    fields {
        /// Whether commands in pages are followed.
        enabled: bool = false, inherit;
            "ssi" HTTP_SERVER_LOCATION_IF, Arity::FLAG, default "off", once enable;
        /// Whether Last-Modified and ETag (as a weak one) stay.
        last_modified: bool = false, inherit;
            "ssi_last_modified" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Whether nothing is shown in the place of a command that fails.
        silent_errors: bool = false, inherit;
            "ssi_silent_errors" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Media types of pages, beside `text/html`.
        types: MediaTypes = MediaTypes::default(), inherit;
            "ssi_types" HTTP_SERVER_LOCATION, Arity::at_least(1), default "text/html", with media_types;
        /// The longest value of a command's parameter, in bytes.
        value_length: u64 = 255, inherit;
            "ssi_value_length" HTTP_SERVER_LOCATION, Arity::exactly(1), default "255", once size;
    }
    plain {
        /// Without meaning here: no buffer of a page is recycled while it is in use.
        "ssi_ignore_recycled_buffers" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", without_meaning;
        /// Without meaning here beyond its check: pages are read by pieces of a size of our own.
        "ssi_min_file_chunk" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1k", ignored_size;
    }
}

/// Commands name variables that the configuration may not mention. Those that keep their value need a place for it, and
/// the server's address is only asked for where it is wanted.
fn enable(scope: &mut Scope, call: &Call) -> Result<bool, Complaint> {
    let enabled = flag(scope, call)?;
    if enabled {
        for entry in super::variables().filter(|entry| entry.kept || entry.name == "server_addr") {
            scope.builder.variable(entry.name, call.arg(0));
        }
    }
    Ok(enabled)
}

fn ignored_size(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    size(scope, call)?;
    without_meaning(scope, call)
}

/// What is remembered of a request's page.
#[derive(Default)]
pub struct State {
    /// Until whoever moves the body has taken it.
    machine: Option<Box<Ssi>>,
    page: Shared,
    /// The format of `$date_local` and `$date_gmt`, where `config` has set one.
    time_format: Option<Vec<u8>>,
}

/// See [`State`]; none for requests without `ssi`.
pub type Note = Option<Box<State>>;

/// Header filter: decides, and sets the head.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    if let Some(state) = &mut exchange.notes.ssi {
        // Of a response that this one replaces.
        state.machine = None;
    }
    let site = context.site;
    let settings = &site.settings(exchange.location).ssi;
    if !settings.enabled || exchange.response.content_length == Some(0) {
        return;
    }
    let content_type = exchange.response.content_type.map(|span| exchange.response.text(span));
    if !settings.types.matches(content_type.unwrap_or_default()) {
        return;
    }
    let filters_before = exchange.body_filters.len();
    let state = exchange.notes.ssi.get_or_insert_default();
    state.time_format = None;
    state.machine = Some(Box::new(Ssi::new(settings, Shared::clone(&state.page), filters_before)));
    exchange.response.clear_content_length();
    exchange.allow_ranges = false;
    if settings.last_modified {
        weaken_etag(exchange);
    } else {
        exchange.response.clear_last_modified();
        exchange.response.etag = None;
    }
}

/// The machine that the header filter has made for the response's body, if there is one.
pub fn machine_of(exchange: &mut Exchange) -> Option<Box<Ssi>> {
    exchange.notes.ssi.as_mut()?.machine.take()
}

/// What a subrequest shares with the request that makes it: variables, blocks, captures.
pub fn for_subrequest(parent: &Exchange) -> Note {
    let state = parent.notes.ssi.as_ref()?;
    Some(Box::new(State { page: Shared::clone(&state.page), ..State::default() }))
}

fn date(exchange: &Exchange, context: &Context, is_local: bool, out: &mut Vec<u8>) -> bool {
    let format = exchange.notes.ssi.as_ref().and_then(|state| state.time_format.as_deref());
    let zone = is_local.then(|| context.env.dates.zone());
    date::append(out, format.unwrap_or(date::DEFAULT_FORMAT), context.env.now.wall_secs, zone);
    true
}

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("date_gmt", |exchange, context, out| date(exchange, context, false, out)),
    VariableEntry::new("date_local", |exchange, context, out| date(exchange, context, true, out)),
];
