//! What `-t` says about settings that do not fit together, or do something else than they seem to.

use crate::conf::source::{IncludeId, Span};
use crate::http::build::Builder;
use crate::http::modules::passing::BufferPlan;
use crate::message::FieldName;

use super::{Draft, Settings};

/// Reports sizes of buffers that do not fit together, where `own` (not merged yet) says something about them.
pub fn check(builder: &mut Builder, own: &Draft, around: &Settings) {
    let Some(Some(place)) = own.buffers_place else { return };
    let plan = BufferPlan {
        buffers: own.buffers.unwrap_or(around.buffers),
        buffer_size: own.buffer_size.unwrap_or(around.buffer_size),
        busy: own.busy_buffers_size.unwrap_or(around.busy_buffers_size),
        temp_write: own.temp_file_write_size.unwrap_or(around.temp_file_write_size),
        max_temp: own.max_temp_file_size.unwrap_or(around.max_temp_file_size),
    };
    plan.check(builder, "proxy", place);
}

/// Where `proxy_set_header` lines of `own` (not merged yet) make those of the scope around disappear.
pub fn hidden_headers(own: &Draft, around: &Settings) -> Option<(Span, IncludeId)> {
    let own = own.set_headers.as_ref()?;
    let missing = around.set_headers.list.iter().any(|outer| {
        // `Connection ""` is what nginx before 1.29.7 had to be told; it is the default now.
        let is_default = outer.id == FieldName::Connection && outer.value.is_empty();
        let is_repeated = own.list.iter().any(|header| header.name.eq_ignore_ascii_case(&outer.name));
        !is_default && !is_repeated
    });
    own.first.filter(|_| missing)
}
