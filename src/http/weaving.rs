//! Bodies that subrequests have a part in: what goes before and behind them, and (`ssi`) what is included in between.
//!
//! Header filters say on the exchange what is woven in ([`Weaving`]), and where among the body filters
//! ([`FilterSpec::Weave`]): those before it see the response's own body, those behind it all of it. The shell makes the
//! subrequests and puts the pieces in order.

use super::body_filters::FilterSpec;
use super::exchange::Exchange;
use super::modules::ssi::Ssi;
use super::subrequest::Order;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Weaving {
    /// Its response goes before the body.
    pub before: Option<Order>,
    /// Its response goes behind the body.
    pub after: Option<Order>,
    /// Follows the commands in the body.
    pub page: Option<Box<Ssi>>,
}

impl Exchange {
    /// The response's weaving, which has its place behind the body filters so far.
    pub fn begin_weaving(&mut self) -> &mut Weaving {
        if self.weaving.is_none() {
            self.body_filters.push(FilterSpec::Weave);
        }
        self.weaving.get_or_insert_default()
    }
}
