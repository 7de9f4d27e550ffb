//! `charset`: names a response's character set, and changes it where a `charset_map` says how.
//!
//! The set that a response is in is the one that its Content-Type names (an upstream's), else `source_charset`. Where
//! that is known and another one than `charset` wants, the body is recoded. What subrequests add to a body is recoded to
//! the set of the response that it becomes a part of, whatever its own location says.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::diagnostics::Diagnostic;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree::{self, Word};
use crate::http::body_filters::{ByCodePoint, Character, FilterSpec, Recoding};
use crate::http::build::{Builder, Scope};
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::{HTTP, HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;
use crate::message::Status;

settings! {
    module charset;
    fields {
        /// The set that responses are to be in.
        charset: Option<Template> = None, inherit;
            "charset" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "off", once charset_name;
        /// The set that they are in, where they don't say so themselves.
        source: Option<Template> = None, inherit;
            "source_charset" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "off", once charset_name;
        /// Whether a set that an upstream has named is changed too.
        override_named: bool = false, inherit;
            "override_charset" HTTP_SERVER_LOCATION_IF, Arity::FLAG, default "off", once flag;
        /// Media types that get a set, beside `text/html`.
        types: MediaTypes = default_types(), inherit;
            "charset_types" HTTP_SERVER_LOCATION, Arity::at_least(1),
                default "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
                with media_types;
        /// How one set becomes another.
        maps: Arc<Vec<Map>> = Arc::default(), inherit;
            "charset_map" HTTP, Arity::exactly(2).block(), default "", with add_map;
    }
}

fn default_types() -> MediaTypes {
    MediaTypes::of(&[
        "text/xml",
        "text/plain",
        "text/vnd.wap.wml",
        "application/javascript",
        "application/rss+xml",
    ])
}

/// Two sets, and the ways between them.
#[derive(Clone, Debug)]
pub struct Map {
    from: Box<[u8]>,
    to: Box<[u8]>,
    there: Recoding,
    back: Recoding,
}

fn charset_name(scope: &mut Scope, call: &Call) -> Result<Option<Template>, Complaint> {
    let word = call.arg(0);
    match word.as_bytes() {
        b"off" => Ok(None),
        [b'$', ..] => scope.builder.template(word).map(Some),
        name => Ok(Some(Template::literal(name))),
    }
}

fn add_map(scope: &mut Scope, call: &Call, slot: &mut Option<Arc<Vec<Map>>>) -> Result<(), Complaint> {
    let (from, to) = (call.arg(0), call.arg(1));
    let pair = format!("\"{}\" and \"{}\"", from.lossy(), to.lossy());
    if from.as_bytes().eq_ignore_ascii_case(to.as_bytes()) {
        return Err(Complaint::new(format!("\"charset_map\" between the same charsets {pair}")));
    }
    let maps = Arc::make_mut(slot.get_or_insert_default());
    let same = |name: &[u8], word: &Word| name.eq_ignore_ascii_case(word.as_bytes());
    if maps.iter().any(|map| {
        same(&map.from, from) && same(&map.to, to) || same(&map.from, to) && same(&map.to, from)
    }) {
        return Err(Complaint::new(format!("duplicate \"charset_map\" between {pair}")));
    }
    let read = if to.as_bytes().eq_ignore_ascii_case(b"utf-8") { read_utf8 } else { read_bytes };
    let (there, back) = match read(call.block()) {
        Ok(ways) => ways,
        Err((line, complaint)) => {
            scope.builder.diagnostics.push(complaint.into_diagnostic(line));
            return Ok(());
        }
    };
    maps.push(Map { from: from.as_bytes().into(), to: to.as_bytes().into(), there, back });
    Ok(())
}

type Ways<'a> = Result<(Recoding, Recoding), (&'a tree::Directive, Complaint)>;

/// A map's lines: a byte of the first set in hexadecimal, and what it is in the other.
fn read_lines(
    block: &[tree::Directive],
    mut take: impl FnMut(u8, &Word) -> Option<()>,
) -> Result<(), (&tree::Directive, Complaint)> {
    for line in block {
        let [word] = line.args() else {
            return Err((line, Complaint::new("invalid parameters number")));
        };
        let Some(byte) = hexadecimal(line.name().as_bytes()) else {
            return Err((line, Complaint::invalid_value(line.name())));
        };
        if take(byte, word).is_none() {
            return Err((line, Complaint::invalid_value(word)));
        }
    }
    Ok(())
}

fn hexadecimal(text: &[u8]) -> Option<u8> {
    crate::base::ascii::parse_hex_u64(text).and_then(|value| u8::try_from(value).ok())
}

/// ASCII is the same in both; what the map does not mention is `?`.
fn ascii_only() -> [u8; 256] {
    std::array::from_fn(|byte| if byte < 128 { byte as u8 } else { b'?' })
}

fn read_bytes(block: &[tree::Directive]) -> Ways<'_> {
    let (mut there, mut back) = (ascii_only(), ascii_only());
    read_lines(block, |byte, word| {
        let other = hexadecimal(word.as_bytes())?;
        there[usize::from(byte)] = other;
        back[usize::from(other)] = byte;
        Some(())
    })?;
    Ok((Recoding::Bytes(Arc::new(there)), Recoding::Bytes(Arc::new(back))))
}

fn read_utf8(block: &[tree::Directive]) -> Ways<'_> {
    let mut there = ascii_only().map(Character::of_ascii);
    let mut back = ByCodePoint::default();
    read_lines(block, |byte, word| {
        let digits = word.as_bytes();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(hexadecimal).collect();
        let bytes = bytes.filter(|_| digits.len() % 2 == 0)?;
        let mut characters = std::str::from_utf8(&bytes).ok()?.chars();
        let (character, None) = (characters.next()?, characters.next()) else { return None };
        back.insert(u16::try_from(u32::from(character)).ok()?, byte);
        there[usize::from(byte)] = Character::new(&bytes)?;
        Some(())
    })?;
    Ok((Recoding::ToUtf8(Arc::new(there)), Recoding::FromUtf8(Arc::new(back))))
}

fn find(maps: &[Map], from: &[u8], to: &[u8]) -> Option<Recoding> {
    maps.iter().find_map(|map| {
        if map.from.eq_ignore_ascii_case(from) && map.to.eq_ignore_ascii_case(to) {
            Some(map.there.clone())
        } else if map.from.eq_ignore_ascii_case(to) && map.to.eq_ignore_ascii_case(from) {
            Some(map.back.clone())
        } else {
            None
        }
    })
}

fn no_map(from: &[u8], to: &[u8]) -> String {
    let [from, to] = [from, to].map(String::from_utf8_lossy);
    format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"")
}

/// Reports a scope whose two sets have no map between them.
pub fn check(builder: &mut Builder, own: &Draft, around: &Settings) {
    if own.charset.is_none() && own.source.is_none() {
        return;
    }
    let to = own.charset.as_ref().unwrap_or(&around.charset);
    let from = own.source.as_ref().unwrap_or(&around.source);
    let maps = own.maps.as_ref().unwrap_or(&around.maps);
    let literal = |template: &Option<Template>| template.as_ref()?.as_literal().map(<[u8]>::to_vec);
    if let (Some(from), Some(to)) = (literal(from), literal(to))
        && !from.eq_ignore_ascii_case(&to)
        && find(maps, &from, &to).is_none()
    {
        builder.diagnostics.push(Diagnostic::error(no_map(&from, &to)));
    }
}

/// The set of the response that a subrequest's body becomes a part of; none if it names none.
pub type Note = Option<Box<[u8]>>;

/// The [`Note`] of a subrequest of this one.
pub fn for_subrequest(parent: &Exchange) -> Note {
    if parent.is_subrequest() {
        return parent.notes.charset.clone();
    }
    let text = parent.response.text(parent.response.content_type?);
    split_charset(text).1.map(Box::from)
}

/// Header filter: names the set in Content-Type, and decides whether the body is recoded.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = &site.settings(exchange.location).charset;
    if exchange.is_subrequest() {
        return fit_in(exchange, context, settings);
    }
    let (Some(wanted), Some(content_type)) = (&settings.charset, exchange.response.content_type) else { return };
    let text = exchange.response.text(content_type);
    let (media_type, named) = split_charset(text);
    let (media_type, named) = (media_type.to_vec(), named.map(<[u8]>::to_vec));
    let applies = match named {
        Some(_) => settings.override_named,
        None => settings.types.matches(&media_type),
    };
    if !applies || media_type.is_empty() {
        return;
    }
    let to = exchange.with_rendered(wanted, context, |_, _, text| text.to_vec());
    if to.is_empty() || !recode(exchange, context, settings, named, &to) {
        return;
    }
    // A redirect's page names no set, as nginx has it.
    if matches!(exchange.response.status, Status::MOVED_PERMANENTLY | Status::FOUND) {
        return;
    }
    let value = [&media_type[..], b"; charset=", &to].concat();
    exchange.response.set_content_type(&value);
}

/// The same for a subrequest.
fn fit_in(exchange: &mut Exchange, context: &mut Context, settings: &Settings) {
    let Some(to) = exchange.notes.charset.clone() else { return };
    let content_type = exchange.response.content_type.map(|span| exchange.response.text(span));
    let named = content_type.and_then(|text| split_charset(text).1).map(<[u8]>::to_vec);
    recode(exchange, context, settings, named, &to);
}

/// Has the body recoded where it is in another set than `to`; `false` if that can't be.
fn recode(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    named: Option<Vec<u8>>,
    to: &[u8],
) -> bool {
    let from = match (named, &settings.source) {
        (Some(named), _) => named,
        (None, Some(source)) => exchange.with_rendered(source, context, |_, _, text| text.to_vec()),
        (None, None) => return true,
    };
    if from.eq_ignore_ascii_case(to) {
        return true;
    }
    if exchange.response.fields.first(crate::message::FieldName::ContentEncoding).is_some() {
        return false;
    }
    let Some(recoding) = find(&settings.maps, &from, to) else {
        exchange.log(context, Level::Error, format_args!("{}", no_map(&from, to)));
        return false;
    };
    if !recoding.keeps_length() {
        exchange.response.clear_content_length();
    }
    exchange.body_filters.push(FilterSpec::Recode(recoding));
    true
}

/// The value of a Content-Type field without its `charset` parameter and what follows it, and that parameter's value.
fn split_charset(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut end = 0;
    for part in text.split(|byte| *byte == b';') {
        let trimmed = crate::base::ascii::trim_ows(part);
        if end > 0 && crate::base::ascii::starts_with_ignore_case(trimmed, b"charset=") {
            let value = &trimmed[b"charset=".len()..];
            let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
            return (&text[..end - 1], Some(value));
        }
        end += part.len() + 1;
    }
    (text, None)
}
