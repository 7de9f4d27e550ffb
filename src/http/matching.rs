//! Placeholder.
use super::context::Context;
use super::exchange::Exchange;
use super::server_names::ServerNames;
use super::site::{LocationId, ServerId};
impl Exchange {
    /// Finds.
    pub fn find_server(&mut self, _: &mut Context, names: &ServerNames<ServerId>) -> Option<ServerId> {
        names
            .find(self.head.text(self.head.host), &mut self.captures)
            .ok()
            .flatten()
            .map(|found| found.target)
    }
    /// Takes.
    pub fn take_captures_of_uri(&mut self, _: &mut Context, _: LocationId) {}
    /// Warns.
    pub fn warn_uninitialized(&mut self, _: &mut Context, _: &str) {}
}
