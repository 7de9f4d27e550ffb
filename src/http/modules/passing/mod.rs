//! What all modules share that pass requests on: addresses, and the directives that each has under its own name
//! (`proxy_bind`, `memcached_bind`, ...).

mod address;
mod options;
mod tls;

pub use address::{PassUrl, computed_address, parse_address};
pub use options::{
    Bind, BufferPlan, Buffers, PAGE, Words, bind, buffers, conditions, effective_conditions, rate, small,
    store_access,
};

pub use tls::{TlsPlan, TlsSlot, UpstreamMemory, UpstreamTls, finish as finish_tls};

use crate::http::build::Scope;
use crate::http::phases::Handler;

/// Makes `handler` that of the location, which passes requests on: a location whose name ends with a slash then answers
/// the name without it by a redirect.
pub fn set_handler(scope: &mut Scope, handler: Handler) {
    let ends_with_slash = scope.head.name.ends_with(b"/");
    let core = scope.drafts.core.get_or_insert_default();
    core.handler = Some(Some(handler));
    core.passes_on = Some(true);
    if ends_with_slash {
        core.auto_redirect = Some(true);
    }
}
