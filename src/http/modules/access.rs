//! Placeholder: its module is being written.

use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::Flow;
use crate::http::settings::settings;

settings! {
    module access;
    fields {
    }
}

/// Says nothing yet.
pub fn handle(_: &mut Exchange, _: &mut Context) -> Flow {
    Flow::Next
}

