//! Placeholder: its module is being written.

use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::settings::settings;

settings! {
    module log;
    fields {
    }
}

/// Says nothing yet.
pub fn handle(_: &mut Exchange, _: &mut Context, _: Option<Answer>) -> Flow {
    Flow::Next
}
/// Reads.
pub fn main_error_log(_: &mut crate::http::build::Builder, _: &crate::conf::directive::Call) -> Result<crate::conf::main_settings::ErrorLog, crate::conf::directive::Complaint> {
 Ok(crate::conf::main_settings::ErrorLog { target: crate::conf::main_settings::LogTarget::Stderr, level: crate::base::level::Level::Error })
}
