//! Directives that every module has which passes requests on.

use std::net::{IpAddr, SocketAddr};

use crate::base::level::Level;
use crate::conf::directive::{Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::conf::values;
use crate::http::build::arguments::{invalid_value, number};
use crate::http::build::{Builder, Scope};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::{LocalAddress, conditions as condition};

/// A page of memory, which nginx's defaults go by.
pub const PAGE: u64 = 4096;

/// Words of a bit mask with their bits.
pub type Words = [(&'static str, u32)];

/// `..._bind`.
#[derive(Clone, Debug)]
pub enum Bind {
    /// To this address.
    Fixed(LocalAddress),
    /// To what variables say.
    Computed {
        /// The address, with or without a port.
        address: Template,
        /// `transparent`: it need not be ours.
        transparent: bool,
    },
}

/// `..._bind address [transparent]` or `off`.
pub fn bind(scope: &mut Scope, call: &Call) -> Result<Option<Bind>, Complaint> {
    let word = call.arg(0);
    let transparent = match call.args().get(1) {
        None if word == "off" => return Ok(None),
        None => false,
        Some(flag) if flag == "transparent" => true,
        Some(flag) => return Err(Complaint::invalid_parameter(flag)),
    };
    let address = scope.builder.template(word)?;
    match address.as_literal() {
        None => Ok(Some(Bind::Computed { address, transparent })),
        Some(text) => match parse_local(text) {
            Some(address) => Ok(Some(Bind::Fixed(LocalAddress { address, transparent }))),
            None => Err(Complaint::new(format!("invalid address \"{}\"", word.lossy())).at(word)),
        },
    }
}

fn parse_local(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match plain.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, 0)),
        Err(_) => text.parse().ok(),
    }
}

impl Bind {
    /// The address to connect from; none if variables give none, which is logged unless they are empty.
    pub fn address(&self, exchange: &mut Exchange, context: &mut Context) -> Option<LocalAddress> {
        match self {
            Bind::Fixed(address) => Some(*address),
            Bind::Computed { address, transparent } => {
                exchange.with_rendered(address, context, |exchange, context, text| {
                    if text.is_empty() {
                        return None;
                    }
                    let parsed = parse_local(text);
                    if parsed.is_none() {
                        let shown = String::from_utf8_lossy(text);
                        exchange.log(
                            context,
                            Level::Error,
                            format_args!("invalid local address \"{shown}\""),
                        );
                    }
                    parsed.map(|address| LocalAddress { address, transparent: *transparent })
                })
            }
        }
    }
}

/// A bit mask of words; a word twice is a warning, as in nginx.
pub fn conditions(scope: &mut Scope, call: &Call, words: &Words) -> Result<u32, Complaint> {
    let mut mask = 0;
    for word in call.args() {
        let found = words.iter().find(|(name, _)| word.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
        let Some((_, bit)) = found else { return Err(Complaint::invalid_value(word)) };
        if mask & bit != 0 {
            scope.warn_word(call, word, format!("duplicate value \"{}\"", word.lossy()));
        }
        mask |= bit;
    }
    Ok(mask)
}

/// `off` among the conditions wins.
pub fn effective_conditions(mask: u32) -> u32 {
    if mask & condition::OFF != 0 { condition::OFF } else { mask }
}

/// A whole number of 32 bits; what is larger counts as the largest.
pub fn small(scope: &mut Scope, call: &Call) -> Result<u32, Complaint> {
    Ok(u32::try_from(number(scope, call)?).unwrap_or(u32::MAX))
}

/// A rate in bytes per second that may come from variables.
pub fn rate(scope: &mut Scope, call: &Call) -> Result<Template, Complaint> {
    let template = scope.builder.template(call.arg(0))?;
    match template.as_literal() {
        Some(text) if values::parse_size(text).is_err() => Err(invalid_value(call, call.arg(0))),
        _ => Ok(template),
    }
}

/// `..._buffers number size`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// How many.
    pub count: u64,
    /// Bytes of each.
    pub size: u64,
}

/// `..._buffers`
pub fn buffers(_: &mut Scope, call: &Call) -> Result<Buffers, Complaint> {
    let count = values::parse_number(call.arg(0).as_bytes()).ok().filter(|count| *count > 0);
    let size = values::parse_size(call.arg(1).as_bytes()).ok().filter(|size| *size > 0);
    match (count, size) {
        (Some(count), Some(size)) => Ok(Buffers { count, size }),
        _ => Err(Complaint::new(values::invalid_value(call.name()))),
    }
}

/// `..._store_access`: permission bits for user, group and all.
pub fn store_access(_: &mut Scope, call: &Call) -> Result<u32, Complaint> {
    let mut user = 0o600;
    let mut mode = 0;
    for word in call.args() {
        let invalid = || Complaint::invalid_value(word);
        let (who, right) = word.as_str().and_then(|text| text.split_once(':')).ok_or_else(invalid)?;
        let shift = match who {
            "user" => 6,
            "group" => 3,
            "all" => 0,
            _ => return Err(invalid()),
        };
        if who == "user" {
            user = 0;
        }
        let bits = match right {
            "rw" => 6,
            "r" => 4,
            _ => return Err(invalid()),
        };
        mode |= bits << shift;
    }
    Ok(mode | user)
}

/// Sizes of buffers that must fit together; `None` is what the configuration leaves to the others.
#[derive(Clone, Copy, Debug)]
pub struct BufferPlan {
    /// `..._buffers`
    pub buffers: Buffers,
    /// `..._buffer_size`
    pub buffer_size: u64,
    /// `..._busy_buffers_size`
    pub busy: Option<u64>,
    /// `..._temp_file_write_size`
    pub temp_write: Option<u64>,
    /// `..._max_temp_file_size`
    pub max_temp: u64,
}

impl BufferPlan {
    fn largest(&self) -> u64 {
        self.buffer_size.max(self.buffers.size)
    }

    /// Bytes that may be on their way to the client while the rest is read.
    pub fn busy(&self) -> u64 {
        self.busy.unwrap_or(self.largest().saturating_mul(2))
    }

    /// Bytes written to a temporary file at once.
    pub fn temp_write(&self) -> u64 {
        self.temp_write.unwrap_or(self.largest().saturating_mul(2))
    }

    /// Reports sizes that do not fit together, as nginx does; `prefix` is the directives' (`proxy`).
    pub fn check(&self, builder: &mut Builder, prefix: &str, place: (Span, IncludeId)) {
        let maximum = format!(
            "the maximum of the value of \"{prefix}_buffer_size\" and one of the \"{prefix}_buffers\""
        );
        let message = if self.buffers.count < 2 {
            format!("there must be at least 2 \"{prefix}_buffers\"")
        } else if self.busy() < self.largest() {
            format!("\"{prefix}_busy_buffers_size\" must be equal to or greater than {maximum}")
        } else if self.busy() > (self.buffers.count - 1).saturating_mul(self.buffers.size) {
            format!(
                "\"{prefix}_busy_buffers_size\" must be less than the size of all \"{prefix}_buffers\" minus one \
                 buffer"
            )
        } else if self.temp_write() < self.largest() {
            format!("\"{prefix}_temp_file_write_size\" must be equal to or greater than {maximum}")
        } else if self.max_temp != 0 && self.max_temp < self.largest() {
            format!(
                "\"{prefix}_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be \
                 equal to or greater than {maximum}"
            )
        } else {
            return;
        };
        builder.error_at(place.0, place.1, message);
    }
}
