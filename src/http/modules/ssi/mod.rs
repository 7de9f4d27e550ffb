//! `ssi`: pages with commands in them, `<!--#include virtual="/header.html" -->` and its like, as nginx has them.
//!
//! `filter` decides by the response's head and puts an `Ssi` into the exchange's weaving. Whoever moves the body gives
//! it what the body filters before its place make of the body:
//!
//! 1. `Ssi::take` takes input and appends `Part`s in the order in which they are to be sent. It says how it
//!    stopped: at the end of its input, for want of room, or because an `Include` must be over first.
//! 2. In that case `Ssi::resume` is called when it is, before `take` goes on.
//! 3. An include's subrequest is made like any other; `for_subrequest` gives it what pages share. Should it fail, or
//!    have no body, `begin_stub` makes the block that the include names the subrequest's response.
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
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, size, without_meaning};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::filters::run_header_filters;
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::{HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::message::Status;

use super::compress::weaken_etag;
use super::ranges;

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
    page: Shared,
    /// The format of `$date_local` and `$date_gmt`, where `config` has set one.
    time_format: Option<Vec<u8>>,
    stub: Option<Stub>,
}

/// What a subrequest sends that fails or has no body.
struct Stub {
    text: Vec<u8>,
    /// The Content-Type of the page that includes it.
    content_type: Vec<u8>,
}

/// See [`State`]; none for requests without `ssi`.
pub type Note = Option<Box<State>>;

/// Header filter: decides, and sets the head.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = &site.settings(exchange.location).ssi;
    if !settings.enabled || exchange.response.content_length == Some(0) {
        return;
    }
    let Some(content_type) = exchange.response.content_type else { return };
    if !settings.types.matches(exchange.response.text(content_type)) {
        return;
    }
    let page = begin(exchange, settings);
    exchange.begin_weaving().page = Some(page);
    exchange.response.clear_content_length();
    ranges::give_up(exchange);
    if settings.last_modified {
        weaken_etag(exchange);
    } else {
        exchange.response.clear_last_modified();
        exchange.response.etag = None;
    }
}

/// Makes the block that takes the place of a failed or empty response the response of `exchange`, with the filters of
/// its location; its commands are followed where those of a page of this type would be. `false` if there is none.
///
/// As in nginx a block is in the context of the request that it stands for, and of the type that this has announced,
/// else of the page's. (Unlike there, commands are followed in the place of an announced length of 0 too.)
pub fn begin_stub(exchange: &mut Exchange, context: &mut Context) -> bool {
    let Some(Stub { text, content_type }) = exchange.notes.ssi.as_mut().and_then(|state| state.stub.take())
    else {
        return false;
    };
    let announced = exchange.response.content_type.map(|span| exchange.response.text(span).to_vec());
    exchange.error_status = None;
    exchange.response.clear();
    exchange.response.status = Status::OK;
    exchange.response.set_content_type(&announced.unwrap_or(content_type));
    exchange.response.set_content_length(text.len() as u64);
    exchange.body = Body::Bytes(text);
    run_header_filters(exchange, context);
    true
}

/// The same for a request that has failed before it had a head.
pub fn begin_stub_of_failure(exchange: &mut Exchange, context: &mut Context) -> bool {
    let has_stub = exchange.notes.ssi.as_ref().is_some_and(|state| state.stub.is_some());
    if has_stub {
        exchange.response.content_type = None;
    }
    has_stub && begin_stub(exchange, context)
}

fn begin(exchange: &mut Exchange, settings: &Settings) -> Box<Ssi> {
    let state = exchange.notes.ssi.get_or_insert_default();
    state.time_format = None;
    Box::new(Ssi::new(settings, Shared::clone(&state.page)))
}

/// What a subrequest shares with the request that makes it: variables, blocks, captures. `stub` is what it sends if it
/// fails or has no body.
pub fn for_subrequest(parent: &Exchange, stub: Option<Vec<u8>>) -> Note {
    let state = parent.notes.ssi.as_ref()?;
    let content_type = parent.response.content_type.map(|span| parent.response.text(span));
    let content_type = content_type.unwrap_or_default().to_vec();
    let stub = stub.map(|text| Stub { text, content_type });
    Some(Box::new(State { page: Shared::clone(&state.page), time_format: None, stub }))
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
