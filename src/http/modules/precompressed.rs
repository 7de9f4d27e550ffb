//! Compressed siblings of files: `gzip_static`, `brotli_static`, `zstd_static`, and what decides whether a client gets
//! compressed responses at all (`gzip_vary`, `gzip_proxied`, `gzip_http_version`, `gzip_disable`).
//!
//! For `/a.js`, the siblings `/a.js.br`, `/a.js.zst` and `/a.js.gz` are tried in the order of the client's weights in
//! Accept-Encoding; of equal weights in this order, because that is the order of their usual sizes. Then come those
//! with `always`, which are sent whatever the client accepts. The first one that exists is the response: with the
//! type of the original name, its own length, Last-Modified and ETag, and without ranges, as nginx does it. The
//! original need not exist. If none is there, the file itself is served.
//!
//! For gzip, Accept-Encoding is read as nginx reads it (`*` and `x-gzip` do not count); for the others it is read as
//! RFC 9110 section 12.5.3 has it, but `*` does not count either: who knows a coding names it. The `gzip_*` conditions
//! hold for all three.
//!
//! `Vary: Accept-Encoding` is sent with `gzip_vary on` wherever another Accept-Encoding could have another answer: with
//! a sibling, and with the original if a sibling exists.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::ascii;
use crate::base::clock::parse_http_date;
use crate::base::level::Level;
use crate::base::regex::Regex;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, one_of};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{FailureReason, FileAnswer, FileInfo, FileKind, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::{FieldName, Method, Status, Version};

/// Whether siblings of one coding are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Off,
    /// To clients that accept the coding.
    On,
    /// To all clients.
    Always,
}

/// `gzip_proxied`: a set of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied(u16);

const OFF: u16 = 1;
const EXPIRED: u16 = 1 << 1;
const NO_CACHE: u16 = 1 << 2;
const NO_STORE: u16 = 1 << 3;
const PRIVATE: u16 = 1 << 4;
const NO_LAST_MODIFIED: u16 = 1 << 5;
const NO_ETAG: u16 = 1 << 6;
const AUTH: u16 = 1 << 7;
const ANY: u16 = 1 << 8;

/// `gzip_disable`: clients that get nothing compressed.
#[derive(Clone, Debug, Default)]
pub struct Disable {
    /// Patterns for User-Agent, case ignored; `None` if no directive named one.
    patterns: Option<Arc<[Regex]>>,
    /// MSIE 4 to 6, but for version 6 with service pack 2.
    msie6: bool,
}

settings! {
    module precompressed;
    merge inherit_disable;
    fields {
        /// Whether `.gz` siblings are served.
        gzip_static: Mode = Mode::Off, inherit;
            "gzip_static" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once mode;
        /// Whether `.br` siblings are served (a directive of ours).
        brotli_static: Mode = Mode::Off, inherit;
            "brotli_static" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once mode;
        /// Whether `.zst` siblings are served (a directive of ours).
        zstd_static: Mode = Mode::Off, inherit;
            "zstd_static" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once mode;
        /// Whether responses that depend on Accept-Encoding say so in Vary.
        gzip_vary: bool = false, inherit;
            "gzip_vary" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// The lowest version of HTTP that compressed responses are sent to.
        gzip_http_version: Version = Version::Http11, inherit;
            "gzip_http_version" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1.1", once http_version;
        /// Which requests of proxies (with a Via field) get compressed responses.
        gzip_proxied: Proxied = Proxied(OFF), inherit;
            "gzip_proxied" HTTP_SERVER_LOCATION, Arity::at_least(1), default "off", with proxied;
        /// Clients that get no compressed responses.
        gzip_disable: Disable = Disable::default(), inherit;
            "gzip_disable" HTTP_SERVER_LOCATION, Arity::at_least(1), default "", with disable;
    }
}

fn mode(_: &mut Scope, call: &Call) -> Result<Mode, Complaint> {
    one_of(call, &[("off", Mode::Off), ("on", Mode::On), ("always", Mode::Always)])
}

fn http_version(_: &mut Scope, call: &Call) -> Result<Version, Complaint> {
    one_of(call, &[("1.0", Version::Http10), ("1.1", Version::Http11)])
}

const PROXIED_WORDS: &[(&str, u16)] = &[
    ("off", OFF),
    ("expired", EXPIRED),
    ("no-cache", NO_CACHE),
    ("no-store", NO_STORE),
    ("private", PRIVATE),
    ("no_last_modified", NO_LAST_MODIFIED),
    ("no_etag", NO_ETAG),
    ("auth", AUTH),
    ("any", ANY),
];

/// A second directive in the same scope adds to the first, as in nginx.
fn proxied(scope: &mut Scope, call: &Call, slot: &mut Option<Proxied>) -> Result<(), Complaint> {
    let mut set = slot.map_or(0, |set| set.0);
    for word in call.args() {
        let Some((_, bit)) = PROXIED_WORDS.iter().find(|(name, _)| word.as_bytes() == name.as_bytes()) else {
            return Err(Complaint::invalid_value(word));
        };
        if set & bit != 0 {
            scope.warn(call, format!("duplicate value \"{}\"", word.lossy()));
        }
        set |= bit;
    }
    *slot = Some(Proxied(set));
    Ok(())
}

fn disable(_: &mut Scope, call: &Call, slot: &mut Option<Disable>) -> Result<(), Complaint> {
    let mut disable = slot.take().unwrap_or_default();
    let mut added = Vec::new();
    for word in call.args() {
        if word.as_bytes() == b"msie6" {
            disable.msie6 = true;
            continue;
        }
        let regex = Regex::new(word.as_bytes(), true)
            .map_err(|error| Complaint::new(error.nginx_text(word.as_bytes())).at(word))?;
        added.push(regex);
    }
    if !added.is_empty() {
        let before =
            disable.patterns.iter().flat_map(|patterns| patterns.iter().map(Regex::per_thread_clone));
        disable.patterns = Some(before.chain(added).collect());
    }
    *slot = Some(disable);
    Ok(())
}

/// nginx inherits the patterns and `msie6` apart from each other: a scope that names patterns keeps the `msie6` of the
/// scope around, and the other way about.
fn inherit_disable(draft: &mut Draft, parent: &Draft) {
    if let (Some(own), Some(around)) = (&mut draft.gzip_disable, &parent.gzip_disable) {
        own.msie6 |= around.msie6;
        if own.patterns.is_none() {
            own.patterns.clone_from(&around.patterns);
        }
    }
}

/// A coding that siblings may have, and that responses may be compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
    /// `gzip`
    Gzip,
}

impl Coding {
    /// All, preferred ones first.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    fn suffix(self) -> &'static [u8] {
        match self {
            Coding::Brotli => b".br",
            Coding::Zstd => b".zst",
            Coding::Gzip => b".gz",
        }
    }

    /// The name in Accept-Encoding and Content-Encoding.
    pub fn token(self) -> &'static [u8] {
        match self {
            Coding::Brotli => b"br",
            Coding::Zstd => b"zstd",
            Coding::Gzip => b"gzip",
        }
    }

    fn mode(self, settings: &Settings) -> Mode {
        match self {
            Coding::Brotli => settings.brotli_static,
            Coding::Zstd => settings.zstd_static,
            Coding::Gzip => settings.gzip_static,
        }
    }

    /// The client's weight for it in thousandths; 0 if it does not accept it.
    pub fn weight(self, accept: &[u8]) -> u16 {
        match self {
            Coding::Gzip => gzip_weight(accept),
            other => listed_weight(accept, other.token()),
        }
    }
}

/// A sibling to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    coding: Coding,
    /// Whether it is the response if it exists; else it is only looked for because of Vary.
    may_serve: bool,
}

/// Serves the best sibling that there is.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let settings = &context.site.settings(exchange.location).precompressed;
    let modes = [settings.gzip_static, settings.brotli_static, settings.zstd_static];
    if modes == [Mode::Off; 3]
        || exchange.uri.ends_with(b"/")
        || !matches!(exchange.method(), Method::Get | Method::Head)
    {
        return Flow::Next;
    }
    // A function of the request and the settings alone: the same list at every call.
    let candidates = candidates(exchange, context, settings);
    let step = exchange.content_step as usize;
    match answer {
        None => {
            if candidates.is_empty() {
                return Flow::Next;
            }
            if let Err(status) = exchange.map_uri_to_path(context) {
                return Flow::Status(status);
            }
        }
        Some(Answer::File(answer)) => {
            let Some(candidate) = step.checked_sub(1).and_then(|step| candidates.get(step)) else {
                return Flow::Status(Status::INTERNAL_SERVER_ERROR);
            };
            if let Some(flow) = take_answer(exchange, context, settings, *candidate, answer) {
                return flow;
            }
            let length = exchange.path.len() - candidate.coding.suffix().len();
            exchange.path.truncate(length);
        }
        Some(_) => return Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
    let Some(next) = candidates.get(step) else { return Flow::Next };
    exchange.content_step += 1;
    exchange.path.extend_from_slice(next.coding.suffix());
    exchange.apply_symlink_rules(context);
    Flow::Need(Need::File(if next.may_serve { Want::Open } else { Want::Stat }))
}

/// What the answer about one candidate comes to; `None` to go on with the next one.
fn take_answer(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    candidate: Candidate,
    answer: FileAnswer,
) -> Option<Flow> {
    let file = match answer {
        FileAnswer::Found(file) if file.kind == FileKind::File => file,
        FileAnswer::Found(_) => return None,
        FileAnswer::Failed(failure) => {
            match failure.reason {
                FailureReason::NotFound => {}
                FailureReason::Forbidden => exchange.log_file_failure(context, Level::Error, failure),
                FailureReason::Busy | FailureReason::Internal => {
                    exchange.log_file_failure(context, Level::Crit, failure);
                }
            }
            return None;
        }
    };
    if settings.gzip_vary && Coding::ALL.iter().any(|coding| coding.mode(settings) == Mode::On) {
        set_vary(exchange);
    }
    if !candidate.may_serve {
        return Some(Flow::Next);
    }
    serve(exchange, context, candidate.coding, file);
    Some(Flow::Respond)
}

fn serve(exchange: &mut Exchange, context: &mut Context, coding: Coding, file: FileInfo) {
    exchange.respond_with_file(context, file);
    exchange.allow_ranges = false;
    exchange.response.fields.push_known(FieldName::ContentEncoding, coding.token());
}

/// Adds `Vary: Accept-Encoding`, once.
pub fn set_vary(exchange: &mut Exchange) {
    let fields = &mut exchange.response.fields;
    if !fields.all(FieldName::Vary).any(|value| value.eq_ignore_ascii_case(b"Accept-Encoding")) {
        fields.push_known(FieldName::Vary, b"Accept-Encoding");
    }
}

/// What to look for, in order.
fn candidates(exchange: &Exchange, context: &Context, settings: &Settings) -> SmallVec<[Candidate; 3]> {
    let accept = match exchange.head.field(FieldName::AcceptEncoding) {
        Some(accept) if may_have_compressed(exchange, context, settings) => accept,
        _ => b"",
    };
    let mut weighed: SmallVec<[(u16, Candidate); 3]> = SmallVec::new();
    for coding in Coding::ALL {
        let weight = if accept.is_empty() { 0 } else { coding.weight(accept) };
        let may_serve = match coding.mode(settings) {
            Mode::Off => continue,
            Mode::Always => true,
            Mode::On if weight > 0 => true,
            Mode::On if settings.gzip_vary => false,
            Mode::On => continue,
        };
        // Accepted ones by weight, then those that are sent regardless, then those that matter for Vary only.
        let rank = if weight > 0 { weight + 1 } else { u16::from(may_serve) };
        weighed.push((rank, Candidate { coding, may_serve }));
    }
    weighed.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    weighed.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Whether the request may have a compressed response at all, Accept-Encoding apart: its version, whether a proxy
/// sent it, which browser (nginx's order and rules).
pub fn may_have_compressed(exchange: &Exchange, context: &Context, settings: &Settings) -> bool {
    let agent = exchange.head.field(FieldName::UserAgent);
    if settings.gzip_disable.msie6 && agent.is_some_and(is_msie6) {
        return false;
    }
    if exchange.head.version < settings.gzip_http_version {
        return false;
    }
    if exchange.head.has(FieldName::Via) && !may_have_compressed_by_proxy(exchange, context.env.now.wall_secs, settings.gzip_proxied) {
        return false;
    }
    match (&settings.gzip_disable.patterns, agent) {
        // A match that fails (its work is bounded) counts as a match, as in nginx.
        (Some(patterns), Some(agent)) => patterns.iter().all(|pattern| pattern.is_match(agent) == Ok(false)),
        _ => true,
    }
}

/// `gzip_proxied`: goes by what the response says so far.
fn may_have_compressed_by_proxy(exchange: &Exchange, now_secs: i64, Proxied(set): Proxied) -> bool {
    if set & OFF != 0 {
        return false;
    }
    if set & ANY != 0 || set & AUTH != 0 && exchange.head.has(FieldName::Authorization) {
        return true;
    }
    let response = &exchange.response;
    if let Some(expires) = response.fields.first(FieldName::Expires) {
        // Of a response that is expired when it is made, no cache keeps two forms.
        // Without one of an upstream's that is passed on, the Date is of now.
        let date = response.fields.first(FieldName::Date).map_or(Some(now_secs), parse_http_date);
        let is_expired =
            parse_http_date(expires).is_some_and(|expires| date.is_some_and(|date| expires < date));
        return set & EXPIRED != 0 && is_expired;
    }
    let mut controls = response.fields.all(FieldName::CacheControl).peekable();
    if controls.peek().is_some() {
        let words = [(NO_CACHE, &b"no-cache"[..]), (NO_STORE, b"no-store"), (PRIVATE, b"private")];
        // As in nginx a word counts without a value only, and behind a semicolon too.
        return controls.flat_map(ascii::list_elements).any(|element| {
            let last = element.rsplit(|byte| *byte == b';').next().map(ascii::trim_ows).unwrap_or_default();
            words.iter().any(|(bit, word)| set & bit != 0 && last.eq_ignore_ascii_case(word))
        });
    }
    // Without any of these fields nginx compresses, whichever the conditions are but `off`.
    !(set & NO_LAST_MODIFIED != 0 && response.last_modified.is_some()
        || set & NO_ETAG != 0 && response.etag.is_some())
}

/// MSIE 4 and 5, and 6 before its second service pack; not Opera, which used to call itself MSIE.
fn is_msie6(agent: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(agent, b"MSIE ") else { return false };
    let version = &agent[at + 5..];
    if version.len() < 3 || version[1] != b'.' || memchr::memmem::find(agent, b"Opera").is_some() {
        return false;
    }
    match version[0] {
        b'4' | b'5' => true,
        b'6' => memchr::memmem::find(&version[3..], b"SV1").is_none(),
        _ => false,
    }
}

/// The weight of gzip in thousandths as nginx reads Accept-Encoding: the first `gzip` behind a comma, a space or
/// nothing decides, whatever follows it.
fn gzip_weight(accept: &[u8]) -> u16 {
    let mut from = 0;
    while let Some(found) = ascii::find_ignore_case(&accept[from..], b"gzip") {
        let at = from + found;
        from = at + 4;
        if at > 0 && !matches!(accept[at - 1], b',' | b' ') {
            continue;
        }
        let rest = &accept[from..];
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        match rest.get(spaces) {
            None | Some(b',') => return 1000,
            Some(b';') => return gzip_parameter(&rest[spaces + 1..]),
            Some(_) => {}
        }
    }
    0
}

/// What follows `gzip;`: nothing, or `q=` and a weight.
fn gzip_parameter(text: &[u8]) -> u16 {
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    match &text[spaces..] {
        [] => 1000,
        [b'q' | b'Q', b'=', value @ ..] => {
            let end = value.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(value.len());
            qvalue(&value[..end]).unwrap_or(0)
        }
        _ => 0,
    }
}

/// The weight of `coding` in thousandths by RFC 9110 section 12.5.3; 0 if it is not named, refused, or misspelt.
fn listed_weight(accept: &[u8], coding: &[u8]) -> u16 {
    for element in ascii::list_elements(accept) {
        let mut parts = element.split(|byte| *byte == b';').map(ascii::trim_ows);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding)) {
            continue;
        }
        return match parts.next() {
            None | Some(b"") => 1000,
            Some([b'q' | b'Q', b'=', value @ ..]) => qvalue(value).unwrap_or(0),
            Some(_) => 0,
        };
    }
    0
}

/// A weight of RFC 9110 section 12.4.2 in thousandths: `0`, `0.7`, `1.000`; at most three digits behind the point.
fn qvalue(text: &[u8]) -> Option<u16> {
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0') * 1000;
    let mut unit = 100;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value += u16::from(digit - b'0') * unit;
        unit /= 10;
    }
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests;
